"""Metrics of an app process for Prometheus. Labels contain routes and states, never ids or names of clients."""

import os
import time
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.settings import SHARED

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


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
        self.predictions = Counter(
            "lamanas_predictions",
            "Images classified, by meta-model and whether they are of one of the classes.",
            ["model", "outcome"],
            registry=registry,
        )
        # Looking up a metric by its labels takes longer than counting.
        self._predicted = cache(self.predictions.labels)
        self.prediction_seconds = Histogram(
            "lamanas_prediction_seconds",
            "Time that the classifier takes for the images of one request.",
            buckets=SECONDS,
            registry=registry,
        )
        self.classifier_cache = Counter(
            "lamanas_classifier_cache", "Lookups of classifiers in the cache.", ["outcome"], registry=registry
        )
        self.decoding_wait = Histogram(
            "lamanas_decoding_wait_seconds",
            "Time that the images of one request wait for a decoding process.",
            buckets=SECONDS,
            registry=registry,
        )
        self.open_streams = Gauge(
            "lamanas_open_streams", "Event streams that are open.", registry=registry, multiprocess_mode="livesum"
        )
        # Of several processes that serve as one, those of the fullest: each has the whole limit.
        self.bytes_in_flight = Gauge(
            "lamanas_in_flight_bytes",
            "Bytes of the requests that are received or handled, in the process that has most.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.bytes_in_flight_limit = Gauge(
            "lamanas_in_flight_limit_bytes",
            "Bytes of requests that a process may have in hand.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        shared = os.environ.get(SHARED)
        self._exposed = CollectorRegistry() if shared else registry
        if shared:
            _forget_ended(Path(shared))
            MultiProcessCollector(self._exposed, shared)  # type: ignore[no-untyped-call]

    def classified(self, model: str, images: int, unknown: int | None) -> None:
        """Counts images classified by a classifier of this meta-model, and how many of them are of none of its classes
        (None: it does not tell)."""
        if unknown is None:
            self._predicted(model, "unjudged").inc(images)
        else:
            self._predicted(model, "unknown").inc(unknown)
            self._predicted(model, "known").inc(images - unknown)

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._exposed)


def _forget_ended(folder: Path) -> None:
    """Forgets what processes had in hand that have ended: one that was killed could not say so."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if not Path("/proc", pid).exists():
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


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
