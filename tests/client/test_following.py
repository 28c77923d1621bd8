"""Following events over broken connections, and when that is given up."""

import json

import httpx
import pytest

from lamanas_client import Client, EpisodeFailedError, ProblemError, Progress, Retries, TimedOutError, UnreachableError
from tests.client.asking import EPISODE, Asking, Chunk, Chunks, Clock, Told, problem, stream

READY = ("ready", json.dumps(EPISODE))
EVENT_STREAM = {"Content-Type": "text/event-stream"}


def progress(step: int) -> tuple[str, str]:
    return "progress", json.dumps({"step": step, "steps": 3, "loss": [0.5] * step})


def event(step: int) -> bytes:
    name, data = progress(step)
    return f"event: {name}\ndata: {data}\nid: {step}\n\n".encode()


def test_a_broken_stream_is_opened_again_and_repeats_nothing(asking: Asking, clock: Clock) -> None:
    told = Told(
        stream(progress(0), progress(1)),
        httpx.ConnectError("refused"),
        problem(503, "busy", "busy", {"Retry-After": "4"}),
        stream(progress(1), progress(2), READY),
    )
    *steps, episode = asking.ask(told, "watch_episode", EPISODE["id"])
    assert [step.step for step in steps if isinstance(step, Progress)] == [0, 1, 2]
    assert episode.state == "ready"
    assert len(clock.pauses) == 3
    assert clock.pauses[2] == 4
    assert all(request.headers["accept"] == "text/event-stream" for request in told.asked)


@pytest.mark.parametrize("events", [[], [progress(1)]], ids=["no event", "the same event"])
def test_a_stream_that_keeps_closing_without_news_is_given_up(
    asking: Asking, clock: Clock, events: list[tuple[str, str]]
) -> None:
    told = Told(*[stream(*events) for _ in range(100)])
    with pytest.raises(UnreachableError, match="keeps closing before its last event"):
        asking.ask(told, "watch_episode", "x")
    assert len(told.asked) == 10


@pytest.mark.parametrize("retries", [Retries(attempts=1), None])
def test_without_retries_a_broken_stream_is_not_opened_again(
    asking: Asking, clock: Clock, retries: Retries | None
) -> None:
    asking.options = {"retries": retries}
    told = Told(stream(progress(0)), stream(READY))
    with pytest.raises(UnreachableError):
        asking.ask(told, "watch_episode", "x")
    assert len(told.asked) == 1


def test_streams_that_bring_news_are_followed_however_often_they_break(asking: Asking, clock: Clock) -> None:
    told = Told(*[stream(progress(step)) for step in range(30)], stream(READY))
    assert len(asking.ask(told, "watch_episode", "x")) == 31
    assert max(clock.pauses) <= 0.25


def test_streams_that_stay_open_for_a_while_are_followed_without_news(asking: Asking, clock: Clock) -> None:
    def pass_by() -> None:
        clock.now += 15

    def quiet() -> httpx.Response:
        return httpx.Response(200, headers=EVENT_STREAM, stream=Chunks(event(0), pass_by, b": ping\n\n", pass_by))

    told = Told(*[quiet() for _ in range(30)], stream(READY))
    assert len(asking.ask(told, "watch_episode", "x")) == 2


def test_reconnecting_ends_at_the_deadline(asking: Asking, clock: Clock) -> None:
    asking.options = {"retries": Retries(attempts=1000, deadline=30)}
    asked = []

    def broken(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if len(asked) == 1:
            return stream(progress(0))
        clock.now += 3
        raise httpx.ReadError("reset")

    with pytest.raises(UnreachableError, match="reset"):
        asking.ask(broken, "watch_episode", "x")
    assert 20 < clock.elapsed < 33


def test_silent_streams_are_given_up_at_the_deadline(asking: Asking, clock: Clock) -> None:
    def silent(request: httpx.Request) -> httpx.Response:
        assert len(asked) < 100
        asked.append(request)
        return httpx.Response(200, headers=EVENT_STREAM, stream=Chunks(event(0), lambda: clock.silence(request)))

    for deadline, count in ((30, 1), (120, 10)):
        asking.options = {"retries": Retries(deadline=deadline)}
        asked: list[httpx.Request] = []
        clock.now = 1000
        with pytest.raises(TimedOutError):
            asking.ask(silent, "watch_episode", "x")
        assert asked[0].extensions["timeout"].get("connect") <= deadline
        assert len(asked) <= count


def test_silence_before_the_first_event_ends_at_the_deadline(asking: Asking, clock: Clock) -> None:
    with pytest.raises(TimedOutError):
        asking.ask(lambda request: clock.silence(request), "watch_episode", "x")
    assert 120 <= clock.elapsed < 120 + 45


def test_an_open_stream_is_not_held_to_a_short_deadline(asking: Asking, clock: Clock) -> None:
    asking.options = {"retries": Retries(deadline=5)}

    def quiet(request: httpx.Request) -> httpx.Response:
        def ping() -> None:
            assert request.extensions["timeout"].get("read") > 15
            clock.now += 15

        ready = f"event: ready\ndata: {json.dumps(EPISODE)}\n\n".encode()
        pings: list[Chunk] = [ping, b": ping\n\n"] * 20
        return httpx.Response(200, headers=EVENT_STREAM, stream=Chunks(event(0), *pings, ready))

    assert len(asking.ask(quiet, "watch_episode", "x")) == 2
    assert clock.elapsed == 300


def test_the_time_that_the_caller_takes_does_not_count(clock: Clock) -> None:
    told = Told(stream(progress(0)), stream(READY))
    with Client("http://stub", "lam_x", transport=httpx.MockTransport(told)) as client:
        for _ in client.watch_episode("x"):
            clock.now += 1000
    assert len(told.asked) == 2


def test_waiting_for_what_is_deleted_or_fails_raises_why(asking: Asking) -> None:
    gone = json.dumps({"type": "/problems/gone", "title": "gone", "status": 410, "detail": "it was deleted"})
    with pytest.raises(ProblemError, match="it was deleted") as refused:
        asking.ask(Told(stream(progress(0), ("gone", gone))), "wait", "x")
    assert (refused.value.status, refused.value.kind) == (410, "gone")
    failed = json.dumps(EPISODE | {"state": "failed", "error": "the worker died three times"})
    with pytest.raises(EpisodeFailedError, match="the worker died three times"):
        asking.ask(Told(stream(("failed", failed))), "wait", "x")
