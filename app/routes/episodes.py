"""Episodes: create one from a support set, follow it, download its classifier, correct its images, delete it."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app.http import sse
from app.http.auth import CountedStream, EpisodesKey, VisibleEpisode, owner_filter
from app.http.limits import Upload
from app.http.problems import INVALID_REQUEST, Problem
from app.images import edits
from app.images.edits import Corrected, Correction
from app.images.files import SupportSet
from app.images.forms import read_support
from app.images.judging import decode_support
from app.openapi import CORRECTION_EXAMPLE, CORRECTION_FORM, EPISODE_EXAMPLE, EPISODE_FORM, body, problems
from app.routes import choice
from app.routes.common import not_ready
from app.schemas.requests import CorrectionBody, EpisodeBody, PageQuery
from app.schemas.responses import Episode, EpisodePage, Progress, StoredImage, StoredSupport
from app.services import CurrentServices, Services
from app.store.errors import NotReady, UnknownModel
from app.store.records import EpisodeRecord, KeyRecord, ModelRecord
from lamanas_core.backbones.joined import joined
from lamanas_core.image_spec import UNLABELLED, ImageSpec
from lamanas_core.images import UInt8Array, to_png

router = APIRouter(tags=["episodes"])

RUNNING = frozenset({"queued", "adapting"})
ONNX = "application/octet-stream"
PNG = "image/png"
PICTURED = 5
Prefer = Annotated[
    str | None, Header(description="`wait=N`: wait up to N seconds, at most 60, for the episode to finish")
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=255,
        pattern=r"^[!-~]+$",
        description="repeating a request with the same key returns the episode or run that it created",
    ),
]
READY = "Ready within the time that `Prefer: wait=N` allows"
LOCATION = {"Location": {"schema": {"type": "string"}, "description": "URL of the episode, relative to the request's"}}


@router.post(
    "/episodes",
    status_code=202,
    summary="Adapt to labelled images",
    responses={
        201: {
            "model": Episode,
            "description": READY,
            "headers": LOCATION,
        },
        202: {"description": "Accepted: the episode is stored and will be adapted", "headers": LOCATION},
        **problems(400, 401, 403, 410, 415, 422),
    },
    openapi_extra=body(EpisodeBody, EPISODE_EXAMPLE, EPISODE_FORM),
)
async def create(
    request: Request,
    response: Response,
    services: CurrentServices,
    key: EpisodesKey,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> Episode:
    upload: Upload = request.state.upload
    support = read_support(request, services.settings)
    record, created = await _store(services, key, upload, await support, idempotency_key)
    upload.let_go()
    location = f"episodes/{record.id}"
    return await respond(services, response, record, location, created=created, prefer=prefer)


async def respond(
    services: Services, response: Response, record: EpisodeRecord, location: str, *, created: bool, prefer: str | None
) -> Episode:
    """The response for a created episode: at once, or when it has finished if ``prefer`` asks to wait.

    ``location``: its URL relative to the request's, which a proxy may have changed.
    """
    seconds = sse.preferred_wait(prefer)
    if seconds:
        record = await sse.last_within(services.store.episodes.watch(record.id), seconds, services.draining) or record
        response.headers["Preference-Applied"] = f"wait={seconds}"
    if not created:
        response.headers["Idempotency-Replayed"] = "true"
    response.headers["Location"] = location
    if seconds and record.state == "ready":
        response.status_code = 201
    elif record.state in RUNNING:
        response.headers["Retry-After"] = "1"
    return Episode.of(record)


async def _store(
    services: Services, key: KeyRecord, upload: Upload, support: SupportSet, idempotency_key: str | None
) -> tuple[EpisodeRecord, bool]:
    models, asked = services.store.models, support.options.model
    candidates = await choice.candidates(models, asked)
    specs = {kind: model.image for kind, model in candidates.items()}
    files = support.sent.files
    upload.hold(len(files) * max(spec.bytes for spec in specs.values()))
    decoded = await decode_support(services.decoder, key.id, files, support.labels, specs)
    model = candidates[decoded.kind]
    try:
        return await services.store.episodes.create(
            owner=key.tenant,
            name=support.options.name,
            classes=list(support.shots),
            shots=list(support.shots.values()),
            support=decoded.images,
            labels=support.labels,
            notes=support.sent.notes,
            steps=checked_steps(support.options.steps, model),
            seed=support.options.seed,
            model_version=model.version,
            model_kind=model.kind,
            model_reason=choice.reason(asked, candidates, decoded.judgement),
            model_warning=await choice.warning(models, model, decoded.judgement),
            idempotency_key=idempotency_key,
            request_digest=await asyncio.to_thread(support.digest),
        )
    except UnknownModel:
        raise choice.missing(asked) from None


def checked_steps(requested: int | None, model: ModelRecord) -> int:
    """The number of steps, the model's default for None. Raises Problem if the model does not allow as many."""
    config = model.card["config"]
    if requested is not None and requested > config["max_steps"]:
        text = f"steps: {requested} is too many, model {model.version} allows at most {config['max_steps']}"
        raise Problem(INVALID_REQUEST, text, field="steps")
    return int(config["steps"]) if requested is None else requested


