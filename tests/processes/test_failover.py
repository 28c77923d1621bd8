"""Sentinels replace a primary that is killed under load: nothing that was accepted is lost, and the service goes on."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

from app.store import keys
from app.store.clients import SyncStore
from tests.app.conftest import serving
from tests.app.test_episodes import as_json
from tests.chaos.waiting import until
from tests.replicated import Sentinelled, sentinelled
from tests.waiting import PATIENCE_S
from tests.workers.conftest import Worker
from tests.workers.fake_learner import GATE, STARTED

SENDERS = 3
SOME = 15


class Load:
    """Clients that submit an episode after the other, without trying again."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(SENDERS)]
        self.accepted: list[str] = []
        self.refused = 0

    def _send(self) -> None:
        while not self._stop.is_set():
            answer = self._client.post("/episodes", **as_json())
            with self._changed:
                if answer.status_code == 202:
                    self.accepted.append(answer.json()["id"])
                else:
                    assert answer.status_code in (429, 503), answer.text
                    assert "retry-after" in answer.headers
                    self.refused += 1
                self._changed.notify_all()
            if answer.status_code != 202:
                self._stop.wait(0.1)

    def until(self, holds: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(holds, PATIENCE_S)

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()


def events(client: httpx.Client, id: str) -> list[str]:
    """The names of all events of an episode's stream, which ends with the episode."""
    with client.stream("GET", f"/episodes/{id}/events") as stream:
        return [line.removeprefix("event: ") for line in stream.iter_lines() if line.startswith("event: ")]


def test_nothing_accepted_is_lost_when_the_primary_is_killed_under_load(short_folder: Path) -> None:
    with ThreadPoolExecutor(1) as pool, sentinelled(short_folder) as redis, working(redis) as client:
        old, new = redis.servers
        gated = client.post("/episodes", json=as_json()["json"] | {"name": "gated"}).json()["id"]
        assert old.client.blpop([STARTED], timeout=PATIENCE_S)
        stream = pool.submit(events, client, gated)
        load = Load(client)
        with load.running():
            load.until(lambda: len(load.accepted) >= SOME)
            # The replica gets nothing any more, which the primary does not know yet.
            redis.link.broken.set()
            answered = len(load.accepted) + load.refused
            load.until(lambda: len(load.accepted) + load.refused >= answered + 3 * SENDERS)
            old.kill()
            until(lambda: redis.primary_is(1), "the sentinels have made the replica the primary")
            old.start()  # as whatever supervises it would; the sentinels make it a replica
            before = len(load.accepted)
            load.until(lambda: len(load.accepted) >= before + SOME)
        (redis.settings.data_dir / GATE).write_text("")
        assert stream.result(PATIENCE_S)[-1] == "ready"
        for id in load.accepted:
            until(lambda id=id: client.get(f"/episodes/{id}").json()["state"] == "ready", id)  # type: ignore[misc]
        assert new.client.hget(keys.record("episode", gated), "attempts") == b"1"


@contextmanager
def working(redis: Sentinelled) -> Iterator[httpx.Client]:
    """A client of an app with a worker."""
    redis.settings.data_dir.mkdir()
    os.mkfifo(redis.settings.data_dir / GATE)
    worker = Worker(redis.environment | {"LAMANAS_ADAPT_PROCESSES": "2"}, "adapt")
    store = SyncStore.open(redis.settings)
    _, token = store.api_keys.create("test", ["episodes"])
    try:
        with (
            serving(redis.settings) as url,
            httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE_S) as client,
        ):
            until(lambda: client.get("/readyz").status_code == 200, "the service is ready")
            yield client
    finally:
        store.close()
        worker.kill()
