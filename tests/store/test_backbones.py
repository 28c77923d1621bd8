"""Backbones in the object store: stored with the first model that needs one, fetched where it is missing, removed with
the last one."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from app.store import backbones, keys, leftovers
from app.store.clients import Store, SyncStore
from app.store.errors import ObjectsUnavailableError, UnknownModel
from app.store.objects import backbone_name
from app.store.reconciliation import UNNAMED_S
from lamanas_core.backbones.storage import BackboneError, backbone_file, own_file
from lamanas_core.config import PRESETS
from tests import own_backbones
from tests.conftest import PrivateRedis
from tests.store.test_async_store import with_store
from tests.store.test_objects import age

ONE, OTHER = "a" * 16, "b" * 16


@pytest.fixture
def name(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> str:
    """A backbone whose file this machine has, though no model needs it yet."""
    own_backbones.move_to(settings.data_dir / "first", monkeypatch)
    return own_backbones.write(1)


def card(backbone: str | None) -> dict[str, Any]:
    """Of a model; None: one for drawings."""
    if backbone is None:
        return {"config": PRESETS["serving"].to_json()}
    config = PRESETS["photos"].to_json()
    return {"config": config | {"network": config["network"] | {"backbone": backbone}}}


def add(store: SyncStore, version: str, backbone: str | None) -> None:
    """Adds a model that is not the active one of its kind."""
    store.models.register("c" * 16, b"", card(None if backbone is None else PRESETS["photos"].network.backbone))
    store.models.register(version, b"weights", card(backbone))


def stored(settings: Settings) -> list[Path]:
    return list((settings.objects_dir / "backbones").glob("*"))


def fetch(settings: Settings, sync_store: SyncStore, name: str, *, by_app: bool) -> bytes:
    """The file of the backbone, by a worker or the app."""
    if not by_app:
        return sync_store.backbones.provided_for(lambda: backbone_file(name))
    found: list[bytes] = []

    async def body(store: Store) -> None:
        found.append(await store.backbones.provided_for(lambda: asyncio.to_thread(backbone_file, name)))

    with_store(settings, body)
    return found[0]


both = pytest.mark.parametrize("by_app", [False, True], ids=["worker", "app"])


@both
def test_a_machine_that_lacks_the_file_of_a_models_backbone_fetches_it(
    settings: Settings, sync_store: SyncStore, name: str, monkeypatch: pytest.MonkeyPatch, by_app: bool
) -> None:
    data = backbone_file(name)
    add(sync_store, ONE, name)
    own_backbones.move_to(settings.data_dir / "second", monkeypatch)
    for state in ("missing", "damaged"):
        assert fetch(settings, sync_store, name, by_app=by_app) == data, state
        assert [file.name for file in own_file(name).parent.iterdir()] == [f"{name}.onnx"]
        own_file(name).write_bytes(data[:-1])
    for file in stored(settings):
        file.unlink()
    own_file(name).write_bytes(data)
    assert fetch(settings, sync_store, name, by_app=by_app) == data  # what is here is not asked for


def _changed(object: Path, entry: str) -> str:
    object.write_bytes(object.read_bytes()[:-1])
    return entry


def _gone(object: Path, entry: str) -> str:
    object.unlink()
    return entry


def _of_another(object: Path, entry: str) -> str:
    object.write_bytes(b"another")
    other = backbone_name("other", hashlib.sha256(b"another").hexdigest())
    object.rename(object.with_name(other.partition("/")[2]))
    return other


def _too_large(object: Path, entry: str) -> str:
    return entry


@both
@pytest.mark.parametrize("damage", [_changed, _gone, _of_another, _too_large])
def test_what_is_not_the_backbone_is_refused_and_leaves_nothing_behind(
    redis_server: PrivateRedis,
    settings: Settings,
    sync_store: SyncStore,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path, str], str],
    by_app: bool,
) -> None:
    add(sync_store, ONE, name)
    [object] = stored(settings)
    entry = damage(object, f"backbones/{object.name}")
    redis_server.client.hset(keys.BACKBONES, name, entry)
    if damage is _too_large:
        monkeypatch.setattr(backbones, "MAX_BYTES", object.stat().st_size - 1)
    own_backbones.move_to(settings.data_dir / "second", monkeypatch)
    error = ObjectsUnavailableError if by_app else BackboneError
    with pytest.raises(error, match=rf"no backbone '{name}', neither on this machine nor in the object store: add its"):
        fetch(settings, sync_store, name, by_app=by_app)
    assert not own_file(name).parent.exists()


@both
def test_a_backbone_that_no_model_needs_is_not_there(
    settings: Settings, sync_store: SyncStore, monkeypatch: pytest.MonkeyPatch, by_app: bool
) -> None:
    own_backbones.move_to(settings.data_dir, monkeypatch)
    with pytest.raises(ObjectsUnavailableError if by_app else BackboneError, match="neither on this machine nor"):
        fetch(settings, sync_store, "resnet18.a1_in1k-0123456789ab", by_app=by_app)


def test_models_share_a_backbone_and_the_last_one_takes_it_with_it(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, name: str
) -> None:
    for version in (ONE, OTHER, ONE):
        add(sync_store, version, name)
    [object] = stored(settings)
    assert object.read_bytes() == backbone_file(name)
    sync_store.models.remove(ONE)
    assert stored(settings) == [object]
    sync_store.models.remove(OTHER)
    assert (stored(settings), redis_server.client.hlen(keys.BACKBONES)) == ([], 0)
    add(sync_store, ONE, name)
    assert stored(settings)[0].name != object.name  # a late deletion cannot hit it


def test_other_models_store_no_backbone(redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore) -> None:
    add(sync_store, ONE, PRESETS["photos"].network.backbone)
    add(sync_store, OTHER, None)
    for version in (ONE, OTHER):
        sync_store.models.remove(version)
    assert (stored(settings), redis_server.client.exists(keys.BACKBONES)) == ([], 0)


def test_a_model_whose_backbone_cannot_be_stored_is_not_registered(
    settings: Settings, sync_store: SyncStore, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbones, "MAX_BYTES", own_file(name).stat().st_size - 1)
    with pytest.raises(BackboneError, match="services take 0 at most"):
        add(sync_store, ONE, name)
    with pytest.raises(UnknownModel):
        sync_store.models.get(ONE)
    assert stored(settings) == []


def test_the_sweep_removes_backbones_that_no_model_needs(settings: Settings, sync_store: SyncStore, name: str) -> None:
    add(sync_store, ONE, name)
    [needed] = stored(settings)
    unnamed = sync_store.backbones.store(name)  # and its writer is killed
    for file in stored(settings):
        age(file, UNNAMED_S + 60)
    assert list(leftovers.remove(settings, sync_store)) == [f"object {unnamed}"]
    assert stored(settings) == [needed]
