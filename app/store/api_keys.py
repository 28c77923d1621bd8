"""API keys: who may ask, and how often. The app finds them by their tokens, the operator creates and revokes them."""

import hmac
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from app.settings import Rate
from app.store import keys
from app.store.errors import NotFound, refusals_named
from app.store.lookup_cache import LookupCache
from app.store.records import SCOPES, KeyRecord, Scope, text, to_json
from app.store.registry import run, run_async, script

_CREATE = script("create_api_key")
_TAKE_TOKEN = script("take_token")
MAX_CACHED_KEYS = 1024


class ApiKeys:
    """The asynchronous half. Every method may raise ``errors.UNAVAILABLE``."""

    def __init__(self, redis: AsyncRedis, lookups: LookupCache) -> None:
        # redis-py types every reply as bytes or str; ours are bytes, since nothing is decoded.
        self._redis: Any = redis
        self._lookups = lookups
        # By the digest of the token, least recently used first.
        self._cached: OrderedDict[str, KeyRecord] = OrderedDict()

    async def find(self, token: str) -> KeyRecord | None:
        """The key that has this token; None for an unknown or revoked one."""
        return (await self.find_with_state(token, ""))[0]

    async def find_with_state(self, token: str, episode: str) -> tuple[KeyRecord | None, str | None]:
        """As ``find``, and the state of this episode: None if there is no such episode, or if the key was not found by
        this process before.

        What never changes about a key is cached here; whether it is revoked is looked up (see ``LookupCache``).
        """
        digest = keys.token_digest(token)
        known = self._cached.get(digest)
        if known is None:
            return await self._read(token, digest), None
        stored, revoked, state = await self._lookups.lookup(known.id, episode)
        if not hmac.compare_digest(stored or b"", digest.encode()) or revoked == b"1":
            return None, None
        if digest in self._cached:  # it may have been dropped while this waited
            self._cached.move_to_end(digest)
        return known, text(state)

    async def take(self, key_id: str, rate: Rate) -> int:
        """Counts a request against the key's rate. Returns 0, or how many seconds until the next one is accepted."""
        call = _TAKE_TOKEN(bucket=keys.bucket(key_id), capacity=rate.requests, ms_per_token=rate.ms_per_request)
        milliseconds: int = await run_async(self._redis, call)
        return math.ceil(milliseconds / 1000)

    async def _read(self, token: str, digest: str) -> KeyRecord | None:
        id = await self._redis.get(keys.api_key_by_token(digest))
        if id is None:
            return None
        hash = await self._redis.hgetall(keys.api_key(id.decode()))
        if not hmac.compare_digest(hash.get(b"digest", b""), digest.encode()):
            return None
        record = KeyRecord.from_hash(id.decode(), hash)
        if record.revoked:
            return None
        self._cached[digest] = record
        while len(self._cached) > MAX_CACHED_KEYS:
            self._cached.popitem(last=False)
        return record


class SyncApiKeys:
    """The blocking half. Every method may raise ``errors.UNAVAILABLE``."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    def create(
        self, name: str, scopes: Iterable[Scope], token: str | None = None, tenant: str | None = None
    ) -> tuple[KeyRecord, str]:
        """A new key and its token, which cannot be read again later. If ``token`` has a key already, that key.

        Keys of one ``tenant`` share their episodes; without one, a key is its own tenant, named by its id.
        """
        wanted = frozenset(scopes)
        if not wanted or not wanted <= SCOPES:
            raise ValueError(f"scopes must be some of {', '.join(sorted(SCOPES))}")
        token = token or new_token()
        id = keys.new_id()
        call = _CREATE(
            api_key=keys.api_key(id),
            by_token=keys.api_key_by_token(keys.token_digest(token)),
            all_keys=keys.API_KEYS,
            id=id,
            name=name,
            tenant=tenant or id,
            scopes=to_json(sorted(wanted)),
            digest=keys.token_digest(token),
        )
        return self.get(run(self._redis, call).decode()), token

    def get(self, id: str) -> KeyRecord:
        """Raises NotFound."""
        hash = self._redis.hgetall(keys.api_key(id))
        if not hash:
            raise NotFound(f"there is no key {id}")
        return KeyRecord.from_hash(id, hash)

    def all(self) -> list[KeyRecord]:
        """Oldest first, revoked ones included."""
        ids = [id.decode() for id in self._redis.zrange(keys.API_KEYS, 0, -1)]
        with self._redis.pipeline(transaction=False) as reads:
            for id in ids:
                reads.hgetall(keys.api_key(id))
            found = zip(ids, reads.execute(), strict=True)
        return [KeyRecord.from_hash(id, hash) for id, hash in found if hash]  # one may have been removed meanwhile

    @refusals_named()
    def revoke(self, id: str) -> KeyRecord:
        """Its token is refused from now on; its episodes stay until they expire. Raises NotFound."""
        self.get(id)
        with self._redis.pipeline() as both:
            both.hset(keys.api_key(id), mapping={"revoked": "1", "revoked_at": int(1000 * time.time())})
            both.publish(keys.CHANGES, f"key:{id}").execute()
        return self.get(id)

    def revoked_before(self, at: float) -> list[KeyRecord]:
        """Those that were revoked before this time (seconds since 1970), oldest first."""
        return [key for key in self.all() if key.revoked and (key.revoked_at or key.created_at) < at]

    @refusals_named()
    def remove(self, id: str) -> None:
        """Forgets a revoked key, if it is not forgotten already: its token is unknown from now on."""
        digest = text(self._redis.hget(keys.api_key(id), "digest"))
        if digest is None:
            return
        with self._redis.pipeline() as all:
            all.delete(keys.api_key(id), keys.api_key_by_token(digest)).zrem(keys.API_KEYS, id).execute()


def new_token() -> str:
    """256 random bits."""
    return "lam_" + secrets.token_urlsafe(32)
