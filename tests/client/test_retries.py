"""What is sent again, when, and with what; and when the client gives up."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from lamanas_client import EpisodeFailedError, NotLamanasError, ProblemError, Progress, UnreachableError
from tests.client.asking import EPISODE, Asking, Told, problem, stream

SUPPORT = {"a": [b"1"], "b": [b"2"]}
READY = ("ready", json.dumps(EPISODE))


def full(seconds: str) -> httpx.Response:
    return problem(503, "queue-full", "the queue is full", {"Retry-After": seconds})


def progress(step: int) -> tuple[str, str]:
    return "progress", json.dumps({"step": step, "steps": 3, "loss": [0.5] * step})


def test_an_overloaded_service_is_asked_again_when_it_said(asking: Asking, pauses: list[float]) -> None:
    limited = problem(429, "rate-limited", "too many requests", {"Retry-After": "2"})
    told = Told(full("3"), limited, httpx.Response(202, json=EPISODE))
    assert asking.ask(told, "create_episode", SUPPORT).id == EPISODE["id"]
    assert pauses == [3, 2]


def test_a_date_to_come_back_at_is_understood(asking: Asking, pauses: list[float]) -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=28), usegmt=True)
    asking.ask(Told(full(at), httpx.Response(200, json=EPISODE)), "get_episode", "x")
    assert 1 < pauses[0] <= 28  # of its own it would have paused for a quarter of a second


def test_all_attempts_at_a_submission_carry_one_key_and_the_next_submission_another(
    asking: Asking, pauses: list[float]
) -> None:
    told = Told(
        httpx.ReadError("gone"), full("1"), httpx.Response(202, json=EPISODE), httpx.Response(202, json=EPISODE)
    )
    asking.ask(told, "create_episode", SUPPORT)
    asking.ask(told, "create_episode", SUPPORT)
    keys = [request.headers["idempotency-key"] for request in told.asked]
    assert len(keys[0]) >= 32
    assert keys[0] == keys[1] == keys[2] != keys[3]


def test_a_service_that_is_away_is_asked_again_with_growing_pauses(asking: Asking, pauses: list[float]) -> None:
    away = httpx.ConnectError("refused")
    asking.ask(Told(away, away, away, httpx.Response(200, json=EPISODE)), "get_episode", "x")
    assert len(pauses) == 3
    assert [0.125 * 2**n <= pause <= 0.25 * 2**n for n, pause in enumerate(pauses)] == [True] * 3


def test_it_gives_up_before_its_patience_is_over(asking: Asking, pauses: list[float]) -> None:
    with pytest.raises(UnreachableError, match="http://stub/episodes/x does not answer: refused"):
        asking.ask(Told(*[httpx.ConnectError("refused")] * 100), "get_episode", "x")
    assert 20 < sum(pauses) <= 30
    pauses.clear()
    with pytest.raises(ProblemError, match="the queue is full") as refused:
        asking.ask(Told(full("20"), full("20")), "create_episode", SUPPORT)
    assert (refused.value.retry_after, pauses) == (20, [20])


def test_a_refusal_is_raised_at_once_in_the_words_of_the_service(asking: Asking, pauses: list[float]) -> None:
    told = Told(problem(422, "invalid-image", "images[3] (cat.png): empty", image="images[3] (cat.png)"))
    with pytest.raises(ProblemError, match=r"^images\[3\] \(cat\.png\): empty$") as refused:
        asking.ask(told, "create_episode", SUPPORT)
    assert (refused.value.kind, refused.value.status, refused.value.image) == (
        "invalid-image",
        422,
        "images[3] (cat.png)",
    )
    assert pauses == []


@pytest.mark.parametrize(
    ("status", "text"), [(404, "<h1>nginx</h1>"), (200, "[]"), (200, "hello"), (502, ""), (301, "")]
)
def test_another_server_at_the_address_is_told_as_such(asking: Asking, status: int, text: str) -> None:
    with pytest.raises(NotLamanasError, match=r"^http://stub/episodes/x .* is that a LAMANAS service"):
        asking.ask(Told(httpx.Response(status, text=text)), "get_episode", "x")


def test_an_answer_that_does_not_come_in_time_is_not_waited_for_again(asking: Asking, pauses: list[float]) -> None:
    with pytest.raises(UnreachableError, match="too slow"):
        asking.ask(Told(httpx.ReadTimeout("too slow")), "get_episode", "x")
    assert pauses == []


def test_a_broken_stream_is_opened_again_and_tells_nothing_twice(asking: Asking, pauses: list[float]) -> None:
    told = Told(
        stream(progress(0), progress(1)),
        httpx.ConnectError("refused"),
        full("4"),
        stream(progress(1), progress(2), READY),
    )
    *steps, episode = asking.ask(told, "watch_episode", EPISODE["id"])
    assert [step.step for step in steps if isinstance(step, Progress)] == [0, 1, 2]
    assert episode.state == "ready"
    assert len(pauses) == 3
    assert pauses[2] == 4


def test_a_stream_that_never_tells_the_end_is_given_up(asking: Asking, pauses: list[float]) -> None:
    with pytest.raises(UnreachableError, match="before it has told the end"):
        asking.ask(Told(*[stream() for _ in range(100)]), "watch_episode", "x")
    assert 0 < len(pauses) < 100


def test_waiting_for_what_is_deleted_or_fails_raises_why(asking: Asking) -> None:
    gone = json.dumps({"type": "/problems/gone", "title": "gone", "status": 410, "detail": "it was deleted"})
    with pytest.raises(ProblemError, match="it was deleted") as refused:
        asking.ask(Told(stream(progress(0), ("gone", gone))), "wait", "x")
    assert (refused.value.status, refused.value.kind) == (410, "gone")
    failed = json.dumps(EPISODE | {"state": "failed", "error": "the worker died three times"})
    with pytest.raises(EpisodeFailedError, match="the worker died three times"):
        asking.ask(Told(stream(("failed", failed))), "wait", "x")
