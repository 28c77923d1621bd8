"""``make gpu-check`` on a CPU with miniature models: it reports what it finds, and fails where something differs."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from benchmarks import gpu_check, measuring
from lamanas_core.adapt.adapted import Adapted
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.meta_model import MetaModel
from tests.learning.brief_training import SMALLEST, miniature

NAMES = [
    "adaptation against the CPU",
    "adaptation twice",
    "adaptations together against each alone",
    "resumed training, Algorithm 1",
    "resumed training, Algorithm 2",
    "speed of an adaptation",
    "adaptations per second, 1 at a time",
    "adaptations per second, 2 at a time",
    "speed of training, tiny, Algorithm 1",
    "speed of training, tiny, Algorithm 2",
]


@pytest.fixture(autouse=True)
def _miniatures(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(measuring, "SIDE", 16)
    model = MetaModel(initial_parameters(SMALLEST, 0), {"config": SMALLEST.to_json()})
    monkeypatch.setattr(gpu_check, "_model", lambda: model)
    with miniature():
        yield


def test_all_checks_pass_and_each_prints_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--device", "cpu"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"torch {torch.__version__} on cpu"
    assert [line.split(": ")[0] for line in lines] == [f"ok      {name}" for name in NAMES]


def test_a_machine_without_a_gpu_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu_check.main([]) == 1
    assert capsys.readouterr().err == "no GPU to check: cuda was requested, but torch finds no CUDA device\n"


def test_other_results_are_reported_and_the_remaining_checks_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    adapted, trained, calls = gpu_check._adapted, gpu_check._trained, iter(range(100))

    def different(device: str, size: gpu_check.Size, steps: int | None, seed: int = 0) -> Adapted:
        found = adapted(device, size, steps, seed)
        head, factor = found.network.head, 1 + 0.01 * next(calls)
        network = replace(found.network, head=replace(head, weight=head.weight * factor, bias=head.bias * factor))
        return replace(found, network=network, artifact=found.artifact + bytes([next(calls)]))

    for speed in ("adaptation_speed", "adaptations_per_second", "training_speed"):
        monkeypatch.setattr(gpu_check, speed, lambda *_: "1")
    monkeypatch.setattr(gpu_check, "_adapted", different)
    monkeypatch.setattr(gpu_check, "_trained", lambda config, *rest: trained(replace(config, seed=next(calls)), *rest))
    assert gpu_check.main(["--device", "cpu"]) == 1
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.partition(": ")[0].removeprefix("ok      ") for line in lines[5:]] == NAMES[5:]
    failed = [line for line in lines if line.startswith("FAILED  ")]
    assert [line.split(": ")[0].removeprefix("FAILED  ") for line in failed] == NAMES[:5]
    assert "artifacts differ" in failed[1]
    assert "logits of 2 episodes differ" in failed[2]
