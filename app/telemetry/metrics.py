"""Metrics for Prometheus. Labels contain routes and states, never ids or names of clients."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
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
from app.store.workers import QueueState

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


WORKERS: dict[Name, tuple[str, str]] = {
    "queue_wait": ("lamanas_queue_wait_seconds", "Time from being queued to being claimed by an adapt worker."),
    "adapt_step": ("lamanas_adapt_step_seconds", "Time of each step of an adaptation."),
    "adapt": ("lamanas_adapt_seconds", "Time of an adaptation, including the creation of its artifact."),
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
            self._state.queues = await store.workers.queues()
            self._state.figures = await store.workers.figures()
            self._state.redis = True
        except UNAVAILABLE:
            # Not what was read last: nobody knows which workers are alive now.
            self._state.queues, self._state.figures, self._state.redis = {}, None, False
        return generate_latest(self._exposed)


class State(Collector):
    """The state read from Redis, if that responds. It describes the whole installation: each app process exposes the
    same."""

    queues: Mapping[Queue, QueueState] = {}
    figures: Figures | None = None
    redis = False

    def collect(self) -> Iterator[Metric]:
        for name, (help, value) in QUEUES.items():
            family = GaugeMetricFamily(f"lamanas_{name}", help, labels=["queue"])
            for queue, state in self.queues.items():
                if (known := value(state)) is not None:
                    family.add_metric([queue], known)
            yield family
        training = None if self.figures is None else self.figures.training
        for name, quantity in TRAINING.items():
            help = f"{quantity} of the current training run."
            yield GaugeMetricFamily(f"lamanas_training_{name}", help, _or_nan(training, name))
        yield GaugeMetricFamily("lamanas_redis_up", "Whether Redis responds.", self.redis)
        for measure, (metric, help) in WORKERS.items():
            histogram = HistogramMetricFamily(metric, help)
            if self.figures is not None:
                measured = self.figures.histograms[measure]
                bounds = [*(str(float(bound)) for bound in BUCKETS), "+Inf"]
                histogram.add_metric([], list(zip(bounds, accumulate(measured.counts), strict=True)), measured.sum)
            yield histogram


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
