"""``lamanas serve`` starts, serves, restarts processes, drains and leaves nothing behind."""

import os
import signal
import stat
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from cli.errors import CommandError
from cli.installation import look_at_redis
from tests.conftest import PrivateRedis, Service, free_port, lamanas, serve_process, test_settings, until_serving
from tests.waiting import PATIENCE_S, family, until_gone

Serve = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def serve(short_folder: Path) -> Iterator[Serve]:
    started: list[subprocess.Popen[str]] = []

    def start(**environment: str) -> subprocess.Popen[str]:
        started.append(serve_process(short_folder, **{"LAMANAS_APP_PROCESSES": "1"} | environment))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(PATIENCE_S)


def get(url: str, token: str) -> httpx.Response:
    return httpx.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=30)


def running_with(pid: int, part: bytes) -> list[int]:
    """The descendants of this process whose command contains ``part``."""
    return [one for one in family(pid) if part in Path(f"/proc/{one}/cmdline").read_bytes()]


def test_running_service_answers_and_keeps_its_token_private(service: Service) -> None:
    assert get(f"{service.url}/models", service.token).status_code == 200
    assert get(f"{service.url}/models", "lam_wrong").status_code == 401
    file = service.data_dir / "admin-token"
    assert file.read_text().strip() == service.token
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_processes_of_a_service_have_separate_sessions(service: Service) -> None:
    children = family(service.process.pid)[1:]
    assert len(children) >= 4
    assert os.getsid(service.process.pid) not in {os.getsid(child) for child in children}


def test_workers_have_a_lower_priority_than_the_app(service: Service) -> None:
    def niceness(part: bytes) -> set[tuple[int, str]]:
        pids = running_with(service.process.pid, part)
        group = [Path(f"/proc/{pid}/autogroup") for pid in pids]
        words = [path.read_text().split()[-1] if path.exists() else "none" for path in group]
        return {(os.getpriority(os.PRIO_PROCESS, pid), word) for pid, word in zip(pids, words, strict=True)}

    ((ours, of_session),) = niceness(b"cli.main\0app")
    ((theirs, of_their_session),) = niceness(b"cli.main\0worker\0adapt")
    assert theirs == ours + 10
    assert of_their_session in ("10", "none"), of_session


def test_app_does_not_import_torch(service: Service) -> None:
    apps = running_with(service.process.pid, b"cli.main\0app")
    assert apps
    assert not any("libtorch" in Path(f"/proc/{pid}/maps").read_text() for pid in apps)


def test_app_processes_share_one_port_and_their_metrics(serve: Serve, short_folder: Path) -> None:
    process = serve(LAMANAS_APP_PROCESSES="3")
    running = until_serving(process, short_folder)
    apps = running_with(process.pid, b"cli.main\0app")
    assert len(apps) == 3
    for _ in range(24):  # each over a new connection
        assert get(f"{running.url}/models", running.token).status_code == 200
    counted = 'lamanas_http_requests_total{method="GET",route="/models",status="200"} 24.0'
    assert all(counted in get(f"{running.url}/metrics", running.token).text for _ in range(12))
    assert len({path.name for path in (short_folder / "metrics").glob("counter_*.db")}) == 3


def test_second_serve_on_the_same_data_directory_is_refused(service: Service) -> None:
    process = serve_process(service.data_dir)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert f"process {service.process.pid} already serves from" in output


def test_used_port_is_reported_before_anything_starts(service: Service, serve: Serve, short_folder: Path) -> None:
    port = service.url.rpartition(":")[2]
    process = serve(LAMANAS_PORT=port)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in output
    assert "Traceback" not in output
    assert not (short_folder / "redis").exists()


def test_serving_beyond_loopback_without_keys_is_refused(serve: Serve, short_folder: Path) -> None:
    process = serve(LAMANAS_HOST="0.0.0.0")  # noqa: S104
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "there are no keys yet" in output
    assert not (short_folder / "admin-token").exists()


@pytest.mark.parametrize(
    ("name", "value"), [("LAMANAS_PORT", "none"), ("LAMANAS_DEVICE", "abacus"), ("REDIS_URL", "http://x")]
)
def test_invalid_setting_is_named(serve: Serve, name: str, value: str) -> None:
    process = serve(**{name: value})
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert f"lamanas serve: {name}: " in output
    assert "Traceback" not in output


def test_stop_drains_and_leaves_no_process_and_no_temporary_file(serve: Serve, short_folder: Path) -> None:
    temporary = short_folder / "t"
    temporary.mkdir()
    process = serve(TMPDIR=str(temporary), LAMANAS_APP_PROCESSES="2")
    until_serving(process, short_folder)
    assert list(temporary.iterdir())
    processes = family(process.pid)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 0
    until_gone(processes)
    assert not list(temporary.iterdir())


