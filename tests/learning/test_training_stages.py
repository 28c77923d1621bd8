"""The parameters that the warm-up and the meta-training change, by how much, and those that they keep."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from lamanas_core.adapt.inner import TaskLearner, steps
from lamanas_core.adapt.parameters import Parameters, Tensors, initial_parameters
from lamanas_core.config import Config, TrainingConfig
from lamanas_core.data.episodes import sample_episode, to_float
from lamanas_core.data.folders import load_all, load_dataset
from lamanas_core.data.sources.glyphs import write_folders
from lamanas_core.measure.evaluate import EvaluationConfig, evaluate
from lamanas_core.meta.gradient import MetaGradient
from lamanas_core.meta.maml import maml
from lamanas_core.meta_model import MetaModel, write
from lamanas_core.recipe import Recipe
from lamanas_core.train import checkpoint
from lamanas_core.train import loop as training
from lamanas_core.train.loop import (
    TrainingDivergedError,
    TrainingProgress,
    TrainingStopped,
    _apply,
    train,
)
from lamanas_core.train.run_folder import Curves, read_curves
from lamanas_core.train.run_state import RunState, begin
from lamanas_core.train.starting import starting_parameters
from lamanas_core.train.tasks import TaskSource
from tests.learning.brief_training import EPISODES, SMALLEST, brief, brief_recipe, miniature, trained
from tests.learning.helpers import MINIATURE


@pytest.fixture(scope="module")
def glyphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("glyphs")
    write_folders(folder, classes=20, images=4, seed=0)
    return folder


def start_of(options: TrainingConfig, config: Config = SMALLEST) -> Parameters:
    """The initial parameters of a training with this configuration."""
    with miniature(config):
        return starting_parameters(options.model_config(), options.start, options.seed)


def last_weights(run_dir: Path) -> Tensors:
    """The parameters, not their running average, in the last checkpoint of a run."""
    saved = checkpoint.load(run_dir)
    assert saved is not None
    return {name.removeprefix("now."): value for name, value in saved[0].items() if name.startswith("now.")}


WARM_UP_ONLY = brief(warm_up_epochs=1, meta_epochs=0)
META_ONLY = brief(warm_up_epochs=0, meta_epochs=1, meta_batch=1)


@pytest.mark.parametrize("first_order", [False, True])
def test_a_meta_step_descends_the_gradient_of_the_requested_order(
    glyphs: Path, tmp_path: Path, first_order: bool
) -> None:
    options = replace(META_ONLY, first_order=first_order)
    start = start_of(options, MINIATURE)
    with miniature(MINIATURE):
        after = trained(options, glyphs, tmp_path).parameters.named()
        seed = int(torch.randint(2**31, (1,), generator=torch.Generator().manual_seed(options.seed)))
        config = options.model_config()
        classes = load_dataset(glyphs, config.network.image)["train"]
        task = TaskSource(options, config, brief_recipe(), classes, "cpu").adaptation_task(seed)

    def gradients(first: bool) -> Tensors:
        source = torch.Generator().manual_seed(seed + 1)
        order = "first" if first else "second"
        return maml(TaskLearner.build(config), start, task, config.task_learner.steps, source, order).gradients  # type: ignore[arg-type]

    def signs(tensors: Tensors) -> Tensor:
        return torch.cat([tensors[f"theta.{name}"].sign().flatten() for name in start.theta])

    # The first step of Adam has the sign of the gradient.
    moved = signs({name: value - after[name] for name, value in start.named().items()})
    agreeing = {first: float((moved == signs(gradients(first))).float().mean()) for first in (False, True)}
    assert agreeing[first_order] > 0.99
    assert agreeing[not first_order] < 0.8


@pytest.mark.parametrize("meta", ["maml", "reptile"])
@pytest.mark.parametrize("stage", [WARM_UP_ONLY, META_ONLY], ids=["warm_up", "meta"])
def test_a_fixed_architecture_stays_as_it_was_in_each_stage_and_in_adaptation(
    glyphs: Path, tmp_path: Path, stage: TrainingConfig, meta: Literal["maml", "reptile"]
) -> None:
    support = to_float(
        sample_episode(load_all(glyphs, SMALLEST.network.image), 3, 2, 1, torch.Generator().manual_seed(0)).support
    )
    for fixed in (False, True):
        options = replace(stage, fixed_architecture=fixed, meta=meta)
        start, folder = start_of(options), tmp_path / str(fixed)
        with miniature():
            model = trained(options, glyphs, folder)
        after, now = model.parameters.named(), last_weights(folder)
        for name, value in start.named().items():
            if name.startswith("alpha."):
                assert (torch.equal(value, after[name]) and torch.equal(value, now[name])) == fixed, name
        assert any(not torch.equal(value, after[f"theta.{name}"]) for name, value in start.theta.items())
        labels = torch.arange(3).repeat_interleave(2)
        [step] = steps(model.learner, model.parameters, support, labels, 3, 1)
        assert all(torch.equal(step.alpha[name], value) for name, value in model.parameters.alpha.items()) == fixed
        assert any(not torch.equal(step.theta[name], value) for name, value in model.parameters.theta.items())


@pytest.mark.parametrize("options", [WARM_UP_ONLY, META_ONLY], ids=["warm_up", "meta"])
def test_each_stage_trains_the_scale_of_the_head(glyphs: Path, tmp_path: Path, options: TrainingConfig) -> None:
    with miniature():
        after = trained(options, glyphs, tmp_path).parameters
    assert float(after.log_scale) != float(start_of(options).log_scale)


def test_a_warm_up_keeps_a_running_average_of_its_weights(glyphs: Path, tmp_path: Path) -> None:
    start = start_of(WARM_UP_ONLY).named()
    with miniature():
        kept = trained(WARM_UP_ONLY, glyphs, tmp_path, steps=1).parameters.named()
    now = last_weights(tmp_path)
    assert any(not torch.equal(value, now[name]) for name, value in start.items() if name.startswith("theta."))
    for name, value in start.items():
        torch.testing.assert_close(kept[name], torch.lerp(value, now[name], 0.002), msg=name)


def test_a_warm_up_from_a_trained_model_does_not_train_dropped_operations(glyphs: Path, tmp_path: Path) -> None:
    """α has options one operation per edge; at the initial temperature of a warm-up it would mix all of them again."""
    start = start_of(WARM_UP_ONLY, MINIATURE)
    chosen_operation = MINIATURE.network.operations.index("conv_3x3")
    for kind in ("normal", "reduction"):
        start.alpha[f"{kind}.operations"].zero_()[:, chosen_operation] = 1.0
    with miniature(MINIATURE):
        write(MetaModel(start, {"config": WARM_UP_ONLY.model_config().to_json()}), tmp_path / "start")
        trained(replace(WARM_UP_ONLY, start=str(tmp_path / "start")), glyphs, tmp_path / "run", steps=1)
    now = last_weights(tmp_path / "run")
    # Initially 0, which weight decay does not change: only a gradient can.
    biases = [name for name in now if ".edges." in name and name.endswith("norm.bias")]
    moved = {name.split(".")[5] for name in biases if bool(now[name].any())}
    assert len({name.split(".")[5] for name in biases}) > 1
    assert moved == {str(chosen_operation)}


@pytest.mark.parametrize("options", [WARM_UP_ONLY, META_ONLY], ids=["warm_up", "meta"])
def test_validation_adapts_in_the_meta_training_but_not_in_the_warm_up(
    glyphs: Path, tmp_path: Path, options: TrainingConfig
) -> None:
    # Step sizes so large that they change predictions.
    config = replace(MINIATURE, task_learner=replace(MINIATURE.task_learner, theta_rate=100.0))
    with miniature(config):
        model = trained(options, glyphs, tmp_path)
    classes = load_dataset(glyphs, config.network.image)["val"]

    def accuracy(steps: int | None) -> float:
        evaluation = EvaluationConfig(
            len(classes), shots=1, queries=2, episodes=EPISODES, seed=options.seed, steps=steps
        )
        return evaluate(model, classes, evaluation, lambda number: None).accuracy

    plain, adapted = accuracy(0), accuracy(None)
    assert abs(plain - adapted) > 0.1
    expected = plain if options is WARM_UP_ONLY else adapted
    assert read_curves(tmp_path)[-1]["validation_accuracy"] == pytest.approx(expected)


def test_the_learning_rate_rises_and_falls_in_each_stage(
    glyphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[bool, list[float]]] = []

    def recording(
        run: RunState, optimizer: torch.optim.Optimizer, gradients: list[MetaGradient], rate: float, recipe: Recipe
    ) -> None:
        _apply(run, optimizer, gradients, rate, recipe)
        warm_up = optimizer is run.warm_up
        rates = [group["lr"] for group in optimizer.param_groups]
        calls.append((warm_up, [rate / peak for rate, peak in zip(rates, peaks[warm_up], strict=True)]))

    peaks = {True: [2e-3, 1.5e-2, 1e-2], False: [1e-4, 1e-3, 1e-2, 1e-1, 1e-3]}
    monkeypatch.setattr(training, "_apply", recording)
    with miniature():
        trained(brief(warm_up_epochs=1, meta_epochs=4, meta_batch=1), glyphs, tmp_path)
    # Up to the peak within the first fiftieth of a stage, then along half a cosine to a fiftieth of the peak.
    falling = [0.49 * (1 + math.cos(math.pi * done)) + 0.02 for done in (0.25, 0.5, 0.75)]
    expected = [(True, 0.05), (True, falling[1]), (False, 0.05), *((False, rate) for rate in falling)]
    assert [warm_up for warm_up, _ in calls] == [warm_up for warm_up, _ in expected]
    for (_, shares), (_, rate) in zip(calls, expected, strict=True):
        assert shares == pytest.approx([rate] * len(shares))


@pytest.mark.parametrize("stage", ["warm_up", "meta"])
def test_large_gradients_are_clipped_and_small_ones_are_not(stage: str) -> None:
    with miniature():
        run = begin(brief(), initial_parameters(brief().model_config(), 0), brief_recipe(), ())
    optimizer = run.warm_up if stage == "warm_up" else run.meta
    parameters = run.parameters
    rates = [parameters.theta_log_rates, parameters.alpha_log_rates]
    parts = {"theta": list(parameters.theta.values()), "phi": list(parameters.phi.values()), "rates": rates}
    limits = {"theta": 5.0, "phi": 1.0, "rates": 1.0}
    for times, expected in ((100.0, 1.0), (0.5, 0.5)):
        gradients = {name: torch.zeros_like(value) for name, value in parameters.named().items()}
        for part, values in parts.items():
            count = sum(value.numel() for value in values)
            for name, gradient in gradients.items():
                if name.startswith(part):
                    gradient += times * limits[part] / math.sqrt(count)
        _apply(run, optimizer, [MetaGradient(gradients, 0.0)], 1.0, brief_recipe())
        for part, values in parts.items():
            found = torch.cat([value.grad.flatten() for value in values if value.grad is not None]).norm()
            assert float(found) == pytest.approx(expected * limits[part], rel=1e-4), part


def with_infinite(monkeypatch: pytest.MonkeyPatch, *numbers: int, value: float = math.inf) -> list[Tensors]:
    """Give the tasks with these numbers, counted from 0 over all stages, one infinite entry in their meta-gradients.

    Returns θ as each task sees it; it is filled by the training.
    """
    seen: list[Tensors] = []
    true_gradient = training._gradient

    def gradient(
        source: TaskSource, learner: TaskLearner, run: RunState, seed: int, warmed: float | None
    ) -> MetaGradient:
        found = true_gradient(source, learner, run, seed, warmed)
        if len(seen) in numbers:
            found.gradients["theta.stem.weight"].view(-1)[0] = value
        seen.append({name: tensor.detach().clone() for name, tensor in run.parameters.theta.items()})
        return found

    monkeypatch.setattr(training, "_gradient", gradient)
    return seen


def finite(tensors: Tensors) -> bool:
    return all(bool(value.isfinite().all()) for value in tensors.values())


# Tasks 0 to 3 are the warm-up's, two in each of its two steps; tasks 4 to 7 those of the two meta-epochs.
TWO_EACH = {"warm_up_epochs": 1, "warm_up_batch": 2, "meta_epochs": 2, "meta_batch": 2}


@pytest.mark.parametrize("meta", ["maml", "reptile"])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_no_step_is_made_on_infinite_gradients(
    glyphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meta: str, value: float
) -> None:
    seen = with_infinite(monkeypatch, 0, 1, 4, 6, 7, value=value)
    with miniature():
        model = trained(brief(meta=meta, **TWO_EACH), glyphs, tmp_path)
    assert finite(model.parameters.named())
    assert finite(last_weights(tmp_path))
    first, *_, last = seen
    # Neither the parameters nor the momentum or the decay of weights change without a finite gradient.
    assert all(torch.equal(first[name], other) for name, other in seen[2].items())
    assert all(torch.equal(last[name], other) for name, other in theta_of(tmp_path).items())
    assert not all(torch.equal(seen[2][name], other) for name, other in seen[4].items())
    # One of two tasks is enough for a step.
    assert not all(torch.equal(seen[4][name], other) for name, other in seen[6].items())


def theta_of(run_dir: Path) -> Tensors:
    weights = last_weights(run_dir)
    return {name.removeprefix("theta."): value for name, value in weights.items() if name.startswith("theta.")}


def test_a_step_is_made_on_the_finite_gradients_of_a_batch(
    glyphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = brief(warm_up_epochs=0, meta_epochs=1, meta_batch=2)
    with_infinite(monkeypatch, 1)
    steps: list[list[MetaGradient]] = []

    def recording(
        run: RunState, optimizer: torch.optim.Optimizer, gradients: list[MetaGradient], rate: float, recipe: Recipe
    ) -> None:
        steps.append(gradients)

    monkeypatch.setattr(training, "_apply", recording)
    with miniature():
        trained(options, glyphs, tmp_path)
    ((only,),) = steps
    assert finite(only.gradients)
    assert read_curves(tmp_path)[0]["loss"] == only.loss


def test_the_curves_and_the_card_count_skipped_tasks_also_after_a_resumption(
    glyphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = with_infinite(monkeypatch, 0, 1, 2, 3, 5, 6)
    told: list[TrainingProgress] = []

    def on_progress(progress: TrainingProgress) -> None:
        told.append(progress)

    def attempt(should_stop: Callable[[], bool]) -> MetaModel:
        options, recipe = brief(**TWO_EACH), brief_recipe()
        return train(
            options, glyphs, tmp_path, device="cpu", on_progress=on_progress, should_stop=should_stop, recipe=recipe
        )

    with miniature():
        with pytest.raises(TrainingStopped):
            attempt(lambda: len(seen) == 6)
        model = attempt(lambda: False)
    assert [row["skipped_tasks"] for row in read_curves(tmp_path)] == [4, 1, 1]
    assert [row["loss"] is None for row in read_curves(tmp_path)] == [True, False, False]
    assert model.card["metrics"]["skipped_tasks"] == 6
    assert told[0].loss is None  # none is known yet
    assert {each.warm_up_epochs for each in told} == {brief(**TWO_EACH).warm_up_epochs}
    # The time goes on where the interrupted run was.
    assert 0 < told[0].seconds < told[1].seconds < told[2].seconds


def test_an_epoch_without_finite_gradients_reports_the_loss_of_the_one_before(
    glyphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_infinite(monkeypatch, 1, 2)
    told: list[float | None] = []
    with miniature():
        train(
            brief(warm_up_epochs=0, meta_epochs=3, meta_batch=1),
            glyphs,
            tmp_path,
            device="cpu",
            on_progress=lambda progress: told.append(progress.loss),
            should_stop=lambda: False,
            recipe=brief_recipe(),
        )
    assert told[0] is not None
    assert told == [told[0]] * 3
    assert [row["loss"] for row in read_curves(tmp_path)] == [told[0], None, None]


def test_ten_tasks_in_a_row_without_a_finite_gradient_end_a_training(
    glyphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = brief(warm_up_epochs=1, warm_up_batch=1, meta_epochs=12, meta_batch=1)
    seen = with_infinite(monkeypatch, *range(9), *range(10, 30))
    with miniature(), pytest.raises(TrainingDivergedError, match=r"of 10 tasks in a row .* epoch 19"):
        trained(replace(options, meta_epochs=30), glyphs, tmp_path)
    assert len(seen) == 20  # task 9 was finite
    saved = checkpoint.load(tmp_path)
    assert saved is not None
    assert saved[1]["epoch"] == 18
    assert finite(saved[0] | {"generator": torch.zeros(())})


@pytest.mark.parametrize("ended_by", ["training", "listener"])
def test_the_curves_of_a_run_that_ends_early_are_closed(
    glyphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended_by: str
) -> None:
    closed: list[Path] = []
    monkeypatch.setattr(Curves, "close", lambda curves: closed.append(curves.folder))

    def end(progress: TrainingProgress) -> None:
        raise TrainingStopped

    with miniature(), pytest.raises(TrainingStopped) as raised:
        train(
            brief(),
            glyphs,
            tmp_path,
            device="cpu",
            on_progress=end,
            should_stop=lambda: ended_by == "training",
            recipe=brief_recipe(),
        )
    assert raised.value is not None  # with its traceback, which holds what the training had open
    assert closed == [tmp_path]


@pytest.mark.parametrize("loss", [math.inf, math.nan])
def test_a_task_whose_loss_is_infinite_is_not_finite(loss: float) -> None:
    tensors = {"theta.a": torch.zeros(2), "alpha.b": torch.ones(())}
    assert MetaGradient(tensors, 1.0).finite()
    assert not MetaGradient(tensors, loss).finite()
    assert not MetaGradient(tensors | {"phi.c": torch.tensor([1.0, loss])}, 1.0).finite()
