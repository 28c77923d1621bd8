"""Reconciliation: enqueues jobs whose lease has expired, finds lost wake-ups, and removes expired episodes."""

from typing import Any

from redis import Redis

from app.store import keys
from app.store.claims import MAX_ATTEMPTS
from app.store.keys import Kind
from app.store.registry import run, script

_ENDED = f"the worker died {MAX_ATTEMPTS} times, or was ended because it took too long,"
_GIVEN_UP: dict[Kind, str] = {
    "episode": f"{_ENDED} while adapting this episode; it was given up",
    "training": f"{_ENDED} without getting any further; the run was given up",
}
_DUE = script("due")
_EXPIRE = script("expire_lease")
_SWEEP = script("sweep")


class Reconciliation:
    """What brings back the jobs of dead workers. Blocking; every method may raise ``errors.UNAVAILABLE``."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    def uptime(self) -> int:
        """Whole seconds since Redis started."""
        return int(self._redis.info("server")["uptime_in_seconds"])

    def due(self, kind: Kind) -> list[str]:
        """Enqueues the jobs whose lease has expired. Returns the ids for which a wake-up is to be sent now."""
        call = _DUE(
            queued=keys.queued(kind),
            leases=keys.leases(kind),
            messages=keys.broker_queue(kind),
            kind=kind,
            max_attempts=MAX_ATTEMPTS,
            reason=_GIVEN_UP[kind],
        )
        return [id.decode() for id in run(self._redis, call)]

    def expire_lease(self, kind: Kind, woken_by: str, worker: str) -> bool:
        """For a pool process of ``worker`` that has died after the wake-up with this id; False if that worker does not
        have the job that it claimed then (any more)."""
        call = _EXPIRE(leases=keys.leases(kind), kind=kind, woken_by=woken_by, worker=worker)
        return bool(run(self._redis, call))

    def sweep(self) -> int:
        """Removes what is left of up to 100 expired episodes; returns how many."""
        call = _SWEEP(
            expiry=keys.EXPIRY,
            index=keys.index("episode"),
            queued=keys.queued("episode"),
            leases=keys.leases("episode"),
        )
        return int(run(self._redis, call))
