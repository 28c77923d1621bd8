"""Who may ask, and how often: keys by their tokens, and the rate of each."""

import hmac
import math
from collections import OrderedDict
from typing import Any

from redis.asyncio import Redis

from app.settings import Rate
from app.store import codec, keys, scripts
from app.store.errors import unwrapped
from app.store.lookup_cache import Standings
from app.store.records import KeyRecord

KEYS_KEPT = 1024


class Access:
    """Every method may raise ``errors.UNAVAILABLE``."""

    def __init__(self, client: Redis, standings: Standings) -> None:
        # redis-py types every reply as bytes or str; ours are bytes, since nothing is decoded.
        self._redis: Any = client
        self._standings = standings
        self._take: Any = client.register_script(scripts.TAKE)
        # By the digest of the token, the one asked for longest ago first.
        self._known: OrderedDict[str, KeyRecord] = OrderedDict()

    async def find_key(self, token: str) -> KeyRecord | None:
        """The key whose token this is; None for an unknown or revoked one."""
        return (await self.find_key_and_state(token, ""))[0]

    async def find_key_and_state(self, token: str, episode: str) -> tuple[KeyRecord | None, str | None]:
        """As ``find_key``, and the state of this episode: None if there is none, or if the key is not one that was
        found here before.

        What never changes of a key is kept; ``Standings`` tells whether it still counts.
        """
        digest = keys.token_digest(token)
        known = self._known.get(digest)
        if known is None:
            return await self._first_found(token, digest), None
        seen, revoked, state = await self._standings.of(known.id, episode)
        if not hmac.compare_digest(seen or b"", digest.encode()) or revoked == b"1":
            return None, None
        if digest in self._known:  # still: others were found meanwhile
            self._known.move_to_end(digest)
        return known, codec.text(state)

    async def take(self, key_id: str, rate: Rate) -> int:
        """Counts a request against the key's rate; 0, or the seconds until the next one is taken."""
        with unwrapped():
            milliseconds: int = await self._take([keys.bucket(key_id)], [rate.requests, rate.ms_per_request])
        return math.ceil(milliseconds / 1000)

    async def _first_found(self, token: str, digest: str) -> KeyRecord | None:
        id = await self._redis.get(keys.key_by_token(token))
        if id is None:
            return None
        hash = await self._redis.hgetall(keys.key(id.decode()))
        if not hmac.compare_digest(hash.get(b"digest", b""), digest.encode()):
            return None
        record = codec.key(id.decode(), hash)
        if record.revoked:
            return None
        self._known[digest] = record
        while len(self._known) > KEYS_KEPT:
            self._known.popitem(last=False)
        return record
