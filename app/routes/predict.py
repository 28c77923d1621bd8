"""Predictions, from the artifacts of finished episodes."""

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from app.http import sse
from app.http.auth import PredictKey, owner_filter, predict_key, visible_episode
from app.http.direct import DirectRoute, given_by, read_query
from app.images import fast_png
from app.images.files import ImageFile
from app.images.forms import of_base64, read_queries
from app.inference.cache import Loaded
from app.openapi import PREDICT_EXAMPLE, PREDICT_FORM, body, problems
from app.routes.common import not_ready
from app.schemas import PredictBody, Prediction, Predictions, PredictQuery, WaitQuery
from app.services import Held, Services, services
from app.store.errors import Gone, NotReady
from app.store.records import KeyRecord
from lamanas_core.images import UInt8Array

JSON = "application/json"
# What takes no longer than this is classified in the event loop: to hand it to a thread and back costs more, and a
# process has little else to do while it computes.
AT_ONCE_S = 0.002
router = APIRouter(tags=["predict"], route_class=DirectRoute)
ETAG = {"ETag": {"schema": {"type": "string"}, "description": "changes with the episode, its classifier or the images"}}


async def _url_arguments(request: Request) -> dict[str, Any]:
    held = await services(request)
    key = await predict_key(request, held)  # first: who may not ask is told nothing else
    query = read_query(request, PredictQuery)
    sent = request.headers.get("if-none-match")
    return {"request": request, "held": held, "key": key, "query": query, "if_none_match": sent}


async def _body_arguments(request: Request) -> dict[str, Any]:
    held = await services(request)
    key = await predict_key(request, held)
    return {"request": request, "held": held, "key": key, "query": read_query(request, WaitQuery)}


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
@given_by(_url_arguments)
async def in_url(
    request: Request,
    held: Held,
    key: PredictKey,
    query: Annotated[PredictQuery, Query()],
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    files = of_base64(query.image, "image", held.settings)
    loaded = await _ready(held, key, query.episode_id, query.wait, request.state.episode_state)
    etag = _etag(query.episode_id, loaded, files)
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Authorization, Cookie"}
    if _matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return Response(await _answer(held, query.episode_id, loaded, files), media_type=JSON, headers=headers)


@router.post(
    "/predict",
    response_model=Predictions,
    summary="Classify images",
    responses=problems(400, 401, 403, 404, 409, 410, 415, 422),
    openapi_extra=body(PredictBody, PREDICT_EXAMPLE, PREDICT_FORM),
)
@given_by(_body_arguments)
async def in_body(request: Request, held: Held, key: PredictKey, query: Annotated[WaitQuery, Query()]) -> Response:
    episode_id, files = await read_queries(request, held.settings)
    loaded = await _ready(held, key, episode_id, query.wait, await held.store.episodes.state(episode_id))
    return Response(await _answer(held, episode_id, loaded, files), media_type=JSON)


async def _ready(held: Services, key: KeyRecord, id: str, wait: int, state: str | None) -> Loaded:
    """The episode's classifier. ``state``: of the episode, asked for during this request, for it may end while its
    classifier is open; where that and what is open do not settle it, everything is read and told."""
    if state == "ready":
        opened = held.predictor.opened(id)
        if opened is not None and owner_filter(key) in (None, opened.owner):
            return opened
    try:
        episode = await visible_episode(id, held, key)
        if episode.state == "ready":
            try:
                return await held.predictor.loaded(id, episode.owner)
            except NotReady:  # dropped to save memory; it is being adapted again
                episode = await held.store.episodes.get(id)
        if wait and episode.state in ("queued", "adapting"):
            episode = await sse.last_within(held.store.episodes.watch(id), wait, held.draining) or episode
        if episode.state != "ready":
            raise not_ready(episode)
        return await held.predictor.loaded(id, episode.owner)
    except NotReady:
        raise not_ready(await held.store.episodes.get(id)) from None
    except Gone:
        held.predictor.forget(id)
        raise


async def _answer(held: Services, id: str, loaded: Loaded, files: list[ImageFile]) -> str:
    """The body of the answer, in JSON."""
    if len(files) * loaded.seconds <= AT_ONCE_S:
        images = fast_png.decoded(files, loaded.classifier.image)
        if images is not None:
            return _predict(held, id, loaded, images).model_dump_json()
    return await held.decoder.then(
        files, loaded.classifier.image, lambda images: _predict(held, id, loaded, images).model_dump_json()
    )


def _predict(held: Services, id: str, loaded: Loaded, images: UInt8Array) -> Predictions:
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
    return Predictions(episode_id=id, model_version=loaded.classifier.model_version, predictions=predictions)


def _etag(id: str, loaded: Loaded, files: list[ImageFile]) -> str:
    total = hashlib.sha256(f"{id} {loaded.digest}".encode())
    for file in files:
        total.update(len(file.data).to_bytes(8, "big"))
        total.update(file.data)
    return f'"{total.hexdigest()[:32]}"'


def _matches(if_none_match: str | None, etag: str) -> bool:
    sent = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in sent or "*" in sent