@router.get("/episodes", summary="List episodes, newest first", responses=problems(401, 403, 422))
async def page(services: CurrentServices, key: EpisodesKey, query: Annotated[PageQuery, Query()]) -> EpisodePage:
    records, cursor = await services.store.episodes.page(owner_filter(key), query.limit, query.cursor)
    return EpisodePage(episodes=[Episode.of(record) for record in records], next_cursor=cursor)


@router.get(
    "/episodes/{id}", summary="The state, progress and result of an episode", responses=problems(401, 403, 404, 410)
)
async def one(episode: VisibleEpisode, response: Response) -> Episode:
    if episode.state in RUNNING:
        response.headers["Retry-After"] = "1"
    return Episode.of(episode)


@router.get(
    "/episodes/{id}/events",
    response_class=EventSourceResponse,
    dependencies=[CountedStream],
    summary="Follow an episode by server-sent events: `progress`, then `ready` or `failed`",
    responses=problems(401, 403, 404, 410),
)
async def events(services: CurrentServices, episode: VisibleEpisode) -> AsyncIterator[ServerSentEvent]:
    records = services.store.episodes.watch(episode.id)
    stream = sse.events(records, services.draining, running=RUNNING, progress=Progress.of, finished=Episode.of)
    async for event in stream:
        yield event


@router.get(
    "/episodes/{id}/model.onnx",
    response_class=Response,
    summary="Download the adapted classifier",
    responses={
        200: {"content": {ONNX: {"schema": {"type": "string", "format": "binary"}}}, "description": "An ONNX model"},
        **problems(401, 403, 404, 409, 410),
    },
)
async def artifact(services: CurrentServices, episode: VisibleEpisode) -> Response:
    try:
        data = await services.store.episodes.artifact(episode.id)
    except NotReady:
        raise not_ready(await services.store.episodes.get(episode.id)) from None
    whole = await services.store.backbones.provided_for(lambda: asyncio.to_thread(joined, data))
    disposition = f'attachment; filename="{episode.id}.onnx"'
    return Response(whole, media_type=ONNX, headers={"Content-Disposition": disposition})


@router.delete(
    "/episodes/{id}",
    status_code=204,
    response_class=Response,  # an empty body has no content type
    summary="Delete an episode, its images and its classifier",
    responses=problems(401, 403, 404, 410),
)
async def delete(services: CurrentServices, episode: VisibleEpisode) -> None:
    await services.store.episodes.delete(episode.id)
    services.classifiers.forget(episode.id)


@router.get(
    "/episodes/{id}/support", summary="The support images of an episode", responses=problems(401, 403, 404, 410)
)
async def stored(request: Request, services: CurrentServices, episode: VisibleEpisode) -> StoredSupport:
    images, labels, spec = await _support(request, services, episode)
    names = [None if label == UNLABELLED else episode.classes[label] for label in labels]
    return await asyncio.to_thread(_stored_support, images, names, spec)


def _stored_support(images: UInt8Array, labels: list[str | None], spec: ImageSpec) -> StoredSupport:
    files = [base64.b64encode(to_png(image, spec)).decode() for image in images]
    return StoredSupport(
        images=[StoredImage(label=label, image=file) for label, file in zip(labels, files, strict=True)]
    )


