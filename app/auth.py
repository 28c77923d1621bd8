"""Who asks, and what they may: bearer tokens with scopes."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.errors import INVALID_TOKEN, MISSING_SCOPE, MISSING_TOKEN, Problem
from app.services import Held
from app.store.errors import NotFound
from app.store.records import EpisodeRecord, KeyRecord, Scope

bearer = HTTPBearer(
    auto_error=False,
    description="A key with scopes: `episodes` to make, read and delete episodes, `predict` to predict with them, "
    "`admin` for training, models and everything else. `lamanas token` prints the first admin key.",
)


async def _key(held: Held, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]) -> KeyRecord:
    if credentials is None:
        challenge = {"WWW-Authenticate": 'Bearer realm="lamanas"'}
        raise Problem(MISSING_TOKEN, "send Authorization: Bearer <token>", headers=challenge)
    key = await held.store.find_key(credentials.credentials)
    if key is None:
        challenge = {"WWW-Authenticate": 'Bearer realm="lamanas", error="invalid_token"'}
        raise Problem(INVALID_TOKEN, "the bearer token is unknown or was revoked", headers=challenge)
    return key


AnyKey = Annotated[KeyRecord, Depends(_key)]


def _needs(scope: Scope) -> Callable[[KeyRecord], Awaitable[KeyRecord]]:
    async def checked(key: AnyKey) -> KeyRecord:
        if not key.scopes & {scope, "admin"}:
            challenge = {"WWW-Authenticate": f'Bearer realm="lamanas", error="insufficient_scope", scope="{scope}"'}
            raise Problem(MISSING_SCOPE, f"this needs a token with the scope {scope!r}", headers=challenge)
        return key

    return checked


EpisodesKey = Annotated[KeyRecord, Depends(_needs("episodes"))]
PredictKey = Annotated[KeyRecord, Depends(_needs("predict"))]
AdminKey = Annotated[KeyRecord, Depends(_needs("admin"))]


def owner_filter(key: KeyRecord) -> str | None:
    """Whose things this key sees: its own, or (None) everybody's."""
    return None if "admin" in key.scopes else key.id


def require_visible(episode: EpisodeRecord, key: KeyRecord) -> EpisodeRecord:
    """Raises NotFound for another's episode, in the words for one that never was."""
    if owner_filter(key) not in (None, episode.owner):
        raise NotFound(f"there is no episode {episode.id}")
    return episode


async def _visible_episode(id: str, held: Held, key: EpisodesKey) -> EpisodeRecord:
    return require_visible(await held.store.get_episode(id), key)


VisibleEpisode = Annotated[EpisodeRecord, Depends(_visible_episode)]
