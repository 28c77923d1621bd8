"""The HTTP app: its parts, startup and shutdown."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from app import openapi
from app.http import problems
from app.http.limits import BytesInFlight, Streams
from app.http.middleware import HeadRequests, SecurityHeaders, SizeLimits, StoreTime, UnexpectedErrors
from app.images.pool import Decoder
from app.inference.cache import ClassifierCache
from app.routes import episodes, models, pages, predict, session, system, training
from app.services import Services
from app.settings import Settings
from app.store.clients import Store
from app.telemetry.metrics import MeasureRequests, Metrics
from app.telemetry.requests import LogRequests

VERSION = "0.1.0"
# What pages of other sites may send and read. They have a token: without X-Requested-With, no cookie of ours is of use
# to them (see app/http/auth.py).
CORS_REQUEST_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Prefer", "X-Request-ID")
CORS_RESPONSE_HEADERS = (
    "Content-Disposition",
    "ETag",
    "Idempotency-Replayed",
    "Location",
    "Preference-Applied",
    "Retry-After",
    "X-Request-ID",
)


def create_app(settings: Settings) -> FastAPI:
    """The app for these settings; it connects to Redis when it starts."""
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        store = await Store.open(settings)
        decoder = Decoder(max_pixels=settings.max_pixels, waited=metrics.decoding_wait.observe)
        classifiers = ClassifierCache(store, metrics, capacity=settings.predictor_cache)
        services = Services(settings, store, decoder, classifiers, metrics, Streams(settings.max_streams))
        app.state.services = services
        _drain_on_signals(services.draining)
        try:
            yield
        finally:
            services.draining.set()
            classifiers.close()
            decoder.close()
            await store.close()

    app = FastAPI(
        title="LAMANAS",
        version=VERSION,
        description=openapi.DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # replaced by /docs in routes/pages.py: FastAPI's pages load scripts from another host
        redoc_url=None,
        redirect_slashes=False,  # see app/http/problems.py: FastAPI's redirect leads past a proxy
        telemetry={"tracing": False, "metrics": False, "logs": False},  # see app/telemetry
    )
    # Added to the app itself, as its first routes: an included router would be searched twice for each request.
    app.router.routes[:0] = predict.router.routes
    routers = (module.router for module in (episodes, training, models, session))
    for router in (*routers, pages.examples_router, system.router, pages.router):
        app.include_router(router)
    app.mount("/static", GZipMiddleware(pages.Static(directory=pages.FOLDER)))
    problems.install(app)
    openapi.install(app)
    # The last one added is the outermost.
    app.add_middleware(StoreTime)
    app.add_middleware(HeadRequests)
    app.add_middleware(UnexpectedErrors)
    metrics.bytes_in_flight_limit.set(settings.max_bytes_in_flight)
    in_flight = BytesInFlight(settings.max_bytes_in_flight, metrics.bytes_in_flight.set)
    app.add_middleware(SizeLimits, max_body_bytes=settings.max_request_bytes, in_flight=in_flight)
    app.add_middleware(MeasureRequests, metrics=metrics)
    app.add_middleware(SecurityHeaders)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=CORS_REQUEST_HEADERS,
            expose_headers=CORS_RESPONSE_HEADERS,
        )
    app.add_middleware(LogRequests)
    return app


def _drain_on_signals(draining: asyncio.Event) -> None:
    """Ends event streams and waiting requests at the signal: the server waits for them before it shuts the app down."""
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)
        if not callable(before):
            continue

        def handle(got: int, frame: FrameType | None, before: object = before) -> None:
            loop.call_soon_threadsafe(draining.set)
            if callable(before):
                before(got, frame)

        signal.signal(number, handle)
