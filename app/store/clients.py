"""The two clients of the store: ``Store`` (asynchronous) for the app, ``SyncStore`` for workers and the operator."""

from typing import Any, Self

from celery import Celery
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from app.queue import celery_app
from app.settings import Settings
from app.store import connections, errors
from app.store.api_keys import ApiKeys, SyncApiKeys
from app.store.backbones import Backbones, SyncBackbones
from app.store.backup import Backup
from app.store.claims import Claims
from app.store.deadline import limited
from app.store.episodes import Episodes
from app.store.folders import Folders
from app.store.installation import Installation
from app.store.lookup_cache import LookupCache
from app.store.models import Models, SyncModels
from app.store.notifications import Notifications
from app.store.objects import Objects
from app.store.reconciliation import Reconciliation
from app.store.replication import Replication
from app.store.trainings import SyncTrainings, Trainings
from app.store.workers import SyncWorkers, Workers

CONNECTIONS = 64


class Store:
    """Use ``store = await Store.open(settings)`` and ``await store.close()``. One for each app process."""

    def __init__(
        self, settings: Settings, client: AsyncRedis, lookup_client: AsyncRedis, objects: Objects, celery: Celery
    ) -> None:
        self._redis: Any = client
        self._lookup_redis = lookup_client
        self._celery = celery
        self._lookups = LookupCache(lookup_client)
        self.objects = objects
        self.changes = Notifications(client, self._lookups.invalidate)
        self._replication = Replication(client, required=settings.sentinels is not None)
        self.episodes = Episodes(settings, client, objects, celery, self.changes, self._replication, self._lookups)
        self.trainings = Trainings(settings, client, celery, self.changes, self._replication)
        self.models = Models(client)
        self.backbones = Backbones(client, objects)
        self.api_keys = ApiKeys(client, self._lookups)
        self.workers = Workers(client)

    @classmethod
    async def open(cls, settings: Settings) -> Self:
        """Connects when it is first used: Redis need not be running yet."""
        client = connections.limited(settings, connections=CONNECTIONS, wait_s=5)
        # Lookups have a connection of their own: waiting for a shared one takes a third of the time of a round trip.
        lookups = connections.limited(settings, connections=1, wait_s=None)
        store = cls(settings, client, lookups, Objects.open(settings), celery_app(settings))
        store.changes.start()
        return store

    async def close(self) -> None:
        await self.changes.stop()
        await self._lookups.close()
        await self.episodes.close()
        await self.trainings.close()
        await self._replication.close()
        await self._lookup_redis.aclose()
        await self._redis.aclose()
        self._celery.close()

    async def ping(self) -> None:
        """Raises ``errors.UNAVAILABLE`` within a second."""
        with limited(seconds=1), errors.refusals_named():
            await self._redis.ping()


class SyncStore:
    """Safe to share between threads. Methods raise ``errors.UNAVAILABLE`` without retrying: the caller knows how long
    it may wait."""

    def __init__(self, client: Redis, objects: Objects, max_object_bytes: int) -> None:
        self._redis: Any = client
        self.claims = Claims(client, objects, max_object_bytes)
        self.installation = Installation(client, objects)
        self.backup = Backup(client, objects, self.installation)
        self.reconciliation = Reconciliation(client, objects)
        self.workers = SyncWorkers(client)
        self.backbones = SyncBackbones(client, objects)
        self.models = SyncModels(client, objects, self.backbones)
        self.trainings = SyncTrainings(client, objects)
        self.folders = Folders(client, objects)
        self.api_keys = SyncApiKeys(client)

    @classmethod
    def open(cls, settings: Settings, answer_s: float = connections.ANSWER_S) -> Self:
        """Connects when it is first used, and waits so long for an answer of Redis."""
        return cls(connections.blocking(settings, answer_s), Objects.open(settings), settings.max_object_bytes)

    def close(self) -> None:
        self._redis.close()

    @errors.refusals_named()
    def ping(self) -> None:
        self._redis.ping()
