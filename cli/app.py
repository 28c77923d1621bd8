"""``lamanas app``: one process of the HTTP app."""

import argparse
import gc
import logging
import os
import signal
import socket
from types import FrameType
from typing import Any

import uvicorn

from app.settings import SHARED, Settings
from app.store.clients import SyncStore
from app.store.errors import UNAVAILABLE
from app.telemetry import logs, tracing
from cli import admin
from cli.errors import CommandError

log = logging.getLogger("lamanas")
BACKLOG = 2048


def add_parser(commands: Any) -> None:
    commands.add_parser(
        "app",
        help="run the HTTP app alone (for compose)",
        description="Run the HTTP app on LAMANAS_HOST:LAMANAS_PORT; its Redis is REDIS_URL.",
        epilog="example: REDIS_URL=redis://127.0.0.1:6379/0 lamanas app",
    )


def run(args: argparse.Namespace) -> int:
    from app.main import create_app

    signal.signal(signal.SIGTERM, _end)
    settings = Settings()
    logs.set_up("app")
    tracing.set_up("app")
    ensure_admin(settings)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings),
            host=settings.host,
            port=settings.port,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=min(10, settings.drain_seconds),
        )
    )
    # What is there now stays: the collector need not look through it again and again, for milliseconds each time.
    gc.collect()
    gc.freeze()
    server.run(sockets=_shared(settings) if SHARED in os.environ else None)
    return 0 if server.started else 1


def _end(number: int, frame: FrameType | None) -> None:
    """Ends in order. The server, shut down, sends itself the signal that it got: unhandled, that would end the process
    before the decoders' temporary folder is removed."""
    raise SystemExit(0)


def ensure_admin(settings: Settings) -> None:
    """Makes the admin token a key. Raises CommandError."""
    store = SyncStore.open(settings)
    try:
        admin.ensure(settings, store)
    except admin.RevokedError as error:
        log.warning("%s", error)  # no reason to refuse those who have other keys when an app process is replaced
    except UNAVAILABLE as error:
        raise CommandError(f"Redis does not answer: {error}") from error
    finally:
        store.close()


def _shared(settings: Settings) -> list[socket.socket]:
    """Sockets at the port that all app processes of an installation listen on; the kernel deals connections out."""
    found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return [
        socket.create_server(address[:2], family=family, backlog=BACKLOG, reuse_port=True)
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found)
    ]
