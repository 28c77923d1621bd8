"""Meta-model versions: registered by workers and the operator, listed and activated by the app."""

from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from app.store import keys
from app.store.errors import NotFound
from app.store.records import ModelRecord, text, to_json
from app.store.registry import run, run_async, script

_REGISTER = script("register_model")
_ACTIVATE = script("activate_model")
_FIELDS = ("card", "created_at")


class Models:
    """The asynchronous half. Every method may raise ``errors.UNAVAILABLE``."""

    def __init__(self, redis: AsyncRedis) -> None:
        # redis-py types every reply as bytes or str; ours are bytes, since nothing is decoded.
        self._redis: Any = redis

    async def all(self) -> list[ModelRecord]:
        """Newest first, without those that Redis has lost."""
        versions = [version.decode() for version in await self._redis.zrevrange(keys.MODELS, 0, -1)]
        found = [await self._found(version) for version in versions]
        return [record for record in found if record is not None]

    async def get(self, version: str) -> ModelRecord:
        """Raises NotFound."""
        fields = await self._redis.hmget(keys.model(version), _FIELDS)
        return _record(version, fields, await self._redis.get(keys.ACTIVE_MODEL))

    async def active(self) -> ModelRecord | None:
        """The one that new episodes are adapted from; None until a worker has registered the shipped one, and while
        Redis has lost the active one."""
        version = text(await self._redis.get(keys.ACTIVE_MODEL))
        return None if version is None else await self._found(version)

    async def _found(self, version: str) -> ModelRecord | None:
        try:
            return await self.get(version)
        except NotFound:
            return None

    async def activate(self, version: str) -> ModelRecord:
        """Existing episodes keep the version that they were created with. Raises NotFound."""
        if not await run_async(
            self._redis, _ACTIVATE(model=keys.model(version), active=keys.ACTIVE_MODEL, version=version)
        ):
            raise _unknown(version)
        return await self.get(version)


class SyncModels:
    """The blocking half. Every method may raise ``errors.UNAVAILABLE``."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    def register(self, version: str, weights: bytes, card: dict[str, Any]) -> None:
        """Once for each version, however often it is called; the first version of all becomes the active one."""
        call = _REGISTER(
            model=keys.model(version),
            models=keys.MODELS,
            active=keys.ACTIVE_MODEL,
            version=version,
            weights=weights,
            card=to_json(card),
        )
        run(self._redis, call)

    def active_version(self) -> str | None:
        """None until a version has been registered."""
        return text(self._redis.get(keys.ACTIVE_MODEL))

    def lost(self) -> set[str | None]:
        """The versions that are listed or active, but not stored any more; None is among them if none is active."""
        named = {self.active_version(), *map(text, self._redis.zrange(keys.MODELS, 0, -1))}
        return {version for version in named if version is None or not self._redis.exists(keys.model(version))}

    def get(self, version: str) -> ModelRecord:
        """Raises NotFound."""
        fields = self._redis.hmget(keys.model(version), _FIELDS)
        return _record(version, fields, self._redis.get(keys.ACTIVE_MODEL))

    def weights(self, version: str) -> bytes:
        """Safetensors. Raises NotFound."""
        weights: bytes | None = self._redis.hget(keys.model(version), "weights")
        if weights is None:
            raise _unknown(version)
        return weights


def _record(version: str, fields: list[bytes | None], active: bytes | None) -> ModelRecord:
    card, created_at = fields
    if card is None or created_at is None:
        raise _unknown(version)
    return ModelRecord.from_fields(version, card, created_at, text(active))


def _unknown(version: str) -> NotFound:
    return NotFound(f"there is no model version {version}")
