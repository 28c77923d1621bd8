"""Episodes, as the app needs them: a support set, what was asked for, how far it is, and its classifier."""

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Any

import numpy as np
from celery import Celery
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from app.settings import Settings
from app.store import errors, keys
from app.store.jobs import Jobs, origin, raise_if_refused
from app.store.lookup_cache import LookupCache
from app.store.models import unknown_version
from app.store.notifications import Notifications
from app.store.objects import Objects, delete_dropped, name_in, support_name
from app.store.records import (
    EPISODE_ENDS,
    EpisodeRecord,
    Hash,
    episode_labels,
    support_from_bytes,
    support_to_bytes,
    text,
    to_json,
)
from app.store.registry import run_async, script
from app.store.replication import Replication
from lamanas_core.image_spec import ImageKind

log = logging.getLogger(__name__)
# How long uses of classifiers are gathered: each time is a write that Redis syncs to its disk.
USED_S = 60.0
_ADMIT = script("admit_episode")
_CREATE = script("create_episode")
_DELETE = script("delete_episode")
_ADAPT_AGAIN = script("adapt_again")


class Episodes(Jobs[EpisodeRecord]):
    """Every method may raise ``errors.UNAVAILABLE``."""

    def __init__(
        self,
        settings: Settings,
        redis: Redis,
        objects: Objects,
        celery: Celery,
        changes: Notifications,
        replication: Replication,
        lookups: LookupCache,
    ) -> None:
        super().__init__("episode", EpisodeRecord.from_hash, EPISODE_ENDS, redis, celery, changes, replication)
        self._settings = settings
        self._objects = objects
        self._used: set[str] = set()
        self._lookups = lookups
        # Of its own: deletions that wait for a store that hangs must not take the threads that requests need.
        self._deletions = ThreadPoolExecutor(1, thread_name_prefix="deletions")

    async def close(self) -> None:
        """Ends the deletions that are under way; those that wait are left to the sweep."""
        await super().close()
        await asyncio.to_thread(self._deletions.shutdown, cancel_futures=True)

    async def _read(self, ids: list[str]) -> list[Hash]:
        """Also ``ahead`` of those that wait."""
        async with self._redis.pipeline(transaction=False) as reads:
            for id in ids:
                reads.hgetall(keys.record("episode", id)).zrank(keys.queued("episode"), id)
            found = await reads.execute()
        places = [{} if ahead is None else {b"ahead": b"%d" % ahead} for ahead in found[1::2]]
        return [hash and hash | place for hash, place in zip(found[::2], places, strict=True)]

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

        ``support``: uint8 (n, channels, height, width); ``labels``: n numbers into ``classes``, or UNLABELLED for those
        without a label, which come last; ``model_reason``: why this model, in words; ``model_warning``: what is to be
        told if it does not suit the images; ``notes``: what is to be told about how the images were read. The flag is
        False if ``idempotency_key`` was used by this owner with the same ``request_digest`` before: then the episode of
        that request is returned (Gone if it was deleted). Without one, nobody would ask again for an episode of which
        its client was not told: none is left then. Raises IdempotencyConflict, QueueFull, StoreFull; UnknownModel if
        the model was removed.
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
        images = await asyncio.to_thread(support_to_bytes, support)
        kept = idempotency_key is not None
        limits: dict[str, Any] = {
            "queued": keys.queued("episode"),
            "idempotency": keys.idempotency(owner, idempotency_key or ""),
            "unfinished": keys.unfinished(owner),
            "bytes": len(images),
            "max_queue": self._settings.max_queue,
            "digest": request_digest if kept else "",
            "idempotent": kept,
            "max_unfinished": self._settings.max_unfinished,
            "max_object_bytes": self._settings.max_object_bytes,
            "max_memory": self._settings.max_store_bytes,
        }
        # Asked before its bytes are stored, so that a flood of requests that are refused is not written to a disk.
        status, admitted_at, replicas = await run_async(self._redis, _ADMIT(**limits))
        if status != b"admitted":
            return await self._not_created(status, admitted_at, replicas)
        name = support_name(id, images)
        await self._objects.put_async(name, images)
        call = _CREATE(
            record=keys.record("episode", id),
            index=keys.index("episode"),
            owner_index=keys.index("episode", owner),
            tombstone=keys.tombstone("episode", id),
            expiry=keys.EXPIRY,
            models_used=keys.MODELS_USED,
            id=id,
            owner=owner,
            model_version=model_version,
            spec=to_json(spec),
            shape=json.dumps(support.shape),
            support=name,
            ttl_ms=self._settings.episode_ttl_seconds * 1000,
            admitted_at=admitted_at,
            **limits,
        )
        try:
            status, id_or_waiting, dropped, replicas = await self._created(id, owner, call, kept=kept)
        except errors.REFUSING:  # so that nothing names it; after a lost answer, something may
            self._delete([name.encode()])
            raise
        if status == b"created":
            record = await self._acknowledged(id, owner, replicas, kept=kept)
            self._delete(dropped)
            return record, True
        self._delete([name.encode()])
        if status == b"no-model":
            raise unknown_version(model_version)
        return await self._not_created(status, id_or_waiting, replicas)

    async def _not_created(self, status: bytes, id_or_waiting: Any, replicas: int) -> tuple[EpisodeRecord, bool]:
        """The episode that an earlier request with the same idempotency key created. Raises what ``create`` raises."""
        raise_if_refused(status, id_or_waiting)
        await self._replication.confirm(replicas)
        return await self.get(id_or_waiting.decode()), False

    def _delete(self, names: Sequence[bytes]) -> None:
        """In the background: no request waits for it, since nothing names the objects any more."""
        if names:
            self._deletions.submit(delete_dropped, self._objects, names)

    async def state(self, id: str) -> str | None:
        """The state as it was a second ago or later; None if there is no such episode (any more)."""
        return text((await self._lookups.lookup("", id)).state)

    async def delete(self, id: str) -> None:
        """Raises NotFound, Gone. If the episode is being adapted, the result will be refused."""
        await self._forget(id, (await self.get(id)).owner)

    async def _forget(self, id: str, owner: str) -> None:
        call = _DELETE(
            record=keys.record("episode", id),
            queued=keys.queued("episode"),
            leases=keys.leases("episode"),
            index=keys.index("episode"),
            owner_index=keys.index("episode", owner),
            tombstone=keys.tombstone("episode", id),
            expiry=keys.EXPIRY,
            id=id,
            owner=owner,
        )
        dropped, replicas = await run_async(self._redis, call)
        self._lookups.invalidate(f"episode:{id}")  # the client may ask again before the notice arrives
        # After a failover that a replica did not know of, the episode would be there again, and need its objects. If
        # none confirms, they are left to the sweep: a repeated deletion is not told their names.
        await self._replication.confirm(replicas)
        self._delete(dropped)

    async def artifact(self, id: str) -> bytes:
        """The finished classifier (ONNX). Raises NotFound, Gone, NotReady.

        If it was dropped to make room, the episode is enqueued to be adapted again, and NotReady raised until it is;
        QueueFull if it cannot be enqueued.
        """
        entry = await self._classifier(id)
        while entry is not None:
            artifact = await self._objects.get_async(name_in(entry))
            if artifact is not None:
                self.mark_used(id)
                return artifact
            # It was dropped since, and perhaps adapted again; or its bytes were lost.
            before, entry = entry, await self._classifier(id)
            if entry == before:
                break
        owner = (await self.get(id)).owner
        call = _ADAPT_AGAIN(
            record=keys.record("episode", id),
            queued=keys.queued("episode"),
            unfinished=keys.unfinished(owner),
            id=id,
            lost=entry or b"",
            max_queue=self._settings.max_queue,
            max_unfinished=self._settings.max_unfinished,
        )
        status, waiting = await run_async(self._redis, call)
        raise_if_refused(status, waiting)
        if status == b"enqueued":
            await self._wake(id)
        record = await self.get(id)
        raise errors.NotReady(f"episode {id} is {record.state}")

    def mark_used(self, id: str) -> None:
        """This classifier was used: when there is no room, others are dropped before it."""
        if not self._used:
            # Not in the context of this request, whose time will be over.
            loop = asyncio.get_running_loop()
            loop.call_later(USED_S, lambda: asyncio.ensure_future(self.write_used()), context=Context())
        self._used.add(id)

    async def write_used(self) -> None:
        """Writes down which classifiers were used since the last time."""
        used = dict.fromkeys(self._used, int(time.time() * 1000))
        self._used.clear()
        try:
            await self._redis.zadd(keys.CLASSIFIERS_USED, used, xx=True)
        except (*errors.UNAVAILABLE, ResponseError) as error:
            log.warning("uses of %d classifiers not written down: %s", len(used), error)

    async def _classifier(self, id: str) -> bytes | None:
        """What CLASSIFIERS has of the episode."""
        entry: bytes | None = await self._redis.hget(keys.CLASSIFIERS, id)
        return entry

    async def labels(self, id: str) -> list[int]:
        """As ``episode_labels``. Raises NotFound, Gone."""
        return episode_labels(await self._hash(id))

    async def support(self, id: str) -> tuple[np.ndarray, list[int]]:
        """uint8 (n, channels, height, width), and ``labels`` of it. Raises NotFound, Gone."""
        hash = await self._hash(id)
        entry: bytes | None = await self._redis.hget(keys.SUPPORT_SETS, id)
        data = None if entry is None else await self._objects.get_async(name_in(entry))
        if data is None:
            raise errors.Gone(f"the images of episode {id} are no longer there", json.loads(hash[b"spec"])["owner"])
        images = await asyncio.to_thread(support_from_bytes, data, json.loads(hash[b"shape"]))
        return images, episode_labels(hash)
