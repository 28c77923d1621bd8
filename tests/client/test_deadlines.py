"""The deadline of a request holds whatever the client is doing when it passes."""

import socket
from collections.abc import Iterator

import httpx
import pytest

from lamanas_client import ProblemError, Retries, TimedOutError
from tests.client.asking import EPISODE, Asking, Chunk, Chunks, Clock, Told, problem


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a server that accepts connections and never sends anything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def busy(retry_after: str) -> httpx.Response:
    return problem(503, "busy", "busy", {"Retry-After": retry_after})


def test_a_pause_that_would_end_after_the_deadline_is_not_made(asking: Asking, clock: Clock) -> None:
    asking.options = {"retries": Retries(deadline=30)}
    told = Told(*[busy("20") for _ in range(100)])
    with pytest.raises(ProblemError, match="busy") as refused:
        asking.ask(told, "get_episode", "x")
    assert (clock.pauses, len(told.asked), refused.value.retry_after) == ([20], 2, 20)


def test_the_time_that_attempts_take_counts(asking: Asking, clock: Clock) -> None:
    asking.options = {"retries": Retries(deadline=30)}

    def slow(request: httpx.Request) -> httpx.Response:
        if request.extensions["timeout"].get("read") < 9:
            clock.silence(request)
        clock.now += 9
        raise httpx.ReadError("reset")

    with pytest.raises(TimedOutError):
        asking.ask(slow, "get_episode", "x")
    assert clock.elapsed == pytest.approx(30)
    assert len(clock.pauses) == 3


@pytest.mark.parametrize("phase", ["connect", "read"])
def test_an_attempt_ends_at_the_deadline(asking: Asking, clock: Clock, phase: str) -> None:
    asking.options = {"retries": Retries(deadline=30)}
    answers = [busy("20")]

    def silence(request: httpx.Request) -> httpx.Response:
        return answers.pop() if answers else clock.silence(request, phase)

    with pytest.raises(TimedOutError, match="http://stub/episodes/x did not respond in time"):
        asking.ask(silence, "get_episode", "x")
    assert clock.elapsed == pytest.approx(30, abs=0.1)


def test_the_phases_of_an_attempt_share_the_deadline(asking: Asking, clock: Clock) -> None:
    asking.options = {"retries": Retries(deadline=30)}

    def slow(request: httpx.Request) -> httpx.Response:
        clock.now += 25  # connecting
        clock.silence(request)

    with pytest.raises(TimedOutError):
        asking.ask(slow, "get_episode", "x")
    assert clock.elapsed == pytest.approx(30)


def test_a_long_poll_ends_at_the_deadline(asking: Asking, clock: Clock) -> None:
    asking.options = {"retries": Retries(deadline=30)}
    asked: list[httpx.Request] = []

    def poll(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        clock.silence(request)

    with pytest.raises(TimedOutError):
        asking.ask(poll, "predict", "x", [b"image"])
    assert asked[0].url.params["wait"] == "60"
    assert (len(asked), clock.elapsed) == (1, 30)


def test_no_response_is_waited_for_longer_than_90_seconds(asking: Asking, clock: Clock) -> None:
    asking.options = {"retries": Retries(deadline=1000)}
    with pytest.raises(TimedOutError):
        asking.ask(lambda request: clock.silence(request), "get_episode", "x")
    assert (clock.pauses, clock.elapsed) == ([], 90)


def test_a_response_that_trickles_in_ends_at_the_deadline(asking: Asking, clock: Clock) -> None:
    asking.options = {"retries": Retries(deadline=30)}

    def pass_by() -> None:
        clock.now += 8

    def trickle(request: httpx.Request) -> httpx.Response:
        chunks: list[Chunk] = [pass_by, b" "] * 100
        return httpx.Response(200, stream=Chunks(*chunks))

    with pytest.raises(TimedOutError, match="while the response arrived"):
        asking.ask(trickle, "get_episode", "x")
    assert clock.elapsed == 32


def test_each_request_of_an_operation_has_the_whole_deadline(asking: Asking, clock: Clock) -> None:
    asking.options = {"retries": Retries(deadline=30)}
    cursors = ["b", "c", None]

    def page(request: httpx.Request) -> httpx.Response:
        clock.now += 20
        return httpx.Response(200, json={"episodes": [EPISODE], "next_cursor": cursors.pop(0)})

    assert len(asking.ask(page, "list_episodes", 300)) == 3


def test_a_silent_connection_ends_at_the_deadline(asking: Asking, silent: str) -> None:
    asking.options = {"retries": Retries(deadline=0.01)}
    with pytest.raises(TimedOutError):
        asking.ask(silent, "get_episode", "x")
