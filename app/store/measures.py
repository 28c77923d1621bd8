"""What workers measure, added up in one hash for all of them, so that any app process can report it to Prometheus."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from app.store import keys
from app.store.records import TrainingRecord

Name = Literal["queue_wait", "adapt_step", "adapt"]
NAMES: tuple[Name, ...] = ("queue_wait", "adapt_step", "adapt")
# Upper bounds, in seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


@dataclass(frozen=True)
class Histogram:
    """``counts``: how many values lie in each bucket, and how many above the last bound; ``sum``: of all values."""

    counts: tuple[int, ...]
    sum: float


@dataclass(frozen=True)
class Figures:
    """``training``: a run that is active."""

    histograms: dict[Name, Histogram]
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
