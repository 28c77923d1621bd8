"""Metrics of the whole installation, read from Redis: any app process gives the same, so that one is asked for them."""

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from app.settings import Settings
from app.store.clients import Store
from app.store.errors import UNAVAILABLE
from app.store.measures import BUCKETS, COUNTERS, Counter, Figures, Name
from app.store.records import Queue, TrainingRecord
from app.store.workers import QueueState

REDIS_UP = ("lamanas_redis_up", "Whether Redis responds.")
HISTOGRAMS: dict[Name, tuple[str, str]] = {
    "queue_wait": ("lamanas_queue_wait_seconds", "Time from being queued to being claimed by an adapt worker."),
    "adapt_step": ("lamanas_adapt_step_seconds", "Time of each step of an adaptation."),
    "adapt": ("lamanas_adapt_seconds", "Time of an adaptation, including the creation of its artifact."),
}
COUNTED: dict[Counter, str] = {
    "jobs_ended": "Episodes and training runs that have ended, by outcome; an episode adapted again ends again.",
    "retries": "Attempts that failed and are repeated: after an error, or because the worker was lost.",
    "classifiers_dropped": "Classifiers dropped from the object store to make room.",
    "readaptations": "Episodes enqueued again because their classifier was dropped, or lost by the object store.",
}
QUEUES: dict[str, tuple[str, Callable[[QueueState], float | None]]] = {
    "queue_length": ("Jobs waiting for a worker.", lambda queue: queue.waiting),
    "running": ("Jobs claimed by a worker and not finished.", lambda queue: queue.running),
    "workers": ("Workers with a fresh heartbeat.", lambda queue: len(queue.workers)),
    "worker_heartbeat_age_seconds": (
        "Age of the oldest heartbeat among the workers with a fresh one.",
        lambda queue: queue.heartbeat_age,
    ),
}
TRAINING = {"epoch": "Epochs done", "epochs": "Total epochs", "loss": "Loss", "validation_accuracy": "Accuracy"}


async def exposition(store: Store, settings: Settings) -> bytes:
    """The metrics in Prometheus' text format; without Redis, only the limits and that it does not respond."""
    queues: Mapping[Queue, QueueState] = {}
    figures = None
    try:
        await store.ping()
        queues, figures = await store.workers.queues(), await store.workers.figures()
    except UNAVAILABLE:
        pass  # not even what was read just now is told: nobody knows which workers are alive
    registry = CollectorRegistry()
    registry.register(State(settings, queues, figures))
    return generate_latest(registry)


def without_redis() -> bytes:
    """What everybody may know while Redis, which has the keys, does not respond: that, as ``/readyz`` says it too."""
    registry = CollectorRegistry()
    Gauge(*REDIS_UP, registry=registry)
    return generate_latest(registry)


class State(Collector):
    """What one request has read; ``figures`` is None if Redis does not respond."""

    def __init__(self, settings: Settings, queues: Mapping[Queue, QueueState], figures: Figures | None) -> None:
        self._queues = queues
        self._figures = figures
        self._limits = {
            "queue_limit": ("Jobs that each queue may have.", settings.max_queue),
            "store_limit_bytes": ("Memory that Redis may use.", settings.max_store_bytes),
            "object_limit_bytes": ("Size that the object store may have.", settings.max_object_bytes),
        }

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(*REDIS_UP, self._figures is not None)
        for name, (help, limit) in self._limits.items():
            yield GaugeMetricFamily(f"lamanas_{name}", help, limit)
        for name, (help, value) in QUEUES.items():
            family = GaugeMetricFamily(f"lamanas_{name}", help, labels=["queue"])
            for queue, state in self._queues.items():
                if (known := value(state)) is not None:
                    family.add_metric([queue], known)
            yield family
        training = None if self._figures is None else self._figures.training
        for name, quantity in TRAINING.items():
            help = f"{quantity} of the current training run."
            yield GaugeMetricFamily(f"lamanas_training_{name}", help, _or_nan(training, name))
        if self._figures is not None:
            yield from _measured(self._figures)


def _measured(figures: Figures) -> Iterator[Metric]:
    yield GaugeMetricFamily("lamanas_store_bytes", "Memory that Redis uses.", figures.store_bytes)
    objects = GaugeMetricFamily("lamanas_object_bytes", "Bytes in the object store.", labels=["kind"])
    for kind, size in figures.object_bytes.items():
        objects.add_metric([kind], size)
    yield objects
    oldest = GaugeMetricFamily(
        "lamanas_oldest_waiting_seconds", "How long the job has waited that waits longest; 0 if none.", labels=["queue"]
    )
    for queue, seconds in figures.waiting_seconds.items():
        oldest.add_metric([queue], seconds)
    yield oldest
    for counter, help in COUNTED.items():
        family = CounterMetricFamily(f"lamanas_{counter}", help, labels=list(COUNTERS[counter]))
        for values, count in figures.counts[counter].items():
            family.add_metric(values, count)
        yield family
    for measure, (metric, help) in HISTOGRAMS.items():
        histogram = HistogramMetricFamily(metric, help)
        measured = figures.histograms[measure]
        bounds = [*(str(float(bound)) for bound in BUCKETS), "+Inf"]
        histogram.add_metric([], list(zip(bounds, accumulate(measured.counts), strict=True)), measured.sum)
        yield histogram


def _or_nan(training: TrainingRecord | None, name: str) -> float:
    value = getattr(training, name, None)
    return math.nan if value is None else float(value)
