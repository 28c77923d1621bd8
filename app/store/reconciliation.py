"""Reconciliation: enqueues jobs whose lease has expired, finds lost wake-ups, and removes expired episodes."""

from collections.abc import Iterator
from typing import Any

from redis import Redis

from app.store import keys
from app.store.claims import MAX_ATTEMPTS
from app.store.errors import refusals_named
from app.store.keys import Kind
from app.store.objects import Objects, delete_dropped, name_in, owner_of, support_name
from app.store.registry import run, script

_ENDED = f"the worker died {MAX_ATTEMPTS} times, or was ended because it took too long,"
_GIVEN_UP: dict[Kind, str] = {
    "episode": f"{_ENDED} while adapting this episode; it was given up",
    "training": f"{_ENDED} without getting any further; the run was given up",
}
_DUE = script("due")
_EXPIRE = script("expire_lease")
_SWEEP = script("sweep")
_ADOPT = script("adopt_support")
# A support set is named within half an hour (see create_episode.lua), or never; the rest is for clocks that differ. A
# classifier is named when its worker reaches Redis: should it be swept before, it is made again on request.
UNNAMED_S = 3600


class Reconciliation:
    """What brings back the jobs of dead workers. Blocking; every method may raise ``errors.UNAVAILABLE``."""

    def __init__(self, redis: Redis, objects: Objects) -> None:
        self._redis: Any = redis
        self._objects = objects

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
        """For a pool process of ``worker`` that has died after the wake-up with this id; False if that worker has none
        of the jobs that it claimed then (any more)."""
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
        count, dropped = run(self._redis, call)
        delete_dropped(self._objects, dropped)
        return int(count)

    def take_turn(self) -> bool:
        """Whether this worker is the one that removes leftovers in this hour."""
        return bool(self._redis.set(keys.LEFTOVERS_REMOVED, "", nx=True, ex=UNNAMED_S))

    def unnamed_objects(self) -> Iterator[list[str]]:
        """The objects that nobody names and that are old enough to be named by nobody any more."""
        for stored in self._objects.all():
            if unnamed := self._unnamed([each.name for each in stored if each.age > UNNAMED_S]):
                yield unnamed

    def delete_objects(self, names: list[str]) -> None:
        self._objects.delete(names)

    def remove_drafts(self) -> None:
        """Removes what writers that were killed left behind of objects."""
        self._objects.remove_drafts(UNNAMED_S)

    def adopt_former(self) -> int:
        """Moves support sets that earlier versions kept in Redis into the object store; returns how many. (Their
        classifiers are adapted again on request.) Once it has ended, it does nothing any more."""
        if self._redis.exists(keys.FORMER_ADOPTED):
            return 0
        adopted = 0
        for entry, _ in self._redis.zscan_iter(keys.EXPIRY):
            id = entry.decode().partition(" ")[0]
            images = self._redis.get(keys.former_support(id))
            if images is not None:
                name = support_name(id, images)
                self._objects.put(name, images)
                call = _ADOPT(
                    record=keys.record("episode", id),
                    former=keys.former_support(id),
                    id=id,
                    support=name,
                    bytes=len(images),
                )
                adopted += int(run(self._redis, call))
        with refusals_named():
            self._redis.set(keys.FORMER_ADOPTED, "")
        return adopted

    def _unnamed(self, names: list[str]) -> list[str]:
        with self._redis.pipeline(transaction=False) as reads:
            for name in names:
                for hash in (keys.SUPPORT_SETS, keys.CLASSIFIERS, keys.CHECKPOINTS):
                    reads.hget(hash, owner_of(name))
            *entries, datasets, backbones = reads.hvals(keys.DATASETS).hvals(keys.BACKBONES).execute()
        named = {name_in(entry) for entry in (*entries, *datasets, *backbones) if entry is not None}
        return [name for name in names if name not in named]
