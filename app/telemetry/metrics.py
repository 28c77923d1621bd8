"""Metrics for Prometheus. Labels contain routes and states, never ids or names of clients."""

import math
import os
import time
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.settings import SHARED
from app.store.clients import Store
from app.store.errors import UNAVAILABLE
from app.store.measures import BUCKETS, Figures, Name
from app.store.records import Queue, TrainingRecord

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


WORKERS: dict[Name, tuple[str, str]] = {
    "queue_wait": ("lamanas_queue_wait_seconds", "Time from being queued to being claimed by an adapt worker."),
    "adapt_step": ("lamanas_adapt_step_seconds", "Time of each step of an adaptation."),
    "adapt": ("lamanas_adapt_seconds", "Time of an adaptation, including the creation of its artifact."),
}
QUEUES = {
    "queue_length": "Jobs waiting for a worker.",
    "running": "Jobs claimed by a worker and not finished.",
    "workers": "Workers with a fresh heartbeat.",
}
AGE = "Age of the oldest heartbeat among the workers with a fresh one."
TRAINING = {"epoch": "Epochs done", "epochs": "Total epochs", "loss": "Loss", "validation_accuracy": "Accuracy"}


class Metrics:
    """The metrics of an app. Each app has its own registry, so that several apps can run in one process.

    If the variable SHARED is set, several processes serve as one app: they share their counts in the folder that it
    names, and each process exposes the totals.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "lamanas_http_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self.latency = Histogram(
            "lamanas_http_request_seconds",
            "Time to the start of the response.",
            ["method", "route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.predictions = Counter("lamanas_predictions", "Images classified.", registry=registry)
        self.prediction_seconds = Histogram(
            "lamanas_prediction_seconds",
            "Time that the classifier takes for the images of one request.",
            buckets=SECONDS,
            registry=registry,
        )
        self.classifier_cache = Counter(
            "lamanas_classifier_cache", "Lookups of classifiers in the cache.", ["outcome"], registry=registry
        )
        self._state = State()
        shared = os.environ.get(SHARED)
        self._exposed = CollectorRegistry() if shared else registry
        if shared:
            MultiProcessCollector(self._exposed, shared)  # type: ignore[no-untyped-call]
        self._exposed.register(self._state)

    async def exposition(self, store: Store) -> bytes:
        """All metrics in Prometheus' text format, with the current state of the queues."""
        try:
            await store.ping()
            self._state.by_queue = {
                "queue_length": await store.workers.queue_lengths(),
                "running": await store.workers.running(),
                "workers": {queue: len(workers) for queue, workers in (await store.workers.alive()).items()},
            }
            self._state.figures = await store.workers.figures()
            self._state.redis = True
        except UNAVAILABLE:
            # Not what was read last: nobody knows which workers are alive now.
            self._state.by_queue, self._state.figures, self._state.redis = {}, None, False
        return generate_latest(self._exposed)


class State(Collector):
    """The state read from Redis, if that responds. It describes the whole installation: each app process exposes the
    same."""

    by_queue: Mapping[str, Mapping[Queue, int]] = {}
    figures: Figures | None = None
    redis = False

    def collect(self) -> Iterator[Metric]:
        for name, help in QUEUES.items():
            yield _by_queue(name, help, self.by_queue.get(name, {}))
        ages = {} if self.figures is None else self.figures.heartbeat_age
        yield _by_queue("worker_heartbeat_age_seconds", AGE, ages)
        training = None if self.figures is None else self.figures.training
        for name, quantity in TRAINING.items():
            help = f"{quantity} of the current training run."
            yield GaugeMetricFamily(f"lamanas_training_{name}", help, _or_nan(training, name))
        yield GaugeMetricFamily("lamanas_redis_up", "Whether Redis responds.", self.redis)
        for measure, (metric, help) in WORKERS.items():
            family = HistogramMetricFamily(metric, help)
            if self.figures is not None:
                measured = self.figures.histograms[measure]
                bounds = [*(str(float(bound)) for bound in BUCKETS), "+Inf"]
                family.add_metric([], list(zip(bounds, accumulate(measured.counts), strict=True)), measured.sum)
            yield family


def _by_queue(name: str, help: str, values: Mapping[Queue, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"lamanas_{name}", help, labels=["queue"])
    for queue, value in values.items():
        family.add_metric([queue], value)
    return family


def _or_nan(training: TrainingRecord | None, name: str) -> float:
    value = getattr(training, name, None)
    return math.nan if value is None else float(value)


class MeasureRequests:
    """Counts and times every request by its route."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app = app
        # Looking up a metric by its labels takes longer than counting.
        self._requests, self._latency = cache(metrics.requests.labels), cache(metrics.latency.labels)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()

        async def measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "unmatched")
                self._requests(scope["method"], route, str(message["status"])).inc()
                self._latency(scope["method"], route).observe(time.perf_counter() - started)
            await send(message)

        await self.app(scope, receive, measured)
