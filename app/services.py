"""What one app process needs to serve requests, and how a route gets at it."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request

from app.images.pool import Decoder
from app.inference.answers import Answers
from app.inference.cache import Predictor
from app.settings import Settings
from app.store.async_store import Store
from app.telemetry.metrics import Metrics


@dataclass(frozen=True)
class Services:
    """``draining`` is set once the process was told to end: from then on it begins nothing that lasts."""

    settings: Settings
    store: Store
    decoder: Decoder
    predictor: Predictor
    answers: Answers
    metrics: Metrics
    draining: asyncio.Event = field(default_factory=asyncio.Event)


async def get_services(request: Request) -> Services:
    # Not a plain function: FastAPI would run that in a thread, which costs more than the rest of a small request.
    return cast(Services, request.app.state.services)


ServicesDep = Annotated[Services, Depends(get_services)]
