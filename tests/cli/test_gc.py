"""``lamanas gc`` and ``lamanas models remove`` on a running store."""

import json
import os

import pytest

from app.settings import Settings
from app.store.clients import SyncStore
from app.store.objects import Objects, support_name
from cli.main import main
from tests.store.submitting import DRAWINGS


def test_leftovers_are_listed_and_then_removed(
    installation: Settings, sync_store: SyncStore, capsys: pytest.CaptureFixture[str]
) -> None:
    sync_store.installation.check()  # as a worker did when the object store was empty
    name = support_name("nobody", b"bytes")
    store = Objects.open(installation)
    store.put(name, b"bytes")
    os.utime(installation.objects_dir / name, (0, 0))
    assert main(["gc", "--dry-run"]) == 0
    assert capsys.readouterr().out == f"object {name}\nwould remove 1\n"
    assert store.get(name) == b"bytes"
    assert main(["gc"]) == 0
    assert capsys.readouterr().out == f"object {name}\nremoved 1\n"
    assert store.get(name) is None
    assert main(["gc"]) == 0
    assert capsys.readouterr().out == "removed 0\n"


def test_an_object_store_that_fails_is_not_taken_for_redis(
    installation: Settings, sync_store: SyncStore, capsys: pytest.CaptureFixture[str]
) -> None:
    installation.objects_dir.write_bytes(b"")  # in place of the folder
    assert main(["gc"]) == 1
    error = capsys.readouterr().err
    assert "the object store does not respond" in error
    assert "Redis" not in error


def test_objects_of_another_redis_are_an_error(
    installation: Settings, sync_store: SyncStore, capsys: pytest.CaptureFixture[str]
) -> None:
    Objects.open(installation).put_installation("another")
    assert main(["gc"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "nothing is removed, as this Redis and this object store do not belong together" in shown.err


def test_a_model_that_is_not_active_is_removed(
    installation: Settings, sync_store: SyncStore, capsys: pytest.CaptureFixture[str]
) -> None:
    for version in ("first", "second", "third"):
        sync_store.models.register(version, b"weights", DRAWINGS)
    assert main(["models", "remove", "second"]) == 0
    assert capsys.readouterr().out == "removed second\n"
    assert main(["models", "remove", "third", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"version": "third"}
    assert main(["models", "remove", "first"]) == 1
    assert "first is the active version of its kind" in capsys.readouterr().err
    assert main(["models", "remove", "second"]) == 1
    assert "there is no model version second" in capsys.readouterr().err
