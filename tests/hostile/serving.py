"""A service for hostile clients: the real app behind a real server, on a real Redis, with a worker that is quick."""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.settings import Settings
from app.store import keys
from app.store.clients import SyncStore
from app.store.errors import NotFound
from cli import private_redis
from tests.app.playing import CARD, Worker
from tests.conftest import ROOT, PrivateRedis, free_port, test_settings
from tests.waiting import PATIENCE_S, changes, family


@dataclass(frozen=True)
class Target:
    """``pid`` is the app's, which runs in a process of its own so that its memory can be measured."""

    url: str
    token: str
    pid: int
    settings: Settings

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def peak_bytes(self) -> int:
        """The most memory that the app and its decoding processes have had each, in all."""
        total = 0
        for pid in family(self.pid):
            with suppress(FileNotFoundError):  # a decoder that ended just now
                status = (Path("/proc") / str(pid) / "status").read_text()
                found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
                total += int(found[1]) * 1024 if found else 0
        return total


@contextmanager
def serving(**environment: str) -> Iterator[Target]:
    """The target, until the block ends; the app is then asked to stop and must end well."""
    folder = Path(tempfile.mkdtemp(prefix="lam-"))
    settings = test_settings(folder)
    server = PrivateRedis(settings, private_redis.start(settings))
    server.client.ping()
    store = SyncStore.open(settings)
    store.models.register("0123456789abcdef", b"weights", CARD)
    Worker(store).send_heartbeat()
    _, token = store.api_keys.create("hostile", ["admin"])
    try:
        with _working(store, server), _app(settings, environment) as (process, url):
            yield Target(url, token, process.pid, settings)
            assert process.poll() is None, "the app ended"
    finally:
        store.close()
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _app(settings: Settings, environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    port = str(free_port())
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LAMANAS_", "REDIS_"))}
    changed = {"REDIS_URL": settings.store_url, "LAMANAS_DATA_DIR": str(settings.data_dir), "LAMANAS_PORT": port}
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.tether", str(os.getpid()), sys.executable, "-m", "cli.main", "app"],
        cwd=ROOT,
        env=inherited | changed | environment,
        start_new_session=True,
    )
    try:
        _until_listening(process, int(port))
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) in (0, -signal.SIGTERM)


def _until_listening(process: subprocess.Popen[bytes], port: int) -> None:
    import socket

    handle = os.pidfd_open(process.pid)
    try:
        for _ in range(600):
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                return
            ended, _, _ = select.select([handle], [], [], 0.1)
            assert not ended, "the app did not start"
    finally:
        os.close(handle)
    raise AssertionError("the app does not listen")


@contextmanager
def _working(store: SyncStore, server: PrivateRedis) -> Iterator[None]:
    """Adapts and trains whatever waits, at once."""
    stop = threading.Event()
    waiting = (keys.queued("episode"), keys.queued("training"))

    worker = Worker(store)

    def due() -> bool:
        worker.send_heartbeat()  # called every half second
        return stop.is_set() or any(server.client.zcard(queue) for queue in waiting)

    def work() -> None:
        with changes(server.client, keys.CHANGES) as changed:
            while not stop.is_set():
                changed.until(due, "work", 3600)
                for queue in waiting:
                    ids: Any = server.client.zrange(queue, 0, -1)
                    for id in ids:
                        _do(worker, "episode" if queue == waiting[0] else "training", id.decode())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        server.client.publish(keys.CHANGES, "the end")
        thread.join()


def _do(worker: Worker, kind: Any, id: str) -> None:
    claim = worker.store.claims.claim(kind, id, "played")
    if claim is None:  # deleted or cancelled meanwhile
        return
    if kind == "training":
        worker.store.claims.commit_training(claim, "fedcba9876543210", b"weights", CARD)
        return
    with suppress(AssertionError, NotFound):  # deleted meanwhile
        worker.finish(claim)
