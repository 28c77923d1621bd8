"""Whether the app lives, whether it can serve, and figures about it. Open to all: nothing here is about a client."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.http.problems import UNAVAILABLE_NOW, Problem
from app.openapi import problems
from app.schemas import Health, Readiness
from app.services import Held, Services
from app.store.errors import UNAVAILABLE

router = APIRouter(tags=["operation"])


@router.get("/healthz", summary="Whether the process lives", responses=problems())
async def healthz() -> Health:
    return Health()


@router.get(
    "/readyz", summary="Whether it can serve: store, meta-model and an adapt worker are there", responses=problems()
)
async def readyz(held: Held) -> Readiness:
    checks = await _checks(held)
    if all(checks.values()):
        return Readiness(checks=checks)
    missing = ", ".join(name for name, holds in checks.items() if not holds)
    raise Problem(UNAVAILABLE_NOW, f"not ready: {missing}", checks=checks, headers={"Retry-After": "1"})


async def _checks(held: Services) -> dict[str, bool]:
    """What must hold, by name."""
    checks = {"not_draining": not held.draining.is_set(), "redis": False, "model": False, "adapt_worker": False}
    try:
        await held.store.ping()
        checks["redis"] = True
        checks["model"] = await held.store.models.active() is not None
        checks["adapt_worker"] = bool((await held.store.workers.alive())["adapt"])
    except UNAVAILABLE:
        pass  # what was not reached stays False
    return checks


@router.get(
    "/metrics",
    response_class=Response,
    summary="Figures for Prometheus",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems()},
)
async def metrics(held: Held) -> Response:
    return Response(await held.metrics.exposition(held.store), media_type=CONTENT_TYPE_LATEST)
