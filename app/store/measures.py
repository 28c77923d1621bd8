"""What workers measure, added up in one hash for all of them: whichever app is asked can tell it to Prometheus."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from app.store import codec, keys
from app.store.records import Queue, TrainingRecord

Name = Literal["queue_wait", "adapt_step", "adapt"]
NAMES: tuple[Name, ...] = ("queue_wait", "adapt_step", "adapt")
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
HASH = keys.PREFIX + "measures"
# How long a worker counts as present after a beat.
PRESENCE_S = 5.0


@dataclass(frozen=True)
class Histogram:
    """How many were at most each of BUCKETS, and beyond the last; and their sum."""

    counts: tuple[int, ...]
    sum: float


@dataclass(frozen=True)
class Figures:
    """``heartbeat_age``: seconds since the beat that is longest ago, by queue; ``training``: a run that runs."""

    histograms: dict[Name, Histogram]
    heartbeat_age: dict[Queue, float]
    training: TrainingRecord | None


def add(redis: Any, measured: Mapping[Name, Iterable[float]]) -> None:
    """In one round trip."""
    with redis.pipeline(transaction=False) as pipeline:
        for name, values in measured.items():
            for value in values:
                pipeline.hincrby(HASH, f"{name}:{bisect_left(BUCKETS, value)}", 1)
                pipeline.hincrbyfloat(HASH, f"{name}:sum", value)
        pipeline.execute()


def histograms(hash: Mapping[bytes, bytes]) -> dict[Name, Histogram]:
    """Of all names, also of those that nothing was added to yet."""
    return {
        name: Histogram(
            tuple(int(hash.get(f"{name}:{number}".encode(), 0)) for number in range(len(BUCKETS) + 1)),
            float(hash.get(f"{name}:sum".encode(), 0)),
        )
        for name in NAMES
    }


async def read(redis: Any) -> Figures:
    """From the asynchronous client."""
    ages: dict[Queue, float] = {}
    for queue in keys.QUEUE_OF.values():
        async for name in redis.scan_iter(match=keys.worker(queue, "*"), count=1000):
            left = await redis.pttl(name)
            if left > 0:
                ages[queue] = max(ages.get(queue, 0.0), PRESENCE_S - left / 1000)
    running = await redis.zrevrange(keys.leases("training"), 0, 0)
    hash = await redis.hgetall(keys.record("training", running[0].decode())) if running else {}
    return Figures(histograms(await redis.hgetall(HASH)), ages, codec.training(hash) if hash else None)
