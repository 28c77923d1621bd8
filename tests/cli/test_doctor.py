"""``lamanas doctor`` finds problems, says how to fix them, and exits with 1 only then."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from cli import doctor, private_redis
from cli.main import main
from lamanas_core import meta_model
from tests.conftest import PrivateRedis, free_port


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, short_folder: Path) -> Path:
    """An installation that has not been started; its data directory."""
    for name in list(os.environ):
        if name.startswith(("LAMANAS_", "REDIS_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(short_folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(short_folder / "config"))
    monkeypatch.setenv("LAMANAS_PORT", str(free_port()))
    monkeypatch.setattr(doctor, "DISK_WRONG", 0)
    return short_folder / "data"


def examined(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    code = main(["doctor", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["healthy"] is (code == 0)
    return code, {check["name"]: check for check in document["checks"]}


def test_a_healthy_machine(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, checks = examined(capsys)
    assert code == 0, checks
    assert list(checks) == ["Python", "packages", "torch", "model", "GPU", "Redis", "port", "data", "objects", "disk"]
    assert all(check["fix"] for check in checks.values() if check["state"] != "ok")
    assert main(["doctor"]) == 0
    assert f"ok       data       {machine} does not exist yet" in capsys.readouterr().out


def test_a_running_private_redis_is_found(
    redis_server: PrivateRedis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAMANAS_DATA_DIR", str(redis_server.settings.data_dir))
    assert "the private Redis is " in examined(capsys)[1]["Redis"]["found"]


def test_an_external_redis_that_may_lose_data_is_reported(
    redis_server: PrivateRedis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_server.settings.store_url)
    assert examined(capsys)[1]["Redis"]["state"] == "ok"
    redis_server.client.config_set("appendfsync", "everysec")
    code, checks = examined(capsys)
    assert (code, checks["Redis"]["state"]) == (0, "warning")
    redis_server.client.config_set("maxmemory-policy", "allkeys-lfu")
    code, checks = examined(capsys)
    assert (code, checks["Redis"]["state"]) == (1, "wrong")
    assert "maxmemory-policy is allkeys-lfu" in checks["Redis"]["found"]
    assert "noeviction" in checks["Redis"]["fix"]
    monkeypatch.setenv("LAMANAS_REDIS_MAY_LOSE_DATA", "true")
    code, checks = examined(capsys)
    assert (code, checks["Redis"]["state"]) == (0, "warning")


def test_an_object_store_that_takes_no_objects_is_reported(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (machine / "objects").mkdir(parents=True)
    assert examined(capsys)[1]["objects"]["found"].endswith("objects: an object was written, read and deleted")
    (machine / "objects" / "support").rmdir()
    (machine / "objects" / "support").write_text("a file where the folder should be")
    code, checks = examined(capsys)
    assert (code, checks["objects"]["state"]) == (1, "wrong")
    assert "no object can be written" in checks["objects"]["found"]
    assert checks["objects"]["fix"] == f"allow writing to {machine}/objects"
    monkeypatch.setenv("LAMANAS_OBJECTS", "s3://nowhere/prefix")
    monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_REGION", "c")
    code, checks = examined(capsys)
    assert (code, checks["objects"]["state"]) == (1, "wrong")
    assert checks["objects"]["found"].startswith("s3://nowhere/prefix: no object can be written")
    assert "LAMANAS_OBJECTS" in checks["objects"]["fix"]


def test_each_problem_is_reported_with_its_fix(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_model() -> Any:
        raise ValueError("a file is damaged")

    def no_binary() -> Path:
        raise FileNotFoundError("no Redis found")

    machine.write_text("a file where the folder should be")
    (machine.parent / "config" / "lamanas").mkdir(parents=True)
    (machine.parent / "config" / "lamanas" / "login.json").write_text("{}")
    monkeypatch.setattr(doctor, "OLDEST_PYTHON", (99, 0))
    monkeypatch.setattr(
        "importlib.metadata.requires", lambda _: ["torch>=99", "nowhere-to-be-found", 'x; extra == "y"']
    )
    monkeypatch.setattr(meta_model, "shipped", no_model)
    monkeypatch.setattr(private_redis, "find_binary", no_binary)
    monkeypatch.setattr(doctor, "DISK_WRONG", 2**60)
    monkeypatch.setattr(doctor, "DISK_TIGHT", 2**60)
    monkeypatch.setenv("LAMANAS_DEVICE", "cuda")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, checks = examined(capsys)
    assert code == 1
    wrong = {name for name, check in checks.items() if check["state"] == "wrong"}
    assert wrong == {"Python", "packages", "model", "GPU", "Redis", "data", "disk", "login"}
    assert all(checks[name]["fix"] for name in wrong)
    assert "nowhere-to-be-found is missing" in checks["packages"]["found"]
    assert "torch is" in checks["packages"]["found"]


def test_another_program_on_the_port_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv("LAMANAS_PORT", str(other.getsockname()[1]))
        monkeypatch.setattr(doctor, "ANSWER_S", 0.1)
        code, checks = examined(capsys)
    assert (code, checks["port"]["state"]) == (1, "wrong")
    assert "LAMANAS_PORT" in checks["port"]["fix"]


def test_invalid_settings_are_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LAMANAS_PORT", "70000")
    code, checks = examined(capsys)
    assert code == 1
    assert checks["settings"]["found"].startswith("LAMANAS_PORT: ")
