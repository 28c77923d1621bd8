"""The results that ``lamanas bench serve`` parses and compares, without any load."""

import json

import pytest

from benchmarks import load, serve


def printed(**changed: int) -> str:
    figures = {"requests": 10, "microseconds": 2_000_000, "p50": 1500, "p99": 9000, "refused": 0, "broken": 0}
    return "Running 2s test\n\n" + json.dumps(figures | changed) + "\n"


def test_figures_are_read_from_the_last_line_of_wrk() -> None:
    found = load.figures(printed(), "get_1")
    assert found == {"requests": 10, "requests_per_second": 5.0, "p50_ms": 1.5, "p99_ms": 9.0}


@pytest.mark.parametrize("wrong", [{"refused": 1}, {"broken": 1}, {"requests": 0}])
def test_failed_requests_raise_an_error(wrong: dict[str, int]) -> None:
    with pytest.raises(load.LoadError, match="get_1"):
        load.figures(printed(**wrong), "get_1")


def test_missing_wrk_raises_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(load.LoadError, match="wrk is not installed"):
        load.program()


def test_get_is_compared_with_post_for_a_server_without_get() -> None:
    cell = {"requests_per_second": 4.0, "p50_ms": 1.0, "p99_ms": 2.0, "cpu_ms": 1.0}
    found = serve.ratios(
        {"lamanas": {"get_1_c1": cell}, "litserve": {"post_1_c1": cell | {"requests_per_second": 2.0}}}
    )
    assert found["to_litserve"]["get_1_c1"]["requests_per_second"] == 2.0  # type: ignore[index]


def test_twenty_images_are_sent_in_one_body() -> None:
    ((path, body),) = serve.requests_of("post_20", "id", [b"image"] * 20)
    assert (path, len(json.loads(body)["images"])) == ("/predict", 20)
