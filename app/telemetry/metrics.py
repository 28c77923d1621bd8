"""What Prometheus reads. Labels hold routes and states, never ids or names of clients."""

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
    "queue_wait": ("lamanas_queue_wait_seconds", "From being queued to being claimed by an adapt worker."),
    "adapt_step": ("lamanas_adapt_step_seconds", "Time of each step of an adaptation."),
    "adapt": ("lamanas_adapt_seconds", "Time of an adaptation, steps and artifact."),
}
QUEUES = {
    "queue_length": "Waiting for a worker.",
    "running": "Claimed by a worker and unfinished.",
    "workers": "Workers that beat.",
}
AGE = "Since the beat that is longest ago of the workers that count as present."
TRAINING = {"epoch": "Epochs done", "epochs": "All epochs", "loss": "Loss", "validation_accuracy": "Accuracy"}


class Metrics:
    """One registry for each app, so that several can live in one process; where several processes are one app, they
    share their counts in the folder that SHARED names, and each tells those of all."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "lamanas_http_requests", "Answered requests.", ["method", "route", "status"], registry=registry
        )
        self.latency = Histogram(
            "lamanas_http_request_seconds",
            "Time to the start of the answer.",
            ["method", "route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.predictions = Counter("lamanas_predictions", "Images classified.", registry=registry)
        self.prediction_seconds = Histogram(
            "lamanas_prediction_seconds",
            "Time in the classifier for the images of one request.",
            buckets=SECONDS,
            registry=registry,
        )
        self.classifier_cache = Counter(
            "lamanas_classifier_cache", "Classifiers asked for.", ["outcome"], registry=registry
        )
        self._state = State()
        shared = os.environ.get(SHARED)
        self._told = CollectorRegistry() if shared else registry
        if shared:
            MultiProcessCollector(self._told, shared)  # type: ignore[no-untyped-call]
        self._told.register(self._state)

    async def exposition(self, store: Store) -> bytes:
        """Prometheus' text format, with the state of the queues as it is now."""
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
            self._state.redis = False
        return generate_latest(self._told)


class State(Collector):
    """What was last read in Redis. It is of the whole installation: each app process tells the same."""

    by_queue: Mapping[str, Mapping[Queue, int]] = {}
    figures: Figures | None = None
    redis = False

    def collect(self) -> Iterator[Metric]:
        for name, words in QUEUES.items():
            yield _by_queue(name, words, self.by_queue.get(name, {}))
        ages = {} if self.figures is None else self.figures.heartbeat_age
        yield _by_queue("worker_heartbeat_age_seconds", AGE, ages)
        training = None if self.figures is None else self.figures.training
        for name, words in TRAINING.items():
            words = f"{words} of the training run that runs."
            yield GaugeMetricFamily(f"lamanas_training_{name}", words, _or_nan(training, name))
        yield GaugeMetricFamily("lamanas_redis_up", "Whether Redis answers.", self.redis)
        for measure, (metric, words) in WORKERS.items():
            family = HistogramMetricFamily(metric, words)
            if self.figures is not None:
                measured = self.figures.histograms[measure]
                bounds = [*(str(float(bound)) for bound in BUCKETS), "+Inf"]
                family.add_metric([], list(zip(bounds, accumulate(measured.counts), strict=True)), measured.sum)
            yield family


def _by_queue(name: str, words: str, values: Mapping[Queue, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"lamanas_{name}", words, labels=["queue"])
    for queue, value in values.items():
        family.add_metric([queue], value)
    return family


def _or_nan(training: TrainingRecord | None, name: str) -> float:
    value = getattr(training, name, None)
    return math.nan if value is None else float(value)


class MeasureRequests:
    """Counts and times every request by the route that it matched."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app = app
        # Looking a metric up by its labels takes longer than to count.
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
