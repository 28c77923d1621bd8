"""``lamanas serve``: runs a private Redis, the workers and the app on this machine, and drains them at the end."""

import argparse
import fcntl
import logging
import os
import shutil
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis.exceptions import NoPermissionError

from app.settings import SHARED, Settings
from app.store.clients import SyncStore
from app.store.errors import UNAVAILABLE, LaterRelease
from app.telemetry import logs
from cli import admin, installation, private_redis
from cli.errors import CommandError
from cli.supervisor import Supervisor

log = logging.getLogger("lamanas")
REDIS_TIMEOUT_S = 30.0
# The first start on a slow disk reads all of torch.
READY_TIMEOUT_S = 180.0
FAILED_STARTS = 4
LOOK_S = 0.1
# Only for our own address, which a proxy named by the environment cannot reach.
PROXYLESS = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def add_parser(commands: Any) -> None:
    commands.add_parser(
        "serve",
        help="start everything on this machine and keep it running",
        description=(
            "Start a private Redis (unless REDIS_URL names one), an adapt worker, a train worker and the app on "
            "LAMANAS_HOST:LAMANAS_PORT; print its address and token; drain and stop on Ctrl-C or SIGTERM."
        ),
        epilog="example: LAMANAS_PORT=8080 lamanas serve",
    )


def run(args: argparse.Namespace) -> int:
    settings = Settings()
    logs.set_up("serve")
    supervisor = Supervisor()
    with sole_user(settings), supervisor.signals():
        check_port(settings)
        try:
            if _start(settings, supervisor):
                _announce(settings)
                while not supervisor.stop_asked:
                    supervisor.watch(None)
            print("stopping after running requests and adaptations finish", flush=True)
        finally:
            _stop(settings, supervisor)
    print("stopped", flush=True)
    return 0


def _start(settings: Settings, supervisor: Supervisor) -> bool:
    """Starts everything and waits until it is ready; False if asked to stop meanwhile. Raises CommandError."""
    environment = dict(os.environ)
    environment["LAMANAS_DATA_DIR"] = str(settings.data_dir)
    if settings.embedded:
        environment["REDIS_URL"] = settings.store_url
        try:
            command = private_redis.prepare(settings)
        except OSError as error:
            raise CommandError(str(error)) from error
        supervisor.start("redis", command, environment)
    store = SyncStore.open(settings)
    try:
        if not _until_redis(settings, supervisor, store):
            return False
        installation.look_at_redis(settings)
        store.installation.admit()
        admin.ensure(settings, store)
    except LaterRelease as error:
        raise CommandError(str(error)) from error
    finally:
        store.close()
    program = [sys.executable, "-m", "cli.main"]
    for name in ("adapt", "train"):
        supervisor.start(f"{name} worker", [*program, "worker", name], environment)
    if settings.app_processes > 1:
        environment = environment | {SHARED: str(_emptied(settings.metrics_dir))}
    for _ in range(settings.app_processes):
        supervisor.start("app", [*program, "app"], environment)
    return _until_ready(settings, supervisor)


def _emptied(folder: Path) -> Path:
    """The folder, created or emptied."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return folder


def _until_redis(settings: Settings, supervisor: Supervisor, store: SyncStore) -> bool:
    deadline = time.monotonic() + (REDIS_TIMEOUT_S if settings.embedded else 10)
    while not supervisor.stop_asked:
        try:
            store.ping()
            return True
        except NoPermissionError:
            return True  # it responds; what else is not permitted is found out next
        except UNAVAILABLE as error:
            where = "the private Redis" if settings.embedded else "the Redis at REDIS_URL"
            if time.monotonic() > deadline:
                raise CommandError(f"{where} does not respond: {error}") from error
            _watch_start(supervisor)
    return False


def _until_ready(settings: Settings, supervisor: Supervisor) -> bool:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not supervisor.stop_asked:
        problem = _problem(f"{admin.url(settings)}/readyz")
        if problem is None:
            return True
        if time.monotonic() > deadline:
            raise CommandError(f"not ready after {READY_TIMEOUT_S:.0f} s: {problem}")
        _watch_start(supervisor)
    return False


def _watch_start(supervisor: Supervisor) -> None:
    supervisor.watch(LOOK_S)
    for service in supervisor.services:
        if service.failed_starts >= FAILED_STARTS:
            raise CommandError(f"the {service.name} exited {FAILED_STARTS} times while starting; see its output above")


def _problem(url: str) -> str | None:
    """What is wrong with the service at this URL; None if it responds with 200."""
    try:
        with PROXYLESS.open(url, timeout=5):
            return None
    except urllib.error.HTTPError as error:
        return error.read(2000).decode(errors="replace")
    except OSError as error:
        return str(error)


def _announce(settings: Settings) -> None:
    url = admin.url(settings)
    token = admin.read(settings)
    print(f"\nLAMANAS is ready at {url} (stop it with Ctrl-C); API documentation: {url}/docs")
    if token is not None:
        # The fragment is sent to no server and appears in no log; the page exchanges the token for a cookie.
        print(f"draw, adapt and predict in a browser: {url}/#token={token}")
        print("from a shell in this folder: lamanas adapt FOLDER --watch")
        print(f"admin token: {token}   (stored in {settings.admin_token_file})")
        print(f'try:  curl -H "Authorization: Bearer {token}" {url}/models')
    print(flush=True)


def _stop(settings: Settings, supervisor: Supervisor) -> None:
    """Stops the app first, then the workers, and Redis last."""
    services = supervisor.services
    supervisor.stop([service for service in services if service.name == "app"], settings.drain_seconds)
    supervisor.stop([service for service in services if "worker" in service.name], settings.drain_seconds)
    supervisor.stop([service for service in services if service.name == "redis"], settings.drain_seconds)


@contextmanager
def sole_user(settings: Settings) -> Iterator[None]:
    """Locks the data directory for this process. Raises CommandError."""
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (settings.data_dir / "serve.lock").open("a+")
    except OSError as error:
        raise CommandError(f"the data directory cannot be used: {error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise CommandError(
                f"process {lock.read().strip()} already serves from {settings.data_dir}; "
                "stop it, or set LAMANAS_DATA_DIR to another folder"
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def check_port(settings: Settings) -> None:
    """Raises CommandError if the app could not listen."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise CommandError(f"LAMANAS_HOST={settings.host} is no address of this machine: {error.strerror}") from error
    except OSError as error:
        raise CommandError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; "
            "set LAMANAS_PORT to another port, or stop the program that listens there"
        ) from error
