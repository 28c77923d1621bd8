"""The quick form of ``make scale``: requests take as many commands of Redis with many episodes as with few."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.store import keys, lookup_cache
from app.store.clients import Store, SyncStore
from app.store.records import EpisodeRecord, WorkerRecord
from tests.app.playing import CARD, Worker, b64, png, support
from tests.conftest import PrivateRedis
from tests.scale.__main__ import FEW, MANY, misses
from tests.scale.filling import copy
from tests.scale.measuring import Figures
from tests.store.observing import object_files

# Of the subscription and of this test itself.
ASIDE = {b"info", b"subscribe", b"ping", b"config|resetstat", b"client|setinfo", b"hello"}
WALKS = {"scan", "keys", "hscan", "sscan", "zscan", "hkeys", "hvals"}


def commands(server: PrivateRedis, call: Callable[[], object]) -> Counter[str]:
    """The commands that Redis executes during the call, also those of its scripts."""
    client: Any = server.client
    client.config_resetstat()
    call()
    stats = client.info("commandstats")
    found = Counter({name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()})
    return Counter({name: count for name, count in found.items() if name.encode() not in ASIDE})


@pytest.fixture
def ready(redis_server: PrivateRedis, sync_store: SyncStore) -> str:
    """An episode of the tenant "t" that a worker has adapted."""
    sync_store.models.register("0123456789abcdef", b"weights", CARD)
    token = sync_store.api_keys.create("test", ["episodes"], tenant="t")[1]
    headers = {"Authorization": f"Bearer {token}"}
    with TestClient(create_app(redis_server.settings), headers=headers) as client:
        id: str = client.post("/episodes", json={"support": support()}).json()["id"]
    Worker(sync_store).adapt(id)
    return id


def test_requests_take_as_many_commands_with_many_episodes_as_with_few(
    redis_server: PrivateRedis, sync_store: SyncStore, ready: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup_cache, "MAX_AGE_S", -1.0)  # otherwise it depends on the time which answers are reused
    redis: Any = redis_server.client
    token = sync_store.api_keys.create("test", ["admin"])[1]
    for number in range(3):
        sync_store.workers.heartbeat(WorkerRecord.now("adapt", f"host-{number}", "cpu"))
    image = {"episode_id": ready, "images": [b64(png(0))]}
    with TestClient(create_app(redis_server.settings), headers={"Authorization": f"Bearer {token}"}) as client:
        asked: dict[str, Callable[[], Any]] = {
            "readyz": lambda: client.get("/readyz"),
            "metrics": lambda: client.get("/metrics/installation"),
            "queues": lambda: client.get("/queues"),
            "list": lambda: client.get("/episodes"),
            "predict": lambda: client.post("/predict", json=image),
            "check": lambda: sync_store.workers.count_on_host("adapt", "host"),
        }

        def all_asked() -> dict[str, Counter[str]]:
            for name, ask in asked.items():
                answer = ask()
                assert answer == 3 or answer.status_code == 200, name
            return {name: commands(redis_server, ask) for name, ask in asked.items()}

        copy(redis, redis_server.settings.objects_dir, ready, 30)
        few = all_asked()
        copy(redis, redis_server.settings.objects_dir, ready, 300)
        assert redis.zcard(keys.index("episode")) == 331
        assert all_asked() == few
    assert not WALKS & {name for counts in few.values() for name in counts}
    scripts = {name: few[name]["evalsha"] for name in ("readyz", "metrics", "list", "check")}
    assert scripts == {"readyz": 1, "metrics": 2, "list": 2, "check": 1}  # one for the key of the request


def test_a_copy_is_like_its_episode(redis_server: PrivateRedis, ready: str) -> None:
    redis: Any = redis_server.client
    [id] = copy(redis, redis_server.settings.objects_dir, ready, 1)

    async def records() -> list[EpisodeRecord]:
        store = await Store.open(redis_server.settings)
        try:
            return (await store.episodes.page("t", 10))[0]
        finally:
            await store.close()

    copied, first = asyncio.run(records())
    assert (copied.id, first.id) == (id, ready)
    assert (copied.state, copied.classes, copied.genotype) == (first.state, first.classes, first.genotype)
    assert abs(copied.expires_at - first.expires_at) < 0.1
    for index in (keys.index("episode"), keys.index("episode", "t"), keys.CLASSIFIERS_USED):
        assert redis.zcard(index) == 2
    assert redis.pttl(keys.record("episode", id)) > 0
    assert len(object_files(redis_server, id)) == len(object_files(redis_server, ready)) == 2


def test_each_bound_that_is_not_kept_is_named() -> None:
    kept = Figures(MANY, 290.0, 4.0, 20.0, 9.0, 5.0, 3.0, 15.0, 5.0)
    few = Figures(FEW, 9.0, 3.5, 18.0, 8.0, 5.0, 3.0, 14.0, 5.0)
    assert misses(few, kept) == []
    bad = Figures(MANY, 310.0, 11.0, 51.0, 15.0, 5.0, 12.0, 21.0, 60.0)
    assert [text.split(" takes")[0].split(" ")[0] for text in misses(few, bad)] == [
        *("readyz", "readyz", "list", "list", "check", "check", "metrics", "metrics", "the", "the", "Redis"),
    ]
