"""The log lines and measurements of an adaptation."""

import asyncio
import io
import json
import logging
import time
from collections.abc import Iterator

import pytest
from redis import Redis

import workers.child
from app.settings import Settings
from app.store import keys, measures
from app.store.clients import SyncStore
from app.telemetry import logs
from tests.conftest import PrivateRedis
from tests.store.submitting import get, submit
from tests.workers.fake_learner import VERSION, FakeLearner
from workers import adapt
from workers.child import Child


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonLines("worker-1"))
    log = logging.getLogger("workers")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield stream
    log.removeHandler(handler)


def test_a_worker_logs_the_request_id_and_measures_wait_and_steps(
    redis_server: PrivateRedis,
    settings: Settings,
    sync_store: SyncStore,
    stream: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers.child, "Learner", FakeLearner)
    child = Child(settings, sync_store, "adapt", "worker-1")
    child.learner.register_shipped()
    with logs.with_fields(request_id="mine-3"):
        record = asyncio.run(submit(settings, name="plain", model_version=VERSION))
    client: Redis = redis_server.client
    client.hset(keys.record("episode", record.id), "queued_at", int(1000 * (time.time() - 100)))
    with monkeypatch.context() as elsewhere:
        worker_clock = time.time() + 3600  # of a machine whose clock is fast
        elsewhere.setattr(time, "time", lambda: worker_clock)
        adapt.run(child, record.id)
    assert get(settings, record.id).state == "ready"
    (line,) = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (line["process"], line["request_id"], line["episode"]) == ("worker-1", "mine-3", record.id)
    measured = measures.histograms(client.hgetall(keys.MEASUREMENTS))  # type: ignore[arg-type]
    assert sum(measured["queue_wait"].counts) == sum(measured["adapt"].counts) == 1
    assert sum(measured["adapt_step"].counts) == get(settings, record.id).step
    assert 100 <= measured["queue_wait"].sum <= 100 + time.time() - record.created_at