def test_killed_service_leaves_no_process_and_starts_again_with_its_token(serve: Serve, short_folder: Path) -> None:
    process = serve(LAMANAS_APP_PROCESSES="2")
    first = until_serving(process, short_folder)
    processes = family(process.pid)
    process.kill()
    process.wait()
    until_gone(processes)
    again = until_serving(serve(), short_folder)
    assert again.token == first.token
    assert get(f"{again.url}/models", first.token).status_code == 200


def test_killed_parts_are_restarted_and_requests_wait_for_them(serve: Serve, short_folder: Path) -> None:
    process = serve(LAMANAS_APP_PROCESSES="2")
    running = until_serving(process, short_folder)
    # Retries the connection for as long as a restart takes.
    with httpx.Client(transport=httpx.HTTPTransport(retries=8), headers=running.headers, timeout=60) as client:
        for part in (b"redis.sock", b"cli.main\0app"):
            killed = running_with(process.pid, part)
            assert killed
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            until_gone(killed)
            assert client.get(f"{running.url}/models").status_code == 200, part


def test_configured_redis_is_used_and_none_is_started(
    redis_server: PrivateRedis, serve: Serve, short_folder: Path
) -> None:
    data_dir = short_folder / "data"
    process = serve(REDIS_URL=redis_server.settings.store_url, LAMANAS_DATA_DIR=str(data_dir))
    running = until_serving(process, data_dir)
    assert not (data_dir / "redis").exists()
    assert get(f"{running.url}/models", running.token).json()
    with urllib.request.urlopen(f"{running.url}/readyz") as answer:  # noqa: S310
        assert answer.status == 200


@pytest.mark.parametrize("command", ["serve", "app"])
def test_configured_redis_that_would_lose_what_is_accepted_is_refused(
    command: str, redis_server: PrivateRedis, short_folder: Path
) -> None:
    redis_server.client.config_set("maxmemory-policy", "volatile-ttl")
    process = lamanas(command, short_folder / "data", REDIS_URL=redis_server.settings.store_url)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert f"lamanas {command}: the Redis at REDIS_URL: maxmemory-policy is volatile-ttl" in output
    assert output.endswith("or set LAMANAS_REDIS_MAY_LOSE_DATA=true to start all the same\n")


def test_configured_redis_that_may_lose_data_is_warned_of_where_that_is_allowed(
    redis_server: PrivateRedis, caplog: pytest.LogCaptureFixture
) -> None:
    url = redis_server.settings.store_url
    redis_server.client.config_set("appendonly", "no")
    allowed = Settings(_env_file=None, redis_url=url, redis_may_lose_data=True)  # type: ignore[call-arg]
    look_at_redis(allowed)
    assert "appendonly is no" in caplog.text
    with pytest.raises(CommandError, match="appendonly is no"):
        look_at_redis(Settings(_env_file=None, redis_url=url))  # type: ignore[call-arg]


def test_configured_redis_that_does_not_respond_is_told_with_its_sentinels(short_folder: Path) -> None:
    ports = [free_port() for _ in range(3)]
    settings = Settings(
        _env_file=None,  # type: ignore[call-arg]
        redis_url="redis://mymaster",
        redis_sentinels=",".join(f"127.0.0.1:{port}" for port in ports),
    )
    with pytest.raises(CommandError) as met:
        look_at_redis(settings)
    assert "the Redis at REDIS_URL does not respond: No master found for 'mymaster'" in str(met.value)
    assert all(f"the sentinel at 127.0.0.1:{port} does not tell the primary" in str(met.value) for port in ports)


def test_configured_redis_that_cannot_work_is_refused(
    redis_server: PrivateRedis, serve: Serve, short_folder: Path
) -> None:
    url = redis_server.settings.store_url
    redis_server.client.acl_setuser("someone", enabled=True, nopass=True, keys=["*"], commands=["+get"])
    process = serve(REDIS_URL=url.replace("unix://", "unix://someone:x@"), LAMANAS_DATA_DIR=str(short_folder / "data"))
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "lamanas serve: the Redis at REDIS_URL: the user of REDIS_URL may not use ping, info" in output
    assert "Traceback" not in output


def test_socket_of_a_deep_data_directory_has_a_short_path(tmp_path: Path) -> None:
    deep = test_settings(tmp_path / ("d" * 120))
    assert len(os.fsencode(deep.redis_socket)) <= 107
    assert deep.redis_socket == test_settings(tmp_path / ("d" * 120)).redis_socket
    assert deep.redis_socket != test_settings(tmp_path / ("e" * 120)).redis_socket
