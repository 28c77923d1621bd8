"""Meta-training runs on the operator's data sets."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app.http import sse
from app.http.auth import AdminKey, CountedStream
from app.http.problems import UNKNOWN_DATASET, Problem
from app.images.forms import read_json
from app.openapi import body, problems
from app.routes.episodes import IdempotencyKey
from app.schemas.requests import PageQuery, TrainBody
from app.schemas.responses import Training, TrainingPage
from app.services import CurrentServices, Services
from app.store.records import TrainingRecord

router = APIRouter(prefix="/train", tags=["training"])

RUNNING = frozenset({"queued", "running"})
LOCATION = {"Location": {"schema": {"type": "string"}, "description": "URL of the run, relative to the request's"}}


@router.post(
    "",
    status_code=202,
    summary="Start a meta-training run",
    responses={202: {"headers": LOCATION, "description": "Accepted"}, **problems(400, 401, 403, 415, 422)},
    openapi_extra=body(TrainBody, {"dataset": "symbols", "meta_epochs": 20, "ways": 5, "shots": 1}),
)
async def start(
    request: Request,
    response: Response,
    services: CurrentServices,
    key: AdminKey,
    idempotency_key: IdempotencyKey = None,
) -> Training:
    requested = await read_json(request, TrainBody)
    await _require_dataset(services, requested.dataset)
    options = requested.model_dump(exclude={"dataset"}, exclude_none=True)
    record = await services.store.trainings.create(
        owner=key.tenant, dataset=requested.dataset, options=options, idempotency_key=idempotency_key
    )
    response.headers["Location"] = f"train/{record.id}"  # relative, since a proxy may have changed the request's URL
    return Training.of(record)


async def _require_dataset(services: Services, name: str) -> None:
    """Raises Problem for a data set that the app can see is missing.

    If the app does not share the workers' disk, the worker finds out and the run fails.
    """
    folder = services.settings.datasets_dir
    if not folder.is_dir() or (folder / name).is_dir():
        return
    stored = await services.store.trainings.datasets()
    if name in stored:
        return
    names = sorted({path.name for path in folder.iterdir() if path.is_dir()} | stored)
    text = f"unknown data set {name!r}; available: {', '.join(names[:50]) or 'none'}"
    raise Problem(UNKNOWN_DATASET, text, field="dataset")


@router.get("", summary="List runs, newest first", responses=problems(401, 403, 422))
async def page(services: CurrentServices, _: AdminKey, query: Annotated[PageQuery, Query()]) -> TrainingPage:
    records, cursor = await services.store.trainings.page(None, query.limit, query.cursor)
    return TrainingPage(trainings=[Training.of(record) for record in records], next_cursor=cursor)


@router.get("/{id}", summary="The state and progress of a run", responses=problems(401, 403, 404))
async def one(id: str, services: CurrentServices, _: AdminKey) -> Training:
    return Training.of(await services.store.trainings.get(id))


async def _existing(id: str, services: CurrentServices, _: AdminKey) -> TrainingRecord:
    return await services.store.trainings.get(id)


@router.get(
    "/{id}/events",
    response_class=EventSourceResponse,
    dependencies=[CountedStream],
    summary="Follow a run by server-sent events: `progress`, then `finished`, `failed` or `cancelled`",
    responses=problems(401, 403, 404),
)
async def events(
    services: CurrentServices, training: Annotated[TrainingRecord, Depends(_existing)]
) -> AsyncIterator[ServerSentEvent]:
    records = services.store.trainings.watch(training.id)
    stream = sse.events(records, services.draining, running=RUNNING, progress=Training.of, finished=Training.of)
    async for event in stream:
        yield event


@router.post(
    "/{id}/cancel",
    status_code=202,
    summary="Cancel a run; its last checkpoint stays",
    responses=problems(401, 403, 404),
)
async def cancel(id: str, services: CurrentServices, _: AdminKey) -> Training:
    return Training.of(await services.store.trainings.cancel(id))


@router.post(
    "/{id}/resume",
    status_code=202,
    summary="Resume a failed or cancelled run from its last checkpoint; an unfinished one is left as it is",
    responses=problems(401, 403, 404, 409),
)
async def resume(id: str, services: CurrentServices, _: AdminKey) -> Training:
    return Training.of(await services.store.trainings.resume(id))
