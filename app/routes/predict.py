"""Predictions, from the classifiers of finished episodes."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from app.http import sse
from app.http.auth import PredictKey, owner_filter, predict_key, visible_episode
from app.http.direct import DirectRoute, given_by, read_query
from app.images.forms import of_base64, read_queries
from app.inference.answers import etag, matches
from app.inference.cache import Loaded
from app.openapi import PREDICT_EXAMPLE, PREDICT_FORM, body, problems
from app.routes.common import not_ready
from app.schemas import PredictBody, Predictions, PredictQuery, WaitQuery
from app.services import Services, ServicesDep, get_services
from app.store.errors import Gone, NotReady
from app.store.records import KeyRecord

JSON = "application/json"
router = APIRouter(tags=["predict"], route_class=DirectRoute)
ETAG = {"ETag": {"schema": {"type": "string"}, "description": "changes with the episode, its classifier or the images"}}


async def _url_arguments(request: Request) -> dict[str, Any]:
    services = await get_services(request)
    key = await predict_key(request, services)  # first: a client without the right learns nothing else
    query = read_query(request, PredictQuery)
    sent = request.headers.get("if-none-match")
    return {"request": request, "services": services, "key": key, "query": query, "if_none_match": sent}


async def _body_arguments(request: Request) -> dict[str, Any]:
    services = await get_services(request)
    key = await predict_key(request, services)
    return {"request": request, "services": services, "key": key, "query": read_query(request, WaitQuery)}


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
    services: ServicesDep,
    key: PredictKey,
    query: Annotated[PredictQuery, Query()],
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    files = of_base64(query.image, "image", services.settings)
    loaded = await _ready(services, key, query.episode_id, query.wait, request.state.episode_state)
    tag = etag(query.episode_id, loaded, files)
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Authorization, Cookie"}
    if matches(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    answer = await services.answers.body(query.episode_id, loaded, files)
    return Response(answer, media_type=JSON, headers=headers)


@router.post(
    "/predict",
    response_model=Predictions,
    summary="Classify images",
    responses=problems(400, 401, 403, 404, 409, 410, 415, 422),
    openapi_extra=body(PredictBody, PREDICT_EXAMPLE, PREDICT_FORM),
)
@given_by(_body_arguments)
async def in_body(
    request: Request, services: ServicesDep, key: PredictKey, query: Annotated[WaitQuery, Query()]
) -> Response:
    episode_id, files = await read_queries(request, services.settings)
    loaded = await _ready(services, key, episode_id, query.wait, await services.store.episode_state(episode_id))
    return Response(await services.answers.body(episode_id, loaded, files), media_type=JSON)


async def _ready(services: Services, key: KeyRecord, id: str, wait: int, state: str | None) -> Loaded:
    """The episode's classifier. Raises Problem and Gone.

    ``state`` is the episode's, as read during this request, since an episode may end while its classifier is open.
    Unless that and the open classifier settle the matter, the whole record is read."""
    if state == "ready":
        opened = services.predictor.opened(id)
        if opened is not None and owner_filter(key) in (None, opened.owner):
            return opened
    try:
        episode = await visible_episode(id, services, key)
        if episode.state == "ready":
            try:
                return await services.predictor.loaded(id, episode.owner)
            except NotReady:  # dropped to save memory; it is being adapted again
                episode = await services.store.get_episode(id)
        if wait and episode.state in ("queued", "adapting"):
            episode = await sse.last_within(services.store.watch_episode(id), wait, services.draining) or episode
        if episode.state != "ready":
            raise not_ready(episode)
        return await services.predictor.loaded(id, episode.owner)
    except NotReady:
        raise not_ready(await services.store.get_episode(id)) from None
    except Gone:
        services.predictor.forget(id)
        raise
