"""The objects that one app process shares among its requests, and the dependency that provides them."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request

from app.http.limits import Streams
from app.images.pool import Decoder
from app.inference.cache import ClassifierCache
from app.settings import Settings
from app.store.clients import Store
from app.telemetry.metrics import Metrics


@dataclass(frozen=True)
class Services:
    """``draining`` is set once the process is shutting down: from then on it starts no long-running work."""

    settings: Settings
    store: Store
    decoder: Decoder
    classifiers: ClassifierCache
    metrics: Metrics
    streams: Streams
    draining: asyncio.Event = field(default_factory=asyncio.Event)


async def current_services(request: Request) -> Services:
    # A coroutine, since FastAPI would run a plain function in a thread, which takes longer than a small request.
    return cast(Services, request.app.state.services)


CurrentServices = Annotated[Services, Depends(current_services)]
