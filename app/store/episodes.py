"""Episodes, as the app needs them: a support set, what was asked for, how far it is, and its classifier."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from celery import Celery
from redis.asyncio import Redis

from app.settings import Settings
from app.store import errors, keys
from app.store.jobs import Jobs, origin, raise_if_refused
from app.store.lookup_cache import LookupCache
from app.store.notifications import Notifications
from app.store.records import (
    EPISODE_ENDS,
    EpisodeRecord,
    episode_labels,
    support_from_bytes,
    support_to_bytes,
    text,
    to_json,
)
from app.store.registry import run_async, script
from lamanas_core.image_spec import ImageKind

_CREATE = script("create_episode")
_DELETE = script("delete_episode")
_ADAPT_AGAIN = script("adapt_again")


class Episodes(Jobs[EpisodeRecord]):
    """Every method may raise ``errors.UNAVAILABLE``."""

    def __init__(
        self, settings: Settings, redis: Redis, celery: Celery, changes: Notifications, lookups: LookupCache
    ) -> None:
        super().__init__("episode", EpisodeRecord.from_hash, EPISODE_ENDS, redis, celery, changes)
        self._settings = settings
        self._lookups = lookups

    async def get(self, id: str) -> EpisodeRecord:
        """Raises NotFound, Gone."""
        record = await super().get(id)
        if record.state != "queued":
            return record
        return replace(record, ahead=await self._redis.zrank(keys.queued("episode"), id))

    async def create(
        self,
        *,
        owner: str,
        name: str | None,
        classes: Sequence[str],
        shots: Sequence[int],
        support: np.ndarray,
        labels: Sequence[int],
        steps: int,
        seed: int,
        model_version: str,
        model_kind: ImageKind,
        model_reason: str,
        model_warning: str | None = None,
        parent: str | None = None,
        notes: Sequence[str] = (),
        idempotency_key: str | None = None,
        request_digest: str = "",
    ) -> tuple[EpisodeRecord, bool]:
        """Stores and enqueues an episode at once: durable when this returns.

        ``support``: uint8 (n, channels, height, width); ``labels``: n numbers into ``classes``;
        ``model_reason``: why this model, in words; ``model_warning``: what is to be told if it does not suit the
        images; ``notes``: what is to be told about how the images were read. The flag is False if
        ``idempotency_key`` was used by this owner with the same ``request_digest`` before: then the episode of that
        request is returned (Gone if it was deleted). Raises IdempotencyConflict, QueueFull, StoreFull.
        """
        if support.dtype != np.uint8 or support.ndim != 4 or len(support) != len(labels):
            raise ValueError("support must be uint8 (n, c, h, w) with one label for each image")
        id = keys.new_id()
        spec = {
            "id": id,
            "owner": owner,
            "name": name,
            "classes": list(classes),
            "shots": [int(shot) for shot in shots],
            "steps": int(steps),
            "seed": int(seed),
            "model_version": model_version,
            "model_kind": model_kind,
            "model_reason": model_reason,
            "model_warning": model_warning,
            "labels": [int(label) for label in labels],
            "parent": parent,
            "notes": list(notes),
        } | origin()
        call = _CREATE(
            record=keys.record("episode", id),
            support=keys.support(id),
            queued=keys.queued("episode"),
            index=keys.index("episode"),
            owner_index=keys.index("episode", owner),
            tombstone=keys.tombstone("episode", id),
            expiry=keys.EXPIRY,
            idempotency=keys.idempotency(owner, idempotency_key or ""),
            unfinished=keys.unfinished(owner),
            id=id,
            owner=owner,
            spec=to_json(spec),
            shape=json.dumps(support.shape),
            images=await asyncio.to_thread(support_to_bytes, support),
            ttl_ms=self._settings.episode_ttl_seconds * 1000,
            max_queue=self._settings.max_queue,
            digest=request_digest if idempotency_key is not None else "",
            idempotent=idempotency_key is not None,
            max_unfinished=self._settings.max_unfinished,
            max_bytes=self._settings.max_store_bytes,
        )
        status, id_or_waiting = await run_async(self._redis, call)
        raise_if_refused(status, id_or_waiting)
        if status == b"existing":
            return await self.get(id_or_waiting.decode()), False
        await self._wake(id)
        return await self.get(id), True

    async def state(self, id: str) -> str | None:
        """The state as it was a second ago or later; None if there is no such episode (any more)."""
        return text((await self._lookups.lookup("", id)).state)

    async def delete(self, id: str) -> None:
        """Raises NotFound, Gone. If the episode is being adapted, the result will be refused."""
        owner = (await self.get(id)).owner
        call = _DELETE(
            record=keys.record("episode", id),
            support=keys.support(id),
            artifact=keys.artifact(id),
            queued=keys.queued("episode"),
            leases=keys.leases("episode"),
            index=keys.index("episode"),
            owner_index=keys.index("episode", owner),
            tombstone=keys.tombstone("episode", id),
            expiry=keys.EXPIRY,
            id=id,
            owner=owner,
        )
        await run_async(self._redis, call)
        self._lookups.invalidate(f"episode:{id}")  # the client may ask again before the notice arrives

    async def artifact(self, id: str) -> bytes:
        """The finished classifier (ONNX). Raises NotFound, Gone, NotReady.

        If it was dropped to save memory, the episode is enqueued to be adapted again, and NotReady raised until it is;
        QueueFull if it cannot be enqueued.
        """
        artifact: bytes | None = await self._redis.get(keys.artifact(id))
        if artifact is not None:
            return artifact
        owner = (await self.get(id)).owner
        call = _ADAPT_AGAIN(
            record=keys.record("episode", id),
            queued=keys.queued("episode"),
            artifact=keys.artifact(id),
            unfinished=keys.unfinished(owner),
            id=id,
            max_queue=self._settings.max_queue,
            max_unfinished=self._settings.max_unfinished,
        )
        status, waiting = await run_async(self._redis, call)
        raise_if_refused(status, waiting)
        if status == b"enqueued":
            await self._wake(id)
        record = await self.get(id)
        raise errors.NotReady(f"episode {id} is {record.state}")

    async def support(self, id: str) -> tuple[np.ndarray, list[int]]:
        """uint8 (n, channels, height, width), and the label number of each image. Raises NotFound, Gone."""
        hash = await self._hash(id)
        data: bytes | None = await self._redis.get(keys.support(id))
        if data is None:
            raise errors.Gone(f"the images of episode {id} are no longer there", json.loads(hash[b"spec"])["owner"])
        images = await asyncio.to_thread(support_from_bytes, data, json.loads(hash[b"shape"]))
        return images, episode_labels(hash)
