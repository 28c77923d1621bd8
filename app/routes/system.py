"""Health checks, metrics, and the state of the queues."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.http.auth import AdminKey, metrics_allowed, metrics_allowed_by_redis
from app.http.problems import UNAVAILABLE_NOW, Problem
from app.openapi import problems
from app.schemas.responses import Health, Queue, Queues, Readiness, Worker
from app.services import CurrentServices, Services
from app.store.errors import UNAVAILABLE
from app.store.records import WorkerRecord
from app.telemetry import installation

router = APIRouter(tags=["operation"])


@router.get("/healthz", summary="Liveness: the process responds", responses=problems())
async def healthz() -> Health:
    return Health()


@router.get("/readyz", summary="Readiness: Redis, a meta-model and an adapt worker are available", responses=problems())
async def readyz(services: CurrentServices) -> Readiness:
    checks = await _checks(services)
    if all(checks.values()):
        return Readiness(checks=checks)
    missing = ", ".join(name for name, passed in checks.items() if not passed)
    raise Problem(UNAVAILABLE_NOW, f"not ready: {missing}", checks=checks, headers={"Retry-After": "1"})


async def _checks(services: Services) -> dict[str, bool]:
    """The result of each readiness check, by name."""
    checks = {"not_draining": not services.draining.is_set(), "redis": False, "model": False, "adapt_worker": False}
    checks["objects"] = services.store.objects.responds
    try:
        await services.store.ping()
        checks["redis"] = True
        checks["model"] = any((await services.store.models.active()).values())
        checks["adapt_worker"] = bool((await services.store.workers.queues())["adapt"].workers)
    except UNAVAILABLE:
        pass  # checks that could not be made stay False
    return checks


METRICS: dict[str, Any] = {
    "response_class": Response,
    "description": "Needs no key on the service's own machine, or where the operator has opened it.",
    "responses": {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems(401, 403)},
    "openapi_extra": {"security": [{}]},  # a key is optional
}


@router.get(
    "/metrics",
    summary="Metrics of this app process, or of all on its machine, for Prometheus",
    dependencies=[Depends(metrics_allowed)],
    **METRICS,
)
async def metrics(services: CurrentServices) -> Response:
    return Response(services.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


@router.get("/metrics/installation", summary="Metrics of the whole installation, for Prometheus", **METRICS)
async def installation_metrics(
    services: CurrentServices, allowed: Annotated[bool, Depends(metrics_allowed_by_redis)]
) -> Response:
    """The same from any app process: have them read once."""
    text = await installation.exposition(services.store, services.settings) if allowed else installation.without_redis()
    return Response(text, media_type=CONTENT_TYPE_LATEST)


@router.get("/queues", summary="The jobs and workers of each queue", responses=problems(401, 403))
async def queues(services: CurrentServices, _: AdminKey) -> Queues:
    return Queues(
        queues=[
            Queue(
                name=name,
                waiting=queue.waiting,
                running=queue.running,
                workers=[_worker(each) for each in queue.workers],
                starting=queue.starting,
            )
            for name, queue in (await services.store.workers.queues()).items()
        ]
    )


def _worker(record: WorkerRecord) -> Worker:
    started_at = datetime.fromtimestamp(record.started_at, UTC)
    return Worker(name=record.name, device=record.device, started_at=started_at)
