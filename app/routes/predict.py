"""Predictions with the classifiers of finished episodes."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from app.http import sse
from app.http.auth import PredictKey, owner_filter, predict_key, visible_episode
from app.http.direct import DirectRoute, arguments_from, read_query
from app.images.files import ImageFile
from app.images.forms import of_base64, read_queries
from app.inference.answers import etag_of, predictions
from app.inference.cache import OpenClassifier
from app.openapi import PREDICT_EXAMPLE, PREDICT_FORM, body, problems
from app.routes.common import not_ready
from app.schemas.requests import PredictBody, PredictQuery, WaitQuery
from app.schemas.responses import Predictions
from app.services import CurrentServices, Services, current_services
from app.store.errors import Gone, NotReady
from app.store.records import KeyRecord

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
    loaded = await _ready(services, key, query.episode_id, query.wait, request.state.episode_state)
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
    episode_id, files = await read_queries(request, services.settings)
    loaded = await _ready(services, key, episode_id, query.wait, await services.store.episodes.state(episode_id))
    request.state.upload.hold(len(files) * loaded.classifier.image.bytes)
    return Response(await _predictions(services, key, episode_id, loaded, files), media_type=JSON)


async def _predictions(
    services: Services, key: KeyRecord, id: str, loaded: OpenClassifier, files: list[ImageFile]
) -> str:
    return await predictions(services.decoder, services.classifiers, services.metrics, key.id, id, loaded, files)


async def _ready(services: Services, key: KeyRecord, id: str, wait: int, state: str | None) -> OpenClassifier:
    """The episode's classifier. Raises Problem, Gone or NotFound.

    ``state``: the episode's state, looked up during this request, since an episode may expire while its classifier is
    still open. If the classifier is open, the record is not read; and it answers while it is being made again, since it
    was dropped from the object store: adaptation gives the same one.
    """
    if state in ("ready", "queued", "adapting"):
        opened = services.classifiers.opened(id)
        if opened is not None and owner_filter(key) in (None, opened.owner):
            return opened
    try:
        episode = await visible_episode(id, services, key)
        if episode.state == "ready":
            try:
                return await services.classifiers.loaded(id, episode.owner)
            except NotReady:  # dropped to make room; it is being adapted again
                episode = await services.store.episodes.get(id)
        if wait and episode.state in ("queued", "adapting"):
            episode = await sse.last_within(services.store.episodes.watch(id), wait, services.draining) or episode
        if episode.state != "ready":
            raise not_ready(episode)
        return await services.classifiers.loaded(id, episode.owner)
    except NotReady:
        raise not_ready(await services.store.episodes.get(id)) from None
    except Gone:
        services.classifiers.forget(id)
        raise


def _matches(if_none_match: str | None, etag: str) -> bool:
    sent = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in sent or "*" in sent
