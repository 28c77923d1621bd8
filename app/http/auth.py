"""Who asks, and what they may: tokens with scopes, sent as a bearer token or kept by a browser in a cookie."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param

from app.http.problems import INVALID_TOKEN, MISSING_HEADER, MISSING_SCOPE, MISSING_TOKEN, RATE_LIMITED, Problem
from app.services import CurrentServices, Services
from app.store.errors import Gone, NotFound
from app.store.records import EpisodeRecord, KeyRecord, Scope

bearer = HTTPBearer(
    auto_error=False,
    description="A key with scopes: `episodes` to make, read and delete episodes, `predict` to predict with them, "
    "`admin` for training, models and everything else. `lamanas token` prints the first admin key; `lamanas keys` "
    "makes and revokes others.",
)


SESSION_COOKIE = "lamanas_session"
session_cookie = APIKeyCookie(
    name=SESSION_COOKIE,
    auto_error=False,
    description="What `POST /session` gives a browser, whose event streams and downloads cannot send a header of ours. "
    "A request that changes something then also carries `X-Requested-With: lamanas`.",
)

# Of these a browser sends the cookie along without asking anybody, and they change nothing.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
REQUESTED_WITH = "lamanas"

Bearer = Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]
SessionCookie = Annotated[str | None, Security(session_cookie)]


def _token(request: Request, credentials: HTTPAuthorizationCredentials | None, cookie: str | None) -> str:
    """The token that was sent; a header is there on purpose and counts before a cookie. Raises Problem."""
    if credentials is not None:
        return credentials.credentials
    if not cookie or "authorization" in request.headers:
        challenge = {"WWW-Authenticate": 'Bearer realm="lamanas"'}
        raise Problem(MISSING_TOKEN, "send Authorization: Bearer <token>", headers=challenge)
    # Another site's page can make a browser send a form with our cookie, but no header of its own choosing.
    if request.method not in SAFE_METHODS and request.headers.get("x-requested-with") != REQUESTED_WITH:
        text = f"a request that is signed in by cookie and changes something needs X-Requested-With: {REQUESTED_WITH}"
        raise Problem(MISSING_HEADER, text, field="X-Requested-With")
    return cookie


async def _key(request: Request, services: CurrentServices, credentials: Bearer, cookie: SessionCookie) -> KeyRecord:
    return await _found(request, services, _token(request, credentials, cookie))


async def predict_key(request: Request, services: Services) -> KeyRecord:
    """What the dependency ``PredictKey`` gives, found without FastAPI. Raises Problem."""
    scheme, sent = get_authorization_scheme_param(request.headers.get("authorization"))
    is_bearer = bool(sent) and scheme.lower() == "bearer"
    credentials = HTTPAuthorizationCredentials(scheme=scheme, credentials=sent) if is_bearer else None
    cookie = None if is_bearer else request.cookies.get(SESSION_COOKIE)
    return _with_scope(await _found(request, services, _token(request, credentials, cookie)), "predict")


async def _found(request: Request, services: Services, token: str) -> KeyRecord:
    # A prediction's URL names its episode: both are asked for in one round trip.
    episode = request.query_params.get("episode_id", "")
    key, state = await services.store.api_keys.find_with_state(token, episode)
    if key is None:
        challenge = {"WWW-Authenticate": 'Bearer realm="lamanas", error="invalid_token"'}
        raise Problem(INVALID_TOKEN, "the bearer token is unknown or was revoked", headers=challenge)
    request.state.key = key.id
    request.state.episode_state = state
    await _take(services, key)
    return key


async def _take(services: Services, key: KeyRecord) -> None:
    """Counts the request against the key's rate. Raises Problem."""
    rate = services.settings.rate
    if rate is None:
        return
    seconds = await services.store.api_keys.take(key.id, rate)
    if seconds:
        text = f"a key may send {services.settings.rate_limit}; the next request is taken in {seconds} s"
        raise Problem(RATE_LIMITED, text, headers={"Retry-After": str(seconds)})


AnyKey = Annotated[KeyRecord, Depends(_key)]


def _needs(scope: Scope) -> Callable[[KeyRecord], Awaitable[KeyRecord]]:
    async def checked(key: AnyKey) -> KeyRecord:
        return _with_scope(key, scope)

    return checked


def _with_scope(key: KeyRecord, scope: Scope) -> KeyRecord:
    """The same key, if it may do this. Raises Problem."""
    if not key.scopes & {scope, "admin"}:
        challenge = {"WWW-Authenticate": f'Bearer realm="lamanas", error="insufficient_scope", scope="{scope}"'}
        raise Problem(MISSING_SCOPE, f"this needs a token with the scope {scope!r}", headers=challenge)
    return key


EpisodesKey = Annotated[KeyRecord, Depends(_needs("episodes"))]
PredictKey = Annotated[KeyRecord, Depends(_needs("predict"))]
AdminKey = Annotated[KeyRecord, Depends(_needs("admin"))]


def owner_filter(key: KeyRecord) -> str | None:
    """Whose episodes this key sees: its tenant's, or (None) everybody's."""
    return None if "admin" in key.scopes else key.tenant


async def visible_episode(id: str, services: Services, key: KeyRecord) -> EpisodeRecord:
    """Raises Gone, and NotFound for another's episode, deleted or not, in the words for one that never was."""
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
