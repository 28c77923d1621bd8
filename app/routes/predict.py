"""Predictions with the classifiers of finished episodes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from app.http import sse
from app.http.auth import PredictKey, owner_filter, predict_key, visible_episode
from app.http.direct import DirectRoute, arguments_from, read_query
from app.http.limits import Upload
from app.images.files import ImageFile
from app.images.forms import of_base64, read_queries
from app.inference.answers import etag_of, predictions, predictions_of
from app.inference.cache import OpenClassifier
from app.openapi import PREDICT_EXAMPLE, PREDICT_FORM, body, problems
from app.routes.common import not_ready
from app.routes.episodes import RUNNING
from app.schemas.requests import PredictBody, PredictQuery, WaitQuery
from app.schemas.responses import Predictions
from app.services import CurrentServices, Services, current_services
from app.store.errors import Gone, NotReady
from app.store.records import EpisodeRecord, KeyRecord

JSON = "application/json"
router = APIRouter(tags=["predict"], route_class=DirectRoute)
ETAG = {
    "ETag": {"schema": {"type": "string"}, "description": "changes with the episode, the classifier and the images"}
}


async def _url_arguments(request: Request) -> dict[str, Any]:
    services = await current_services(request)
    key = await predict_key(request, services)  # first: without a valid key, no other error is reported
    query = read_query(request, PredictQuery)
    sent = request.headers.get("if-none-match")
    return {"request": request, "services": services, "key": key, "query": query, "if_none_match": sent}


async def _body_arguments(request: Request) -> dict[str, Any]:
    services = await current_services(request)
    key = await predict_key(request, services)
    return {"request": request, "services": services, "key": key, "query": read_query(request, WaitQuery)}


@router.get(
    "/predict",
    response_model=Predictions,
    summary="Classify small images sent in the URL",
    responses={
        200: {"headers": ETAG, "description": "The predictions"},
        304: {"description": "Unchanged since the response whose ETag was sent in If-None-Match"},
        **problems(401, 403, 404, 409, 410, 422),
    },
)
@arguments_from(_url_arguments)
async def in_url(
    request: Request,
    services: CurrentServices,
    key: PredictKey,
    query: Annotated[PredictQuery, Query()],
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    # In a query, a plus sign that is not escaped means a space.
    files = of_base64([text.replace(" ", "+") for text in query.image], "image", services.settings)
    found = await _found(services, key, query.episode_id, request.state.episode_state)
    loaded = await _opened(services, found, query.wait)
    etag = etag_of(query.episode_id, loaded, files)
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Authorization, Cookie"}
    if _matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return Response(
        await _predictions(services, key, query.episode_id, loaded, files), media_type=JSON, headers=headers
    )


@router.post(
    "/predict",
    response_model=Predictions,
    summary="Classify images",
    responses=problems(400, 401, 403, 404, 409, 410, 415, 422),
    openapi_extra=body(PredictBody, PREDICT_EXAMPLE, PREDICT_FORM),
)
@arguments_from(_body_arguments)
async def in_body(
    request: Request, services: CurrentServices, key: PredictKey, query: Annotated[WaitQuery, Query()]
) -> Response:
    upload: Upload = request.state.upload
    episode_id, files = await read_queries(request, services.settings)
    found = await _found(services, key, episode_id, await services.store.episodes.state(episode_id))
    if query.wait and isinstance(found, EpisodeRecord) and found.state in RUNNING:
        # Decoded now, so that the body is not kept while the response waits.
        spec = (await services.store.models.get(found.model_version)).image
        size = len(files) * spec.bytes
        upload.hold(size)
        images = await services.decoder.arrays(key.id, files, spec)
        del files
        upload.let_go(kept=size)
        loaded = await _opened(services, found, query.wait)
        answer = await predictions_of(services.classifiers, services.metrics, episode_id, loaded, images)
    else:
        loaded = await _opened(services, found, query.wait)
        upload.hold(len(files) * loaded.classifier.image.bytes)
        answer = await _predictions(services, key, episode_id, loaded, files)
    return Response(answer, media_type=JSON)


async def _predictions(
    services: Services, key: KeyRecord, id: str, loaded: OpenClassifier, files: list[ImageFile]
) -> str:
    return await predictions(services.decoder, services.classifiers, services.metrics, key.id, id, loaded, files)


async def _found(services: Services, key: KeyRecord, id: str, state: str | None) -> OpenClassifier | EpisodeRecord:
    """The episode's classifier; the episode, if it is not ready. Raises Gone or NotFound.

    ``state``: the episode's state, looked up during this request, since an episode may expire while its classifier is
    still open. If the classifier is open, the record is not read; and it answers while it is being made again, since it
    was dropped from the object store: adaptation gives the same one.
    """
    if state == "ready" or state in RUNNING:
        opened = services.classifiers.opened(id)
        if opened is not None and owner_filter(key) in (None, opened.owner):
            return opened
    with _forgotten_if_gone(services, id):
        episode = await visible_episode(id, services, key)
        if episode.state != "ready":
            return episode
        try:
            return await services.classifiers.loaded(id, episode.owner)
        except NotReady:  # dropped to make room; it is being adapted again
            return await services.store.episodes.get(id)


async def _opened(services: Services, found: OpenClassifier | EpisodeRecord, wait: int) -> OpenClassifier:
    """The classifier, that of the episode if it is ready within this many seconds. Raises Problem, Gone."""
    if isinstance(found, OpenClassifier):
        return found
    episode, id = found, found.id
    with _forgotten_if_gone(services, id):
        if wait and episode.state in RUNNING:
            episode = await sse.last_within(services.store.episodes.watch(id), wait, services.draining) or episode
        if episode.state != "ready":
            raise not_ready(episode)
        try:
            return await services.classifiers.loaded(id, episode.owner)
        except NotReady:
            raise not_ready(await services.store.episodes.get(id)) from None


@contextmanager
def _forgotten_if_gone(services: Services, id: str) -> Iterator[None]:
    try:
        yield
    except Gone:
        services.classifiers.forget(id)
        raise


def _matches(if_none_match: str | None, etag: str) -> bool:
    sent = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in sent or "*" in sent
