"""What one app process holds while it runs, and how a request gets at it."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request

from app.images.pool import Decoder
from app.inference.cache import ClassifierCache
from app.settings import Settings
from app.store.clients import Store
from app.telemetry.metrics import Metrics


@dataclass(frozen=True)
class Services:
    """``draining`` is set once the process was told to end: it then begins nothing that lasts."""

    settings: Settings
    store: Store
    decoder: Decoder
    classifiers: ClassifierCache
    metrics: Metrics
    draining: asyncio.Event = field(default_factory=asyncio.Event)


async def current_services(request: Request) -> Services:
    # Not a plain function: FastAPI would run that in a thread, which costs more than the rest of a small request.
    return cast(Services, request.app.state.services)


CurrentServices = Annotated[Services, Depends(current_services)]
