"""Processes that end are restarted; processes that ignore SIGTERM are killed."""

import errno
import os
import signal
import sys

import pytest

from cli.supervisor import Service, Supervisor
from tests.waiting import until_gone

ASLEEP = [sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"]
IGNORING = [
    sys.executable,
    "-c",
    "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); open(sys.argv[1], 'w').close(); signal.pause()",
]


def pid(service: Service) -> int:
    assert service.process is not None
    return service.process.pid


@pytest.fixture
def supervisor() -> Supervisor:
    return Supervisor()


def test_ended_process_is_restarted(supervisor: Supervisor) -> None:
    service = supervisor.start("sleeper", ASLEEP, dict(os.environ))
    first = pid(service)
    os.kill(first, 9)
    while service.process is None or pid(service) == first:
        supervisor.watch(0.1)
    supervisor.stop([service], 60)
    assert service.process is None


def test_restarts_of_a_process_are_counted(supervisor: Supervisor) -> None:
    service = supervisor.start("broken", [sys.executable, "-c", "raise SystemExit(3)"], dict(os.environ))
    while service.failed_starts < 3:
        supervisor.watch(0.1)


@pytest.mark.parametrize("refusing", ["subprocess.Popen", "os.pidfd_open"])
def test_a_process_that_cannot_be_started_now_is_started_later(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, refusing: str
) -> None:
    service = supervisor.start("sleeper", ASLEEP, dict(os.environ))
    first = pid(service)
    with monkeypatch.context() as without_memory:

        def refuse(*_: object, **__: object) -> None:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

        without_memory.setattr(refusing, refuse)
        os.kill(first, 9)
        while service.failed_starts < 3:
            supervisor.watch(0.1)
        assert service.process is None
    while service.process is None:
        supervisor.watch(0.1)
    assert pid(service) != first
    supervisor.stop([service], 60)


def test_process_that_ignores_sigterm_is_killed_after_the_timeout(
    supervisor: Supervisor, tmp_path: "os.PathLike[str]"
) -> None:
    listening = os.path.join(tmp_path, "listening")  # noqa: PTH118
    os.mkfifo(listening)
    service = supervisor.start("ignoring", [*IGNORING, listening], dict(os.environ))
    with open(listening):  # noqa: PTH123 (returns when the process has opened its end)
        ignoring = pid(service)
    supervisor.stop([service], 0.1)
    until_gone([ignoring])


def test_only_ctrl_c_as_a_second_signal_hurries_the_stop(supervisor: Supervisor) -> None:
    with supervisor.signals():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # make forwards the signal as well
        assert (supervisor.stop_asked, supervisor.hurry) == (True, False)
        signal.raise_signal(signal.SIGINT)
        assert supervisor.hurry
