"""The images of an episode: seen again, and corrected in a new episode that names the old one."""

import asyncio
import base64

import numpy as np
from fastapi import APIRouter, Request, Response

from app.http.auth import EpisodesKey, VisibleEpisode
from app.images import edits
from app.images.edits import Corrected, Correction
from app.openapi import CORRECTION_EXAMPLE, CORRECTION_FORM, body, problems
from app.routes.common import not_ready
from app.routes.episodes import LOCATION, RUNNING, IdempotencyKey, Prefer, checked_steps, told
from app.schemas import CorrectionBody, Episode, StoredImage, StoredSupport
from app.services import Services, ServicesDep
from app.store.records import EpisodeRecord, KeyRecord, ModelRecord
from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import UInt8Array, to_png

router = APIRouter(prefix="/episodes/{id}/support", tags=["episodes"])


@router.get("", summary="The images that an episode was made of", responses=problems(401, 403, 404, 410))
async def stored(services: ServicesDep, episode: VisibleEpisode) -> StoredSupport:
    images, labels = await services.store.get_support(episode.id)
    spec = _spec(await services.store.get_model(episode.model_version))
    return await asyncio.to_thread(_shown, images, [episode.classes[label] for label in labels], spec)


def _shown(images: UInt8Array, labels: list[str], spec: ImageSpec) -> StoredSupport:
    files = [base64.b64encode(to_png(image, spec)).decode() for image in images]
    return StoredSupport(
        images=[StoredImage(label=label, image=file) for label, file in zip(labels, files, strict=True)]
    )


@router.post(
    "",
    status_code=202,
    summary="Correct an episode's images and adapt again: a new episode, the old one stays",
    responses={
        201: {"model": Episode, "description": "Ready within the time of `Prefer: wait=N`", "headers": LOCATION},
        202: {"description": "Accepted: it is stored and will be adapted", "headers": LOCATION},
        **problems(400, 401, 403, 404, 409, 410, 415, 422),
    },
    openapi_extra=body(CorrectionBody, CORRECTION_EXAMPLE, CORRECTION_FORM),
)
async def correct(
    request: Request,
    response: Response,
    services: ServicesDep,
    key: EpisodesKey,
    episode: VisibleEpisode,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> Episode:
    """Adapts from the model version of the parent, whose stored images are prepared for that one."""
    correction = await edits.read(request, services.settings)
    if episode.state in RUNNING:
        raise not_ready(episode)
    record, created = await _store(services, key, episode, correction, idempotency_key)
    return await told(services, response, record, created=created, prefer=prefer)


async def _store(
    services: Services, key: KeyRecord, parent: EpisodeRecord, correction: Correction, idempotency_key: str | None
) -> tuple[EpisodeRecord, bool]:
    model = await services.store.get_model(parent.model_version)
    options = correction.options
    steps = parent.steps if options.steps is None else checked_steps(options.steps, model)
    images, labels = await services.store.get_support(parent.id)
    support = edits.corrected(correction, parent.classes, labels, services.settings)
    return await services.store.create_episode(
        owner=key.tenant,
        name=parent.name if options.name is None else options.name,
        classes=list(support.shots),
        shots=list(support.shots.values()),
        support=await _images(services, images, support, correction, _spec(model)),
        labels=support.labels,
        steps=steps,
        seed=parent.seed if options.seed is None else options.seed,
        model_version=parent.model_version,
        parent=parent.id,
        idempotency_key=idempotency_key,
        request_digest=correction.digest(parent.id),
    )


async def _images(
    services: Services, before: UInt8Array, support: Corrected, correction: Correction, spec: ImageSpec
) -> UInt8Array:
    kept = before[list(support.kept)]
    if not correction.added:
        return kept
    return np.concatenate([kept, await services.decoder.arrays([file.file for file in correction.added], spec)])


def _spec(model: ModelRecord) -> ImageSpec:
    return ImageSpec(**model.card["config"]["image"])
