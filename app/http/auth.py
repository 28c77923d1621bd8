"""Authentication and authorization: tokens with scopes, sent in a header or in a browser's session cookie."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param

from app.http.problems import INVALID_TOKEN, MISSING_HEADER, MISSING_SCOPE, MISSING_TOKEN, RATE_LIMITED, Problem
from app.services import CurrentServices, Services
from app.store.errors import UNAVAILABLE, Gone, NotFound
from app.store.records import EpisodeRecord, KeyRecord, Scope

bearer = HTTPBearer(
    auto_error=False,
    description="A key with scopes: `episodes` to create, read and delete episodes, `predict` to classify images, "
    "`metrics` to read metrics, `admin` for training, models and everything else. `lamanas token` prints the first "
    "admin key; `lamanas keys` creates and revokes other keys.",
)


SESSION_COOKIE = "lamanas_session"
session_cookie = APIKeyCookie(
    name=SESSION_COOKIE,
    auto_error=False,
    description="Set by `POST /session`, for browsers: their event streams and downloads cannot send an "
    "`Authorization` header. A request that changes something must also send `X-Requested-With: lamanas`.",
)

# Another site can make a browser send these with the cookie, but they change nothing.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
REQUESTED_WITH = "lamanas"

Bearer = Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]
SessionCookie = Annotated[str | None, Security(session_cookie)]


def _token(request: Request, credentials: HTTPAuthorizationCredentials | None, cookie: str | None) -> str:
    """The token that was sent; a header takes precedence over the cookie. Raises Problem."""
    if credentials is not None:
        return credentials.credentials
    if not cookie or "authorization" in request.headers:
        challenge = {"WWW-Authenticate": 'Bearer realm="lamanas"'}
        raise Problem(MISSING_TOKEN, "send Authorization: Bearer <token>", headers=challenge)
    # Another site's page can make a browser send a form with the cookie, but cannot add this header.
    if request.method not in SAFE_METHODS and request.headers.get("x-requested-with") != REQUESTED_WITH:
        text = f"a request that uses the session cookie and changes something needs X-Requested-With: {REQUESTED_WITH}"
        raise Problem(MISSING_HEADER, text, field="X-Requested-With")
    return cookie


async def _key(request: Request, services: CurrentServices, credentials: Bearer, cookie: SessionCookie) -> KeyRecord:
    return await _authenticate(request, services, _token(request, credentials, cookie))


async def predict_key(request: Request, services: Services) -> KeyRecord:
    """The same key as the dependency ``PredictKey``, without FastAPI. Raises Problem."""
    scheme, sent = get_authorization_scheme_param(request.headers.get("authorization"))
    is_bearer = bool(sent) and scheme.lower() == "bearer"
    credentials = HTTPAuthorizationCredentials(scheme=scheme, credentials=sent) if is_bearer else None
    cookie = None if is_bearer else request.cookies.get(SESSION_COOKIE)
    return _require_scope(await _authenticate(request, services, _token(request, credentials, cookie)), "predict")


async def _authenticate(request: Request, services: Services, token: str) -> KeyRecord:
    # A prediction's URL contains its episode: key and episode are looked up in one round trip.
    episode = request.query_params.get("episode_id", "")
    key, state = await services.store.api_keys.find_with_state(token, episode)
    if key is None:
        challenge = {"WWW-Authenticate": 'Bearer realm="lamanas", error="invalid_token"'}
        raise Problem(INVALID_TOKEN, "the bearer token is unknown or was revoked", headers=challenge)
    request.state.key = key.id
    request.state.episode_state = state
    await _count_request(services, key)
    return key


async def _count_request(services: Services, key: KeyRecord) -> None:
    """Counts the request against the key's rate. Raises Problem."""
    rate = services.settings.rate
    if rate is None:
        return
    seconds = await services.store.api_keys.take(key.id, rate)
    if seconds:
        text = f"a key may send {services.settings.rate_limit}; the next request is accepted in {seconds} s"
        raise Problem(RATE_LIMITED, text, headers={"Retry-After": str(seconds)})


AnyKey = Annotated[KeyRecord, Depends(_key)]


def _key_with_scope(scope: Scope) -> Callable[[KeyRecord], Awaitable[KeyRecord]]:
    async def check(key: AnyKey) -> KeyRecord:
        return _require_scope(key, scope)

    return check


def _require_scope(key: KeyRecord, scope: Scope) -> KeyRecord:
    """The same key, if it has this scope or ``admin``. Raises Problem."""
    if not key.scopes & {scope, "admin"}:
        challenge = {"WWW-Authenticate": f'Bearer realm="lamanas", error="insufficient_scope", scope="{scope}"'}
        raise Problem(MISSING_SCOPE, f"this request needs a token with the scope {scope!r}", headers=challenge)
    return key


EpisodesKey = Annotated[KeyRecord, Depends(_key_with_scope("episodes"))]
PredictKey = Annotated[KeyRecord, Depends(_key_with_scope("predict"))]
AdminKey = Annotated[KeyRecord, Depends(_key_with_scope("admin"))]


# A proxy adds at least one of these to what it passes on.
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "via")


async def metrics_allowed(
    request: Request, services: CurrentServices, credentials: Bearer, cookie: SessionCookie
) -> None:
    """Without a key for metrics, only a client on this machine may read them, unless a setting allows it. Raises
    Problem."""
    settings = services.settings
    local = settings.loopback and not any(name in request.headers for name in FORWARDED)
    if not local and not settings.open_metrics:
        _require_scope(await _key(request, services, credentials, cookie), "metrics")


async def metrics_allowed_by_redis(
    request: Request, services: CurrentServices, credentials: Bearer, cookie: SessionCookie
) -> bool:
    """As ``metrics_allowed``; False where that cannot be found out, as a key is needed and Redis does not respond."""
    try:
        await metrics_allowed(request, services, credentials, cookie)
    except UNAVAILABLE:
        return False
    return True


async def _counted_stream(services: CurrentServices, key: AnyKey) -> AsyncIterator[None]:
    with services.streams.one_more(key.id), services.metrics.open_streams.track_inprogress():
        yield


CountedStream = Depends(_counted_stream)


def owner_filter(key: KeyRecord) -> str | None:
    """The tenant whose episodes this key may see; None for an admin key, which may see all."""
    return None if "admin" in key.scopes else key.tenant


async def visible_episode(id: str, services: Services, key: KeyRecord) -> EpisodeRecord:
    """The episode, if this key may see it. Raises Gone, and NotFound for an unknown one.

    For an episode of another tenant, deleted or not, the error is the same as for an unknown one.
    """
    try:
        episode = await services.store.episodes.get(id)
        owner, gone = episode.owner, None
    except Gone as error:
        owner, gone = error.owner, error
    if owner_filter(key) not in (None, owner):
        raise NotFound(f"there is no episode {id}")
    if gone is not None:
        raise gone
    return episode


async def _visible_episode(id: str, services: CurrentServices, key: EpisodesKey) -> EpisodeRecord:
    return await visible_episode(id, services, key)


VisibleEpisode = Annotated[EpisodeRecord, Depends(_visible_episode)]
