"""``lamanas bench`` with miniature models: it prints every documented figure. No duration is asserted."""

import json
import shlex
from dataclasses import replace

import pytest
import torch

import benchmarks.adapt
import benchmarks.photo_speed
import benchmarks.predict
import benchmarks.train
from benchmarks import measuring
from cli.bench import WHAT
from cli.main import full_parser, main
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.config import PAPER
from lamanas_core.image_spec import ImageSpec
from lamanas_core.meta_model import MetaModel
from tests.conftest import ROOT
from tests.learning.brief_training import SMALLEST
from tests.pages import blocks

SMALL_PAPER = replace(
    PAPER,
    network=replace(PAPER.network, image=ImageSpec(size=8), channels=2, nodes=1, cells=("normal", "reduction"), ways=2),
    task_learner=replace(PAPER.task_learner, steps=1, batch=2, hidden=3),
)
TIMED = {"seconds", "min", "max", "cpu_seconds", "gemm_gflops", "cost"}


@pytest.fixture(autouse=True)
def _small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "SIDE", 16)


def smallest() -> MetaModel:
    return MetaModel(initial_parameters(SMALLEST, 0), {"config": SMALLEST.to_json()})


def test_adapt_prints_one_line_with_every_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serving, paper = benchmarks.adapt.serving, benchmarks.adapt.paper
    monkeypatch.setattr(benchmarks.adapt, "serving", lambda runs: serving(runs, smallest()))
    monkeypatch.setattr(benchmarks.adapt, "paper", lambda runs: paper(runs, SMALL_PAPER))
    threads = torch.get_num_threads()
    assert main(["bench", "adapt", "--threads", str(threads), "--runs", "1", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["threads"] == threads
    assert found["gemm_gflops"] > 0
    wanted = TIMED | {"ratio", "gflop", "share_of_rate", "peak_memory_mb", "where", "research_code_cost"}
    assert wanted <= found["paper"].keys()
    assert wanted | {"phases"} <= found["serving"].keys()
    assert found["paper"]["reference"]["gflop"] > found["paper"]["gflop"] > 0
    assert sum(found["serving"]["phases"].values()) == pytest.approx(1, abs=0.01)


def test_bench_accepts_every_command_of_the_page() -> None:
    commands = blocks((ROOT / "docs" / "performance.md").read_text())
    lines = [shlex.split(line) for block in commands for line in block.splitlines()]
    asked = [full_parser().parse_args(line[1:]).what for line in lines]
    assert set(asked) == WHAT.keys()


def test_predict_compares_the_artifact_for_1_20_and_100_images() -> None:
    found = benchmarks.predict.measure(1, smallest())
    for size in (1, 20, 100):
        compared = found[f"images_{size}"]
        assert compared["artifact"].keys() == compared["pytorch"].keys() == TIMED
        assert compared["ratio"] > 0


def test_train_counts_tasks_of_both_algorithms() -> None:
    found = benchmarks.train.measure(1, SMALL_PAPER, SMALLEST)
    for algorithm in ("algorithm_1", "algorithm_2"):
        assert found["serving"][algorithm]["ours"]["tasks_per_second"] > 0
        assert found["paper"][algorithm]["ratio"] > 0
    processes = found["serving"]["processes"]
    assert min(processes.values()) > 0
    assert processes["ratio"] == processes["two"] / processes["one"]


def test_convolutions_and_products_are_counted() -> None:
    a, b = torch.ones(10, 20), torch.ones(20, 30)
    assert measuring.counted_gflop(lambda: torch.mm(a, b)) == pytest.approx(2 * 10 * 20 * 30 / 1e9)


def test_contestants_take_turns() -> None:
    order: list[str] = []
    timed = measuring.in_turns({"one": lambda: order.append("one"), "two": lambda: order.append("two")}, 2)
    assert order == ["one", "two", "one", "two"]
    assert timed["one"].keys() == TIMED


def test_photos_are_timed_from_files_to_a_classifier_and_to_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks.photo_speed, "COUNTS", (10,))
    found = benchmarks.photo_speed.measure(1, size=(320, 240))
    for compared in (found["photos_10"], found["answer"]):
        assert compared["ours"].keys() == compared["logistic_regression"].keys() == TIMED
    assert found["decoding"]["seconds"] > 0
    assert found["photo_bytes"] > 1000
