"""What waits and what works, for whoever runs the service."""

from datetime import UTC, datetime

from fastapi import APIRouter

from app.http.auth import AdminKey
from app.openapi import problems
from app.schemas import Queue, Queues, Worker
from app.services import ServicesDep
from app.store.records import WorkerRecord

router = APIRouter(tags=["operation"])


@router.get("/queues", summary="What waits in each queue, and who works on it", responses=problems(401, 403))
async def queues(services: ServicesDep, _: AdminKey) -> Queues:
    waiting, running = await services.store.observed.queue_lengths(), await services.store.observed.running()
    workers = await services.store.observed.workers()
    return Queues(
        queues=[
            Queue(name=name, waiting=waiting[name], running=running[name], workers=[_worker(each) for each in there])
            for name, there in workers.items()
        ]
    )


def _worker(record: WorkerRecord) -> Worker:
    started_at = datetime.fromtimestamp(record.started_at, UTC)
    return Worker(name=record.name, device=record.device, started_at=started_at)
