"""Each of the K inner steps uses its own step sizes, its progress and the operations that are kept."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lamanas_core.adapt.inner import Step, _updated_state, steps
from lamanas_core.adapt.parameters import Parameters
from lamanas_core.config import Config, Proxy
from lamanas_core.losses.invariant import features
from lamanas_core.meta.reptile import proxy_value, reptile
from tests.learning.helpers import MINIATURE, float64_episode, float64_learner, operations_in, with_shares

FNN = replace(MINIATURE, task_learner=replace(MINIATURE.task_learner, loss="fnn"))


def taken(config: Config, parameters: Parameters, count: int, dropping: torch.Generator | None = None) -> list[Step]:
    """``count`` inner steps from ``parameters`` on a task of random images."""
    learner, _ = float64_learner(config)
    task = float64_episode()
    return list(steps(learner, parameters, task.support, task.support_labels, task.ways, count, dropping=dropping))


def moved(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> bool:
    return any(not torch.equal(value, new[name]) for name, value in old.items())


@pytest.mark.parametrize(
    ("zeroed", "expected"),
    [(0, [False, True, True, True]), (1, [True, False, True, True]), (2, [True, True, False, False])],
)
def test_each_step_uses_its_own_step_sizes_and_further_steps_the_last(zeroed: int, expected: list[bool]) -> None:
    _, parameters = float64_learner()
    assert len(parameters.theta_log_rates) == len(parameters.alpha_log_rates) == 3
    for part in ("theta", "alpha"):
        rates = getattr(parameters, f"{part}_log_rates").clone()
        rates[zeroed] = -torch.inf
        found = taken(MINIATURE, replace(parameters, **{f"{part}_log_rates": rates}), 4)
        before = [step.before[part == "alpha"] for step in found]
        assert [moved(old, getattr(step, part)) for old, step in zip(before, found, strict=True)] == expected


def only_at_the_first_step(parameters: Parameters) -> Parameters:
    """``parameters`` with a loss that is cross-entropy at progress 0 and constant afterwards."""
    logits, labels = torch.zeros(2, 3), torch.arange(2)
    of_progress = (features(logits, labels, 0.0) != features(logits, labels, 1.0)).any(0).double()
    assert of_progress.sum() == 1
    phi = {name: torch.zeros_like(value) for name, value in parameters.phi.items()}
    return replace(parameters, phi=phi | {"gate.weight": -1e4 * of_progress[None]})


def test_the_loss_gets_the_progress_of_the_inner_loop() -> None:
    _, parameters = float64_learner(FNN)
    found = taken(FNN, only_at_the_first_step(parameters), 3)
    assert [step.progress for step in found] == pytest.approx([0, 1 / 3, 2 / 3])
    assert [moved(step.before[0], step.theta) for step in found] == [True, False, False]


@pytest.mark.parametrize("proxy", ["mse", "inner_product", "cosine"])
def test_the_loss_in_the_proxy_gets_the_progress_of_the_inner_loop(proxy: Proxy) -> None:
    learner, parameters = float64_learner(FNN)
    parameters, task = only_at_the_first_step(parameters), float64_episode()
    second = taken(FNN, parameters, 3)[1]
    found, at_first = (
        float(proxy_value(learner, parameters, task, proxy, step).detach())
        for step in (second, replace(second, progress=0.0))
    )
    assert abs(found - at_first) > 1e-3
    result = reptile(learner, parameters, task, 3, torch.Generator(), proxy, "each_step", 0.01)
    assert moved(parameters.phi, {name: result.gradients[f"phi.{name}"] for name in parameters.phi})


@pytest.mark.parametrize("drop_path", [0.0, 1e-9])
@pytest.mark.parametrize("training", [False, True])
def test_an_operation_below_the_prune_threshold_is_used_only_in_training(training: bool, drop_path: float) -> None:
    """Shares of 0.03, between the training and the prune threshold, and of 0.005, below both."""
    config = replace(MINIATURE, network=replace(MINIATURE.network, train_threshold=0.01, drop_path=drop_path))
    assert config.network.train_threshold < 0.03 < config.network.prune_threshold
    _, parameters = float64_learner(config)
    parameters = with_shares(parameters, [0.4825, 0.4825, 0.03, 0.005])
    dropping = torch.Generator().manual_seed(0) if training else None
    (step,) = taken(config, parameters, 1, dropping)
    learned = {name: step.theta[name] - value for name, value in parameters.theta.items()}
    assert operations_in(learned) == ({0, 1, 2} if training else {0, 1})


def test_an_inner_step_reads_a_tensor_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU each reading waits for it. A step on the whole support set reads the shares of α, and nothing else."""
    read: list[str] = []
    for name in ("tolist", "item", "__bool__", "__int__", "__float__", "__index__", "cpu", "numpy"):
        original = getattr(torch.Tensor, name)

        def reading(self: Tensor, *args: object, name: str = name, original: Any = original) -> Any:
            read.append(name)
            return original(self, *args)

        monkeypatch.setattr(torch.Tensor, name, reading)
    _, parameters = float64_learner()
    read.clear()
    taken(MINIATURE, parameters, 2)
    # Another reading, of a constant on the CPU, is that of the number of classes.
    assert [name for name in read if name != "item"] == ["tolist"] * 2


def test_the_state_of_the_loss_network_is_updated_for_the_images_of_a_step_and_kept_for_the_others() -> None:
    hidden, cell = torch.arange(2.0).reshape(1, 2), torch.arange(2.0, 4.0).reshape(1, 2)
    first = _updated_state(None, (hidden, cell), torch.tensor([2]), 3)
    assert first is not None
    assert [part.tolist() for part in first] == [[[0, 0], [0, 0], [0, 1]], [[0, 0], [0, 0], [2, 3]]]
    second = _updated_state(first, (hidden + 10, cell + 10), torch.tensor([0]), 3)
    assert second is not None
    assert [part.tolist() for part in second] == [[[10, 11], [0, 0], [0, 1]], [[12, 13], [0, 0], [2, 3]]]
    assert _updated_state(None, None, torch.tensor([0]), 3) is None
