"""Meta-model versions: registered by workers and the operator, listed and activated by the app."""

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from app.store import keys
from app.store.backbones import SyncBackbones
from app.store.errors import Conflict, UnknownModel, refusals_named
from app.store.objects import Objects, delete_dropped
from app.store.records import ModelRecord, image_of, text, to_json
from app.store.registry import run, script
from lamanas_core.backbones.storage import ships
from lamanas_core.image_spec import KINDS, ImageKind

_REGISTER = script("register_model")
_REMOVE = script("remove_model")
_FIELDS = ("card", "created_at")


class Models:
    """The asynchronous half. Every method may raise ``errors.UNAVAILABLE``."""

    def __init__(self, redis: AsyncRedis) -> None:
        # redis-py types every reply as bytes or str; ours are bytes, since nothing is decoded.
        self._redis: Any = redis

    async def all(self) -> list[ModelRecord]:
        """Newest first, without those that Redis has lost."""
        versions = [version.decode() for version in await self._redis.zrevrange(keys.MODELS, 0, -1)]
        found = await self._found(versions, await self.active_versions())
        return [record for record in found if record is not None]

    async def get(self, version: str) -> ModelRecord:
        """Raises NotFound."""
        [found] = await self._found([version], await self.active_versions())
        if found is None:
            raise unknown_version(version)
        return found

    async def active(self) -> dict[ImageKind, ModelRecord | None]:
        """Those that new episodes are adapted from, by kind; None where Redis has lost it."""
        active = await self.active_versions()
        return dict(zip(active, await self._found(active.values(), active), strict=True))

    async def active_versions(self) -> dict[ImageKind, str]:
        """The version that is the active one of each kind; empty until a worker has registered the shipped ones."""
        return _by_kind(await self._redis.hgetall(keys.ACTIVE_MODELS))

    async def _found(self, versions: Collection[str], active: dict[ImageKind, str]) -> list[ModelRecord | None]:
        """The record of each version, in one round trip; None where Redis has lost it, or never had it."""
        async with self._redis.pipeline(transaction=False) as reads:
            for version in versions:
                reads.hmget(keys.model(version), _FIELDS)
            found = await reads.execute()
        return [_record(version, fields, active) for version, fields in zip(versions, found, strict=True)]

    async def activate(self, version: str) -> ModelRecord:
        """Makes it the active one of its kind; existing episodes keep the version that they were created with. Raises
        NotFound."""
        model = await self.get(version)
        with refusals_named():
            await self._redis.hset(keys.ACTIVE_MODELS, model.kind, version)
        return replace(model, active=True)


class SyncModels:
    """The blocking half. Every method may raise ``errors.UNAVAILABLE``."""

    def __init__(self, redis: Redis, objects: Objects, backbones: SyncBackbones) -> None:
        self._redis: Any = redis
        self._objects = objects
        self._backbones = backbones

    def register(self, version: str, weights: bytes, card: dict[str, Any]) -> None:
        """Once for each version, however often it is called; the first version of its kind becomes the active one. A
        backbone that does not ship with the package, and is not stored yet, is stored from this machine's file. Raises
        BackboneError if that is too large."""
        backbone = _own_backbone(card)
        declared = partial(
            _REGISTER,
            model=keys.model(version),
            models=keys.MODELS,
            active=keys.ACTIVE_MODELS,
            backbones=keys.BACKBONES,
            version=version,
            kind=image_of(card).kind,
            weights=weights,
            card=to_json(card),
            backbone=backbone or "",
        )
        if not run(self._redis, declared(object="")) and backbone is not None:
            run(self._redis, declared(object=self._backbones.store(backbone)))

    def active_versions(self) -> dict[ImageKind, str]:
        """As ``Models.active_versions``."""
        return _by_kind(self._redis.hgetall(keys.ACTIVE_MODELS))

    def lost(self) -> set[str | None]:
        """The versions that are listed or active, but not stored any more; None is among them if none is active."""
        named = {*(self.active_versions().values() or [None]), *map(text, self._redis.zrange(keys.MODELS, 0, -1))}
        versions = [version for version in named if version is not None]
        with self._redis.pipeline(transaction=False) as reads:
            for version in versions:
                reads.exists(keys.model(version))
            stored = reads.execute()
        return named - {version for version, exists in zip(versions, stored, strict=True) if exists}

    def get(self, version: str) -> ModelRecord:
        """Raises NotFound."""
        found = _record(version, self._redis.hmget(keys.model(version), _FIELDS), self.active_versions())
        if found is None:
            raise unknown_version(version)
        return found

    def remove(self, version: str) -> None:
        """Removes a version that is neither active nor used by an episode, with its backbone if no other version needs
        that. Raises NotFound, Conflict."""
        call = _REMOVE(
            model=keys.model(version),
            models=keys.MODELS,
            active=keys.ACTIVE_MODELS,
            used=keys.MODELS_USED,
            backbones=keys.BACKBONES,
            version=version,
        )
        status, until, dropped = run(self._redis, call)
        if status == b"unknown":
            raise unknown_version(version)
        if status == b"active":
            raise Conflict(f"{version} is the active version of its kind; activate another one first")
        if status == b"used":
            moment = datetime.fromtimestamp(until / 1000, UTC)
            raise Conflict(f"episodes use {version}, the last of them until {moment:%Y-%m-%d %H:%M} (UTC)")
        delete_dropped(self._objects, [dropped] if dropped else [])

    def weights(self, version: str) -> bytes:
        """Safetensors. Raises NotFound."""
        weights: bytes | None = self._redis.hget(keys.model(version), "weights")
        if weights is None:
            raise unknown_version(version)
        return weights


def _by_kind(hash: dict[bytes, bytes]) -> dict[ImageKind, str]:
    return {kind: hash[kind.encode()].decode() for kind in KINDS if kind.encode() in hash}


def _record(version: str, fields: list[bytes | None], active: dict[ImageKind, str]) -> ModelRecord | None:
    """None if Redis has lost the version, or never had it."""
    card, created_at = fields
    if card is None or created_at is None:
        return None
    return ModelRecord.from_fields(version, card, created_at, active.values())


def _own_backbone(card: dict[str, Any]) -> str | None:
    """The name of the backbone of the meta-model with this card; None if it ships with the package or there is none."""
    name: str | None = card["config"].get("network", {}).get("backbone")
    return None if name is None or ships(name) else name


def unknown_version(version: str) -> UnknownModel:
    """The error for a version that is not registered (any more)."""
    return UnknownModel(f"there is no model version {version}")