@router.get(
    "/episodes/{id}/thumbnail.png",
    response_class=Response,
    summary=f"A picture of an episode: an image of each of its first {PICTURED} classes, side by side",
    responses={
        200: {"content": {PNG: {"schema": {"type": "string", "format": "binary"}}}, "description": "A PNG file"},
        **problems(401, 403, 404, 410),
    },
)
async def thumbnail(request: Request, services: CurrentServices, episode: VisibleEpisode) -> Response:
    images, labels, spec = await _support(request, services, episode)
    rows = [labels.index(label) for label in range(min(PICTURED, len(episode.classes)))]
    return Response(to_png(np.concatenate(images[rows], axis=-1), spec), media_type=PNG)


async def _support(
    request: Request, services: Services, episode: EpisodeRecord
) -> tuple[UInt8Array, list[int], ImageSpec]:
    """The images, which count until the response is sent, the label number of each, and what the images are like.
    Raises Problem if there is no room for them."""
    spec = (await services.store.models.get(episode.model_version)).image
    upload: Upload = request.state.upload
    upload.hold((sum(episode.shots) + episode.unlabelled) * spec.bytes)
    return *await services.store.episodes.support(episode.id), spec


@router.post(
    "/episodes/{id}/support",
    status_code=202,
    summary="Correct an episode's images and adapt again, as a new episode",
    responses={
        201: {
            "model": Episode,
            "description": READY,
            "headers": LOCATION,
        },
        202: {"description": "Accepted: the episode is stored and will be adapted", "headers": LOCATION},
        **problems(400, 401, 403, 404, 409, 410, 415, 422),
    },
    openapi_extra=body(CorrectionBody, CORRECTION_EXAMPLE, CORRECTION_FORM),
)
async def correct(
    request: Request,
    response: Response,
    services: CurrentServices,
    key: EpisodesKey,
    episode: VisibleEpisode,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> Episode:
    """The parent episode is kept. The new one uses its model version, since its stored images are prepared for it."""
    upload: Upload = request.state.upload
    correction = edits.read(request, services.settings)
    record, created = await _store_corrected(services, key, upload, episode, await correction, idempotency_key)
    upload.let_go()
    return await respond(services, response, record, f"../{record.id}", created=created, prefer=prefer)


async def _store_corrected(
    services: Services,
    key: KeyRecord,
    upload: Upload,
    parent: EpisodeRecord,
    correction: Correction,
    idempotency_key: str | None,
) -> tuple[EpisodeRecord, bool]:
    if parent.state in RUNNING:
        raise not_ready(parent)
    model = await services.store.models.get(parent.model_version)
    options = correction.options
    steps = parent.steps if options.steps is None else checked_steps(options.steps, model)
    labels = await services.store.episodes.labels(parent.id)
    support = edits.corrected(correction, parent.classes, labels, services.settings)
    upload.hold((len(labels) + len(correction.added.files)) * model.image.bytes)
    images, _ = await services.store.episodes.support(parent.id)
    return await services.store.episodes.create(
        owner=key.tenant,
        name=parent.name if options.name is None else options.name,
        classes=list(support.shots),
        shots=list(support.shots.values()),
        support=await _images(services, key, images, support, correction, model.image),
        labels=support.labels,
        notes=correction.added.notes,
        steps=steps,
        seed=parent.seed if options.seed is None else options.seed,
        model_version=parent.model_version,
        model_kind=model.kind,
        model_reason="it is that of the episode that this one corrects",
        model_warning=parent.model_warning,
        parent=parent.id,
        idempotency_key=idempotency_key,
        request_digest=await asyncio.to_thread(correction.digest, parent.id),
    )


async def _images(
    services: Services,
    key: KeyRecord,
    before: UInt8Array,
    support: Corrected,
    correction: Correction,
    spec: ImageSpec,
) -> UInt8Array:
    if added := correction.added.files:
        before = np.concatenate([before, await services.decoder.arrays(key.id, added, spec)])
    return before[support.rows]
