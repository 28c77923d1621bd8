"""Predictions, from the artifacts of finished episodes."""

import hashlib
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from app import waiting
from app.auth import PredictKey, visible_episode
from app.decoder import ImageFile
from app.openapi import PREDICT_EXAMPLE, PREDICT_FORM, body, problems
from app.predictor import Loaded
from app.readiness import not_ready
from app.schemas import PredictBody, Prediction, Predictions, PredictQuery, WaitQuery
from app.services import Held, Services
from app.store.errors import Gone, NotReady
from app.store.records import EpisodeRecord, KeyRecord
from app.uploads import of_base64, read_queries
from lamanas_core.images import UInt8Array

router = APIRouter(tags=["predict"])
ETAG = {"ETag": {"schema": {"type": "string"}, "description": "changes with the episode, its classifier or the images"}}


@router.get(
    "/predict",
    response_model=Predictions,
    summary="Classify small images given in the URL",
    responses={
        200: {"headers": ETAG, "description": "The predictions"},
        304: {"description": "The same as the answer whose ETag came in If-None-Match"},
        **problems(401, 403, 404, 409, 410, 422),
    },
)
async def in_url(
    held: Held,
    key: PredictKey,
    query: Annotated[PredictQuery, Query()],
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    files = of_base64(query.image, "image", held.settings)
    episode, loaded = await _ready(held, key, query.episode_id, query.wait)
    etag = _etag(episode.id, loaded, files)
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Authorization, Cookie"}
    if _matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    images = await held.decoder.arrays(files, loaded.classifier.image)
    answer = await held.predictor.run(lambda: _predict(held, episode, loaded, images))
    return Response(answer.model_dump_json(), media_type="application/json", headers=headers)


@router.post(
    "/predict",
    response_model=Predictions,
    summary="Classify images",
    responses=problems(400, 401, 403, 404, 409, 410, 415, 422),
    openapi_extra=body(PredictBody, PREDICT_EXAMPLE, PREDICT_FORM),
)
async def in_body(request: Request, held: Held, key: PredictKey, query: Annotated[WaitQuery, Query()]) -> Response:
    episode_id, files = await read_queries(request, held.settings)
    episode, loaded = await _ready(held, key, episode_id, query.wait)
    images = await held.decoder.arrays(files, loaded.classifier.image)
    answer = await held.predictor.run(lambda: _predict(held, episode, loaded, images))
    return Response(answer.model_dump_json(), media_type="application/json")


async def _ready(held: Services, key: KeyRecord, id: str, wait: int) -> tuple[EpisodeRecord, Loaded]:
    """The episode and its classifier. Asks the store each time, for an episode may end while its classifier is open."""
    try:
        episode = await visible_episode(id, held, key)
        if episode.state == "ready":
            try:
                return episode, await held.predictor.loaded(id)
            except NotReady:  # dropped to save memory; it is being adapted again
                episode = await held.store.get_episode(id)
        if wait and episode.state in ("queued", "adapting"):
            episode = await waiting.last_within(held.store.watch_episode(id), wait, held.draining) or episode
        if episode.state != "ready":
            raise not_ready(episode)
        return episode, await held.predictor.loaded(id)
    except NotReady:
        raise not_ready(await held.store.get_episode(id)) from None
    except Gone:
        held.predictor.forget(id)
        raise


def _predict(held: Services, episode: EpisodeRecord, loaded: Loaded, images: UInt8Array) -> Predictions:
    classes = loaded.classifier.classes
    with held.metrics.prediction_seconds.time():
        rows, novelty = loaded.classifier.answers(images)
    held.metrics.predictions.inc(len(images))
    predictions = []
    for number, row in enumerate(rows.tolist()):
        best = max(range(len(classes)), key=row.__getitem__)
        probabilities = dict(zip(classes, row, strict=True))
        predictions.append(
            Prediction(
                label=classes[best],
                probability=row[best],
                probabilities=probabilities,
                novelty=None if novelty is None else float(novelty[number]),
            )
        )
    return Predictions(episode_id=episode.id, model_version=loaded.classifier.model_version, predictions=predictions)


def _etag(id: str, loaded: Loaded, files: list[ImageFile]) -> str:
    total = hashlib.sha256(f"{id} {loaded.digest}".encode())
    for file in files:
        total.update(len(file.data).to_bytes(8, "big"))
        total.update(file.data)
    return f'"{total.hexdigest()[:32]}"'


def _matches(if_none_match: str | None, etag: str) -> bool:
    sent = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in sent or "*" in sent
