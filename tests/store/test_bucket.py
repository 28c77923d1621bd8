"""Episodes whose bytes are in a bucket."""

import asyncio
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml

from app.settings import Settings
from app.store import leftovers, objects
from app.store.clients import Store, SyncStore
from app.store.errors import NotReady, ObjectsUnavailableError
from app.store.objects import Objects, classifier_name, support_name
from tests.chaos.waiting import until
from tests.conftest import ROOT, PrivateRedis, test_settings
from tests.store import bucket
from tests.store.bucket import Bucket
from tests.store.submitting import SUPPORT, committed, create
from tests.store.test_async_store import with_store
from tests.store.test_episodes import commit

# Far more than the limit, and less than what obstore waits for a bucket.
HELD_S = 10


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with bucket.serving(monkeypatch) as found:
        yield found


@pytest.fixture
def settings(redis_server: PrivateRedis, served: Bucket) -> Settings:
    return test_settings(redis_server.settings.data_dir, objects=f"s3://{bucket.NAME}/some/prefix")


def test_an_episode_is_stored_read_and_deleted_in_a_bucket(settings: Settings, served: Bucket) -> None:
    async def body(store: Store) -> None:
        worker = SyncStore.open(settings)
        id = (await create(store))[0].id
        assert np.array_equal((await store.episodes.support(id))[0], SUPPORT)
        claim = worker.claims.claim("episode", id, "one")
        assert claim is not None
        assert np.array_equal(worker.claims.support(claim)[0], SUPPORT)
        assert committed(worker.claims, claim, {}, {}, b"onnx")
        assert await store.episodes.artifact(id) == b"onnx"
        name = f"some/prefix/{classifier_name(id, 1, b'onnx')}"
        assert served.objects[name][0] == b"onnx"
        assert len(served.objects) == 2
        served.objects[name] = (b"damaged", served.objects[name][1])
        with pytest.raises(NotReady):
            await store.episodes.artifact(id)
        del served.objects[name]
        commit(worker, id)
        assert await store.episodes.artifact(id) == b"onnx"
        await store.episodes.delete(id)
        until(lambda: served.objects == {}, "the bytes are deleted")
        assert not (settings.data_dir / "objects").exists()

    with_store(settings, body)


def test_no_request_is_held_while_a_bucket_hangs(
    settings: Settings, served: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(store: Store) -> None:
        id = (await create(store))[0].id
        commit(SyncStore.open(settings), id)
        served.answering.clear()
        monkeypatch.setattr(objects, "ANSWER_S", 0.2)
        async with asyncio.timeout(HELD_S):
            with pytest.raises(ObjectsUnavailableError, match="no answer within"):
                await create(store)
            with pytest.raises(ObjectsUnavailableError, match="no answer within"):
                await store.episodes.artifact(id)
            await store.episodes.delete(id)
            assert await store.episodes.state(id) is None
        assert any(id in name for name in served.objects)
        served.answering.set()
        until(lambda: not any(id in name for name in served.objects), "the bytes are deleted")

    with_store(settings, body)


def test_a_bucket_that_does_not_exist_is_unavailable(settings: Settings, served: Bucket) -> None:
    async def body(store: Store) -> None:
        worker = SyncStore.open(settings)
        id = (await create(store))[0].id
        claim = worker.claims.claim("episode", id, "one")
        assert claim is not None
        served.exists = False
        missing = pytest.raises(ObjectsUnavailableError, match="does not exist")
        with missing:
            await create(store)
        with missing:
            await store.episodes.support(id)
        with missing:
            worker.claims.support(claim)
        with missing:
            committed(worker.claims, claim, {}, {}, b"onnx")
        with missing:
            worker.claims._objects.delete(["name"])
        with missing:
            list(leftovers.remove(settings, worker))
        served.exists = True
        assert committed(worker.claims, claim, {}, {}, b"onnx")

    with_store(settings, body)


def test_objects_in_a_bucket_are_deleted_in_one_request(settings: Settings, served: Bucket) -> None:
    store = Objects.open(settings)
    names = [support_name(f"id{number}", b"bytes") for number in range(30)]
    for name in names[::2]:
        store.put(name, b"bytes")
    store.delete(iter(names))
    assert served.objects == {}
    assert served.deletions == 1


def test_old_objects_in_a_bucket_that_nobody_names_are_removed(settings: Settings, served: Bucket) -> None:
    async def body(store: Store) -> None:
        worker = SyncStore.open(settings)
        id = (await create(store))[0].id
        unnamed = classifier_name(id, 9, b"late")
        worker.claims._objects.put(unnamed, b"late")
        assert list(leftovers.remove(settings, worker)) == []
        for name, (data, at) in served.objects.items():
            served.objects[name] = (data, at - timedelta(hours=2))
        assert list(leftovers.remove(settings, worker)) == [f"object {unnamed}"]
        assert [len(found) for found in worker.claims._objects.all()] == [1]

    with_store(settings, body)


def test_what_is_larger_than_it_may_be_is_not_read_from_a_bucket(settings: Settings) -> None:
    async def body(store: Store) -> None:
        name = support_name("id", b"bytes")
        store.objects.put(name, b"bytes")
        assert [await store.objects.get_async(name, most=most) for most in (5, 4)] == [b"bytes", None]
        assert [store.objects.get(name, most=most) for most in (5, 4)] == [b"bytes", None]

    with_store(settings, body)


def test_a_data_set_is_stored_and_unpacked_from_a_bucket(settings: Settings, served: Bucket, tmp_path: Path) -> None:
    store = SyncStore.open(settings)
    (tmp_path / "parts" / "a").mkdir(parents=True)
    (tmp_path / "parts" / "a" / "1.png").write_bytes(b"image")
    store.folders.put_dataset("parts", tmp_path / "parts", tmp_path)
    [name] = served.objects
    assert name.startswith("some/prefix/datasets/")
    folder = store.folders.dataset("parts", tmp_path / "cache")
    assert folder is not None
    assert (folder / "a" / "1.png").read_bytes() == b"image"
    store.folders.remove_dataset("parts")
    assert served.objects == {}


def test_the_override_in_the_documentation_lets_every_container_reach_the_bucket() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    [text] = re.findall(r"^```yaml\n(x-bucket.*?)^```", (ROOT / "docs" / "operations.md").read_text(), re.M | re.S)
    override = yaml.safe_load(text)["services"]
    assert set(override) == set(compose["services"]) - {"init", "redis"}
    for service in override.values():
        assert not (compose["networks"][service["networks"][-1]] or {}).get("internal")
        assert re.match("s3://", service["environment"]["LAMANAS_OBJECTS"])
