"""Training can start from a meta-model with the same network."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.adapt.parameters import Parameters, initial_parameters
from lamanas_core.config import PAPER, PRESETS, Config, LossKind
from lamanas_core.image_spec import ImageSpec
from lamanas_core.losses.slope import slope_along_entropy
from lamanas_core.meta_model import MetaModel, shipped, write
from lamanas_core.train.starting import starting_parameters
from tests.learning.helpers import MINIATURE

PAPER_IN_SMALL = replace(
    PAPER, network=replace(PAPER.network, image=ImageSpec(size=8), channels=2, nodes=1, cells=("normal",))
)


def earlier() -> Parameters:
    """Parameters of a trained model: all differ from initial ones."""
    parameters = initial_parameters(MINIATURE, 1)
    rates = parameters.theta_log_rates - 1, parameters.alpha_log_rates - 1
    return replace(parameters, theta_log_rates=rates[0], alpha_log_rates=rates[1], log_scale=parameters.log_scale + 1)


@pytest.fixture
def before(tmp_path: Path) -> Path:
    write(MetaModel(earlier(), {"config": MINIATURE.to_json()}), tmp_path)
    return tmp_path


def test_all_parameters_are_taken_from_a_model_of_the_same_configuration(before: Path) -> None:
    started = starting_parameters(MINIATURE, str(before), seed=0).named()
    assert all(torch.equal(value, started[name]) for name, value in earlier().named().items())


def test_tensors_read_back_keep_the_order_of_step_sizes_and_optimizers(before: Path) -> None:
    started = starting_parameters(MINIATURE, str(before), seed=0)
    assert list(started.named()) == list(earlier().named())


def test_loss_and_step_sizes_are_initialised_for_another_task_learner(before: Path) -> None:
    other = replace(MINIATURE, task_learner=replace(MINIATURE.task_learner, loss="fnn"))
    started = starting_parameters(other, str(before), seed=0)
    found, old, fresh = started.named(), earlier().named(), initial_parameters(other, 0).named()
    assert found.keys() == fresh.keys()
    for name, value in found.items():
        anew = name.startswith(("phi.", "rates."))
        torch.testing.assert_close(value, (fresh if anew else old)[name], rtol=0, atol=0, msg=name)


def test_a_model_with_another_network_is_refused(before: Path) -> None:
    other = replace(MINIATURE, network=replace(MINIATURE.network, channels=3))
    with pytest.raises(ValueError, match="its network differs"):
        starting_parameters(other, str(before), seed=0)


def test_the_number_of_classes_of_another_linear_head_is_named(tmp_path: Path) -> None:
    config = replace(PAPER_IN_SMALL, network=replace(PAPER_IN_SMALL.network, ways=7))
    write(MetaModel(initial_parameters(config, 1), {"config": config.to_json()}), tmp_path)
    with pytest.raises(ValueError, match="its head has 7 classes, that of this training 20: set ways to 7"):
        starting_parameters(PAPER_IN_SMALL, str(tmp_path), seed=0)


def test_a_model_whose_network_drops_other_operations_is_accepted(before: Path) -> None:
    dropping = replace(MINIATURE.network, prune_threshold=0.1, train_threshold=0.02, drop_path=0.3)
    started = starting_parameters(replace(MINIATURE, network=dropping), str(before), seed=0)
    assert all(torch.equal(value, started.named()[name]) for name, value in earlier().named().items())


def test_training_can_start_from_the_shipped_model() -> None:
    model = MetaModel.from_bytes(*shipped())
    started = starting_parameters(PRESETS["serving"], "shipped", seed=0)
    assert all(torch.equal(value, started.theta[name]) for name, value in model.parameters.theta.items())


@pytest.mark.parametrize("kind", ["fnn", "lstm"])
@pytest.mark.parametrize("config", [MINIATURE, PAPER_IN_SMALL], ids=["serving", "paper"])
def test_no_loss_initially_decreases_where_cross_entropy_increases(config: Config, kind: LossKind) -> None:
    config = replace(config, task_learner=replace(config.task_learner, loss=kind, residual=False))
    learner = TaskLearner.build(config)
    falling = []
    for seed in range(16):
        learner.loss.load_state_dict(initial_parameters(config, seed).phi)
        if slope_along_entropy(learner.loss) < 0:
            falling.append(seed)
        started = starting_parameters(config, None, seed)
        learner.loss.load_state_dict(started.phi)
        assert slope_along_entropy(learner.loss) >= 0, seed
        assert all(torch.equal(value, started.theta[n]) for n, value in initial_parameters(config, seed).theta.items())
    assert falling
