"""Where a replica may take over, what is accepted is acknowledged only once a replica has it: Redis replicates after it
has answered, and a failover would lose what no replica has yet."""

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from app.store import keys
from app.store.batches import Batches
from app.store.errors import NotReplicatedError, refusals_named

# How long a replica may take to confirm. It must leave time for another round within the limit of a request: what comes
# while one is under way waits for the next.
CONFIRM_S = 1.0


class Replication:
    """``required``: sentinels are there, so that a replica must be; otherwise, those count that are connected."""

    def __init__(self, redis: Redis, *, required: bool) -> None:
        self._redis = redis
        self._required = required
        self._rounds: Batches[None, int] = Batches(self._wait, most=1)

    async def confirm(self, replicas: int) -> None:
        """Returns once a replica has everything that was written before this call; at once if there is none, where none
        is required. ``replicas``: how many are connected.

        It says nothing of what was written to another primary before a failover: look afterwards whether it is there.
        Raises NotReplicatedError if none confirms in time, and what else ``errors.UNAVAILABLE`` has.
        """
        if not (replicas or self._required):
            return
        if not await self._rounds.ask(None):
            raise NotReplicatedError(f"no replica has confirmed what was written within {CONFIRM_S:.0f} s")

    async def close(self) -> None:
        await self._rounds.close()

    async def _wait(self, asked: list[None]) -> list[int]:
        """How many replicas have everything. WAIT is about the writes of its own connection, so that one is made here:
        whoever has a later one has all before it."""
        async with self._redis.pipeline(transaction=False) as both:
            both.set(keys.REPLICATED, "")
            both.execute_command("WAIT", 1, int(CONFIRM_S * 1000))
            written, confirmed = await both.execute(raise_on_error=False)
        with refusals_named():
            for answer in (written, confirmed):
                if isinstance(answer, ResponseError):
                    raise answer
        return [int(confirmed)] * len(asked)
