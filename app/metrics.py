"""What Prometheus reads. Labels hold routes and states, never ids or names of clients."""

import math
import time
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.store.async_store import Store
from app.store.errors import UNAVAILABLE
from app.store.measures import BUCKETS, Figures, Name
from app.store.records import TrainingRecord

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


WORKERS: dict[Name, tuple[str, str]] = {
    "queue_wait": ("lamanas_queue_wait_seconds", "From being queued to being claimed by an adapt worker."),
    "adapt_step": ("lamanas_adapt_step_seconds", "Time of each step of an adaptation."),
    "adapt": ("lamanas_adapt_seconds", "Time of an adaptation, steps and artifact."),
}
TRAINING = {"epoch": "Epochs done", "epochs": "All epochs", "loss": "Loss", "validation_accuracy": "Accuracy"}


class Metrics:
    """One registry for each app, so that several can live in one process."""

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
        self._queues = Gauge("lamanas_queue_length", "Waiting for a worker.", ["queue"], registry=registry)
        self._running = Gauge("lamanas_running", "Claimed by a worker and unfinished.", ["queue"], registry=registry)
        self._workers = Gauge("lamanas_workers", "Workers that beat.", ["queue"], registry=registry)
        self._ages = Gauge(
            "lamanas_worker_heartbeat_age_seconds",
            "Since the beat that is longest ago of the workers that count as present.",
            ["queue"],
            registry=registry,
        )
        self._training = {
            name: Gauge(f"lamanas_training_{name}", f"{words} of the training run that runs.", registry=registry)
            for name, words in TRAINING.items()
        }
        self._measured = Measured()
        registry.register(self._measured)
        self._redis = Gauge("lamanas_redis_up", "Whether Redis answers.", registry=registry)

    async def exposition(self, store: Store) -> bytes:
        """Prometheus' text format, with the state of the queues as it is now."""
        try:
            await store.ping()
            for queue, length in (await store.observed.queue_lengths()).items():
                self._queues.labels(queue).set(length)
            for queue, workers in (await store.observed.workers()).items():
                self._workers.labels(queue).set(len(workers))
            for queue, number in (await store.observed.running()).items():
                self._running.labels(queue).set(number)
            self._tell(await store.observed.figures())
            self._redis.set(1)
        except UNAVAILABLE:
            self._redis.set(0)
        return generate_latest(self.registry)

    def _tell(self, figures: Figures) -> None:
        self._measured.figures = figures
        self._ages.clear()
        for queue, age in figures.heartbeat_age.items():
            self._ages.labels(queue).set(age)
        for name, gauge in self._training.items():
            gauge.set(_or_nan(figures.training, name))


def _or_nan(training: TrainingRecord | None, name: str) -> float:
    value = getattr(training, name, None)
    return math.nan if value is None else float(value)


class Measured(Collector):
    """What the workers have measured. It is of the whole installation: each app process tells the same."""

    figures: Figures | None = None

    def collect(self) -> Iterator[HistogramMetricFamily]:
        for name, (metric, words) in WORKERS.items():
            family = HistogramMetricFamily(metric, words)
            if self.figures is not None:
                measured = self.figures.histograms[name]
                bounds = [*(str(float(bound)) for bound in BUCKETS), "+Inf"]
                family.add_metric([], list(zip(bounds, accumulate(measured.counts), strict=True)), measured.sum)
            yield family


class MeasureRequests:
    """Counts and times every request by the route that it matched."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()

        async def measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "unmatched")
                self.metrics.requests.labels(scope["method"], route, str(message["status"])).inc()
                self.metrics.latency.labels(scope["method"], route).observe(time.perf_counter() - started)
            await send(message)

        await self.app(scope, receive, measured)
