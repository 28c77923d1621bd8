"""Whether the app lives, whether it can serve, and figures about it. Open to all: nothing here is about a client."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.http.problems import UNAVAILABLE_NOW, Problem
from app.openapi import problems
from app.schemas import Health, Readiness
from app.services import Services, ServicesDep
from app.store.errors import UNAVAILABLE

router = APIRouter(tags=["operation"])


@router.get("/healthz", summary="Whether the process lives", responses=problems())
async def healthz() -> Health:
    return Health()


@router.get(
    "/readyz", summary="Whether it can serve: store, meta-model and an adapt worker are there", responses=problems()
)
async def readyz(services: ServicesDep) -> Readiness:
    checks = await _checks(services)
    if all(checks.values()):
        return Readiness(checks=checks)
    missing = ", ".join(name for name, holds in checks.items() if not holds)
    raise Problem(UNAVAILABLE_NOW, f"not ready: {missing}", checks=checks, headers={"Retry-After": "1"})


async def _checks(services: Services) -> dict[str, bool]:
    """What must hold, by name."""
    checks = {"not_draining": not services.draining.is_set(), "redis": False, "model": False, "adapt_worker": False}
    try:
        await services.store.ping()
        checks["redis"] = True
        checks["model"] = await services.store.active_model() is not None
        checks["adapt_worker"] = bool((await services.store.observed.workers())["adapt"])
    except UNAVAILABLE:
        pass  # what was not reached stays False
    return checks


@router.get(
    "/metrics",
    response_class=Response,
    summary="Figures for Prometheus",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems()},
)
async def metrics(services: ServicesDep) -> Response:
    return Response(await services.metrics.exposition(services.store), media_type=CONTENT_TYPE_LATEST)
