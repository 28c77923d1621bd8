"""The two clients of the store: ``Store`` (asynchronous) for the app, ``SyncStore`` for workers and the operator."""

from typing import Any, Self

from celery import Celery
from redis import Redis
from redis.asyncio import BlockingConnectionPool, ConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

from app.queue import celery_app
from app.settings import Settings
from app.store import errors
from app.store.api_keys import ApiKeys, SyncApiKeys
from app.store.backup import Backup
from app.store.claims import Claims
from app.store.deadline import LimitedRedis, limited
from app.store.episodes import Episodes
from app.store.folders import Folders
from app.store.installation import Installation
from app.store.lookup_cache import LookupCache
from app.store.models import Models, SyncModels
from app.store.notifications import Notifications
from app.store.objects import Objects
from app.store.reconciliation import Reconciliation
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
        self.changes = Notifications(client, self._lookups.invalidate)
        self.episodes = Episodes(settings, client, objects, celery, self.changes, self._lookups)
        self.trainings = Trainings(settings, client, celery, self.changes)
        self.models = Models(client)
        self.api_keys = ApiKeys(client, self._lookups)
        self.workers = Workers(client)

    @classmethod
    async def open(cls, settings: Settings) -> Self:
        """Connects when it is first used: Redis need not be running yet."""
        options: dict[str, Any] = {
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            # Until the limit in deadline.py.
            "retry": AsyncRetry(ExponentialBackoff(base=0.1, cap=1.0), 5),
        }
        pool = BlockingConnectionPool.from_url(settings.store_url, max_connections=CONNECTIONS, timeout=5, **options)
        client = LimitedRedis.from_pool(pool)
        # Lookups have a connection of their own: waiting for a shared one takes a third of the time of a round trip.
        lookups = LimitedRedis.from_pool(ConnectionPool.from_url(settings.store_url, max_connections=1, **options))
        store = cls(settings, client, lookups, Objects.open(settings), celery_app(settings))
        store.changes.start()
        return store

    async def close(self) -> None:
        await self.changes.stop()
        await self._lookups.close()
        await self.episodes.close()
        await self.trainings.close()
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
        self.backup = Backup(client, objects)
        self.reconciliation = Reconciliation(client, objects)
        self.workers = SyncWorkers(client)
        self.models = SyncModels(client)
        self.trainings = SyncTrainings(client, objects)
        self.folders = Folders(client, objects)
        self.api_keys = SyncApiKeys(client)

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Connects when it is first used."""
        retry = Retry(NoBackoff(), 0)
        client = Redis.from_url(settings.store_url, retry=retry, socket_timeout=5, socket_connect_timeout=2)
        return cls(client, Objects.open(settings), settings.max_object_bytes)

    def close(self) -> None:
        self._redis.close()

    @errors.refusals_named()
    def ping(self) -> None:
        self._redis.ping()
