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
from app.store.errors import UNAVAILABLE, LaterRelease
from app.telemetry import logs, tracing
from cli import admin, installation
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
    signal.signal(signal.SIGTERM, _end)
    settings = Settings()
    os.environ["LAMANAS_DATA_DIR"] = str(settings.data_dir)  # .env may set it; backbones are found by it
    logs.set_up("app")
    tracing.set_up("app")
    installation.look_at_redis(settings)
    ensure_admin(settings)
    server = uvicorn.Server(server_config(settings))
    # What exists now stays: without this, each full collection would scan it again, for milliseconds.
    gc.collect()
    gc.freeze()
    server.run(sockets=_shared(settings) if SHARED in os.environ else None)
    return 0 if server.started else 1


def server_config(settings: Settings) -> uvicorn.Config:
    """The app with these settings, and how it is served."""
    from app.main import create_app

    return uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=min(10, settings.drain_seconds),
    )


def _end(number: int, frame: FrameType | None) -> None:
    """Exits in order. After its shutdown, the server raises the signal again: unhandled, it would end the process
    before the decoders' temporary folder is removed."""
    raise SystemExit(0)


def ensure_admin(settings: Settings) -> None:
    """Registers the admin token as a key. Raises CommandError."""
    store = SyncStore.open(settings)
    try:
        store.installation.admit()
        admin.ensure(settings, store)
    except LaterRelease as error:
        raise CommandError(str(error)) from error
    except admin.RevokedError as error:
        log.warning("%s", error)  # other keys are valid, so a replaced app process must start
    except UNAVAILABLE as error:
        raise CommandError(f"Redis does not respond: {error}") from error
    finally:
        store.close()


def _shared(settings: Settings) -> list[socket.socket]:
    """Sockets on the port that all app processes share; the kernel distributes the connections."""
    found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return [
        socket.create_server(address[:2], family=family, backlog=BACKLOG, reuse_port=True)
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found)
    ]
