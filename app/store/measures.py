"""What workers measure and scripts count, in one hash, so that any app process can report it to Prometheus."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, get_args

from app.store import keys
from app.store.keys import Kind
from app.store.records import Queue, TrainingRecord

Name = Literal["queue_wait", "adapt_step", "adapt"]
NAMES: tuple[Name, ...] = ("queue_wait", "adapt_step", "adapt")
# Upper bounds, in seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
Counter = Literal["jobs_ended", "retries", "classifiers_dropped", "readaptations"]
# What scripts count (``count`` in lua/shared/common.lua): the labels of each counter, and which values each label has.
COUNTERS: Mapping[Counter, Mapping[str, tuple[str, ...]]] = {
    "jobs_ended": {"kind": get_args(Kind), "outcome": ("done", "failed", "cancelled")},
    "retries": {"kind": get_args(Kind), "reason": ("error", "worker-lost")},
    "classifiers_dropped": {},
    "readaptations": {"reason": ("dropped", "lost")},
}
Counts = Mapping[Counter, Mapping[tuple[str, ...], int]]


@dataclass(frozen=True)
class Histogram:
    """``counts``: how many values lie in each bucket, and how many above the last bound; ``sum``: of all values."""

    counts: tuple[int, ...]
    sum: float


@dataclass(frozen=True)
class Figures:
    """``counts``: of each counter, by the values of its labels; ``store_bytes``: the memory that Redis uses;
    ``object_bytes``: of support sets and of classifiers; ``waiting_seconds``: how long the job of each queue has waited
    that waits longest, 0 if none does; ``training``: a run that is active."""

    histograms: dict[Name, Histogram]
    counts: Counts
    store_bytes: int
    object_bytes: Mapping[str, int]
    waiting_seconds: Mapping[Queue, float]
    training: TrainingRecord | None


def add(redis: Any, measured: Mapping[Name, Iterable[float]]) -> None:
    """Adds seconds, by a blocking client, in one round trip."""
    with redis.pipeline(transaction=False) as pipeline:
        for name, values in measured.items():
            for value in values:
                pipeline.hincrby(keys.MEASUREMENTS, f"{name}:{bisect_left(BUCKETS, value)}", 1)
                pipeline.hincrbyfloat(keys.MEASUREMENTS, f"{name}:sum", value)
        pipeline.execute()


def histograms(hash: Mapping[bytes, bytes]) -> dict[Name, Histogram]:
    """Of all names, also of those for which nothing has been measured yet."""
    return {
        name: Histogram(
            tuple(int(hash.get(f"{name}:{number}".encode(), 0)) for number in range(len(BUCKETS) + 1)),
            float(hash.get(f"{name}:sum".encode(), 0)),
        )
        for name in NAMES
    }


def counts(hash: Mapping[bytes, bytes]) -> Counts:
    """Of all counters with all values of their labels, also of those that nothing was counted for yet: Prometheus sees
    no increase from nothing to 1."""
    return {
        name: {
            values: int(hash.get(":".join((name, *values)).encode(), 0)) for values in product(*COUNTERS[name].values())
        }
        for name in COUNTERS
    }
