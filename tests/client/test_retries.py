"""What is sent again, after what pause and how often; and what is raised otherwise."""

import gzip
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from lamanas_client import NotLamanasError, ProblemError, Retries, UnreachableError
from tests.client.asking import EPISODE, Asking, Chunks, Clock, Told, problem

SUPPORT = {"a": [b"1"], "b": [b"2"]}


def full(retry_after: str) -> httpx.Response:
    return problem(503, "queue-full", "the queue is full", {"Retry-After": retry_after})


def date(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


def backoff(pauses: list[float]) -> bool:
    """Whether these are the client's own pauses: growing exponentially, at random between a half and the whole."""
    bounds = [min(5, 0.25 * 2**n) for n in range(len(pauses))]
    return all(bound / 2 <= pause <= bound for bound, pause in zip(bounds, pauses, strict=True))


def test_an_overloaded_service_is_asked_again_after_the_time_it_named(asking: Asking, clock: Clock) -> None:
    limited = problem(429, "rate-limited", "too many requests", {"Retry-After": "2.5"})
    told = Told(full("3"), limited, httpx.Response(202, json=EPISODE))
    assert asking.ask(told, "create_episode", SUPPORT).id == EPISODE["id"]
    assert clock.pauses == [3, 2.5]


@pytest.mark.parametrize("zone", ["GMT", "-0000"])
def test_retry_after_may_be_a_date(asking: Asking, clock: Clock, zone: str) -> None:
    answers = Told(full(date(28).replace("GMT", zone)), httpx.Response(200, json=EPISODE))
    asking.ask(answers, "get_episode", "x")
    assert 5 < clock.pauses[0] <= 28  # its own pause would have been a quarter of a second


@pytest.mark.parametrize(
    "value",
    [
        "0",
        "0.0",
        "-5",
        "Sat, 01 Jan 2000 00:00:00 GMT",
        "Mon, 01 Jan 0001 00:00:00 +2300",
        "Fri, 1 Jan 99999999999999 00:00:00 GMT",
        "",
        "soon",
        "1e30",
        "inf",
        "nan",
        "٣",
        "1;2",
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_without_a_usable_retry_after_the_pauses_grow(asking: Asking, clock: Clock, status: int, value: str) -> None:
    told = Told(*[problem(status, "busy", "busy", {"Retry-After": value.encode()}) for _ in range(100)])  # type: ignore[dict-item]
    with pytest.raises(ProblemError, match="busy") as refused:
        asking.ask(told, "get_episode", "x")
    assert refused.value.retry_after in (None, 0)
    assert len(told.asked) == 10
    assert len(clock.pauses) == 9
    assert backoff(clock.pauses)


@pytest.mark.parametrize(
    "value",
    ["121", "1" + "0" * 30, "9" * 400, date(3600), "Fri, 31 Dec 9999 23:59:59 GMT"],
    ids=["121 seconds", "31 digits", "400 digits", "in an hour", "in the year 9999"],  # equal in every process
)
def test_a_retry_after_past_the_deadline_is_not_waited_for(asking: Asking, clock: Clock, value: str) -> None:
    told = Told(full(value))
    with pytest.raises(ProblemError, match="the queue is full") as refused:
        asking.ask(told, "get_episode", "x")
    assert clock.pauses == []
    assert refused.value.retry_after is not None
    assert 120 < refused.value.retry_after <= 1e9


def test_a_service_without_retry_after_is_asked_with_growing_pauses(asking: Asking, clock: Clock) -> None:
    told = Told(*[problem(503, "busy", "busy") for _ in range(5)], httpx.Response(200, json=EPISODE))
    asking.ask(told, "get_episode", "x")
    assert len(clock.pauses) == 5
    assert backoff(clock.pauses)


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError])
def test_an_unavailable_service_is_asked_ten_times(asking: Asking, clock: Clock, error: type[Exception]) -> None:
    told = Told(*[error("no connection")] * 100)
    with pytest.raises(UnreachableError, match="http://stub/episodes/x does not respond: no connection"):
        asking.ask(told, "get_episode", "x")
    assert len(told.asked) == 10
    assert backoff(clock.pauses)


def test_the_number_of_attempts_can_be_set(asking: Asking, clock: Clock) -> None:
    for retries, count in ((Retries(attempts=3), 3), (Retries(attempts=1), 1), (None, 1)):
        asking.options = {"retries": retries}
        for answer in (httpx.ConnectError("refused"), problem(503, "busy", "busy")):
            told = Told(*[answer] * 100)
            with pytest.raises((UnreachableError, ProblemError)):
                asking.ask(told, "get_episode", "x")
            assert len(told.asked) == count


@pytest.mark.parametrize("options", [{"attempts": 0}, *({"deadline": s} for s in (0, -1, float("inf"), float("nan")))])
def test_retries_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Retries(**options)


def test_all_attempts_at_a_submission_carry_one_key_and_the_next_submission_another(
    asking: Asking, clock: Clock
) -> None:
    created = httpx.Response(202, json=EPISODE)
    told = Told(httpx.ReadError("gone"), full("1"), created, created)
    asking.ask(told, "create_episode", SUPPORT)
    asking.ask(told, "create_episode", SUPPORT)
    keys = [request.headers["idempotency-key"] for request in told.asked]
    assert len(keys[0]) >= 32
    assert keys[0] == keys[1] == keys[2] != keys[3]


@pytest.mark.parametrize("status", [502, 504])
def test_a_proxy_whose_service_was_lost_is_asked_again_where_that_does_no_harm(
    asking: Asking, clock: Clock, status: int
) -> None:
    lost = httpx.Response(status, text="<h1>nginx</h1>")
    told = Told(lost, httpx.Response(202, json=EPISODE))
    assert asking.ask(told, "create_episode", SUPPORT).id == EPISODE["id"]
    again = Told(lost, httpx.Response(200))
    with pytest.raises(NotLamanasError):
        asking.ask(again, "activate_model", "x")
    assert len(again.asked) == 1


@pytest.mark.parametrize("method", ["activate_model", "cancel_training", "resume_training"])
@pytest.mark.parametrize("error", [httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadTimeout])
def test_a_post_without_a_key_that_may_have_been_processed_is_not_sent_again(
    asking: Asking, clock: Clock, method: str, error: type[Exception]
) -> None:
    told = Told(httpx.ConnectError("refused"), full("1"), error("lost"), httpx.Response(200))
    with pytest.raises(UnreachableError, match="lost"):
        asking.ask(told, method, "x")
    assert len(told.asked) == 3
    assert all("idempotency-key" not in request.headers for request in told.asked)


def test_predictions_are_requested_again_after_a_broken_connection(asking: Asking, clock: Clock) -> None:
    told = Told(httpx.ReadError("gone"), httpx.Response(200, json={"predictions": []}))
    assert asking.ask(told, "predict", "x", [b"1"]) == []
    assert len(told.asked) == 2


def test_a_refusal_is_raised_at_once_in_the_words_of_the_service(asking: Asking, clock: Clock) -> None:
    told = Told(problem(422, "invalid-image", "images[3] (cat.png): empty", image="images[3] (cat.png)"))
    with pytest.raises(ProblemError, match=r"^images\[3\] \(cat\.png\): empty$") as refused:
        asking.ask(told, "create_episode", SUPPORT)
    assert (refused.value.kind, refused.value.status, refused.value.image) == (
        "invalid-image",
        422,
        "images[3] (cat.png)",
    )
    assert refused.value.retry_after is None
    assert clock.pauses == []


@pytest.mark.parametrize(
    ("status", "text"), [(404, "<h1>nginx</h1>"), (200, "[]"), (200, "hello"), (500, ""), (301, "")]
)
def test_another_server_at_the_address_is_recognised(asking: Asking, status: int, text: str) -> None:
    with pytest.raises(NotLamanasError, match=r"http://stub/episodes/x .* is that a LAMANAS service"):
        asking.ask(Told(httpx.Response(status, text=text)), "get_episode", "x")


def test_a_compressed_response_is_read(asking: Asking) -> None:
    content = gzip.compress(json.dumps(EPISODE).encode())
    response = httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=Chunks(content[:20], content[20:]))
    assert asking.ask(Told(response), "get_episode", "x").id == EPISODE["id"]


@pytest.mark.parametrize("method", ["get_episode", "watch_episode"])
@pytest.mark.parametrize("status", [200, 404])
def test_a_response_that_cannot_be_decompressed_is_not_from_the_service(
    asking: Asking, method: str, status: int
) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Type": "text/event-stream"}
    told = Told(httpx.Response(status, headers=headers, stream=Chunks(b"damaged")))
    with pytest.raises(NotLamanasError, match=r"unexpected response from http://stub/.* \(.+\): is that a LAMANAS"):
        asking.ask(told, method, "x")
    assert len(told.asked) == 1
