"""The training loop: a warm-up of θ and α on a prototype loss, then meta-training of all parameters."""

import math
import time
from collections.abc import Callable, Generator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.adapt.parameters import Parameters, initial_parameters
from lamanas_core.config import Config, TrainingConfig
from lamanas_core.data.folders import ImageClasses, lake_split, load_dataset, notes
from lamanas_core.data.maps import in_mixed_light, in_styles, with_inputs
from lamanas_core.data.splits import DamagedImageError, DatasetError, Split
from lamanas_core.devices import half_precision
from lamanas_core.measure.calibrate import calibrated
from lamanas_core.measure.evaluate import EvaluationConfig, evaluate
from lamanas_core.meta.gradient import MetaGradient
from lamanas_core.meta.maml import maml
from lamanas_core.meta.reptile import reptile
from lamanas_core.meta.warm_up import warm_up_gradient
from lamanas_core.meta_model import MetaModel, read
from lamanas_core.recipe import Recipe, Schedule, recipe_for
from lamanas_core.train import checkpoint, run_folder
from lamanas_core.train.card import model_card
from lamanas_core.train.distributed import Ranks
from lamanas_core.train.run_state import RunState, begin
from lamanas_core.train.starting import load_start, starting_parameters, with_prior_of
from lamanas_core.train.tasks import TaskSource
from lamanas_core.train.trained_classes import refuse_trained, split_after, trained_digests

# A training in which as many tasks in a row have no finite meta-gradient has diverged.
MOST_SKIPPED = 10


class TrainingStopped(Exception):  # noqa: N818 - requested, not an error
    """The training was stopped at the caller's request; it can be resumed from its last checkpoint."""


class TrainingDivergedError(ValueError):
    """``MOST_SKIPPED`` tasks in a row had no finite meta-gradient. The last checkpoint is left as it is."""


@dataclass(frozen=True)
class TrainingProgress:
    """The progress of a run after ``epoch`` of ``epochs`` epochs, warm-up included.

    ``loss``: the outer loss, averaged over the epoch's tasks with finite gradients. If there are none, it is that of
    the epoch before; None before the first one. ``validation_accuracy``: the latest one (0..1), None before the first
    validation. ``warm_up_epochs``: how many of ``epochs`` are warm-up, the first ones. ``seconds``: the time spent on
    training, before an interruption too. ``eta_seconds``: the estimated time left, in seconds. ``notes``: what is to be
    told about how the data set was read. ``saved``: whether the run's checkpoint is that of this epoch.
    """

    epoch: int
    epochs: int
    loss: float | None
    validation_accuracy: float | None
    warm_up_epochs: int
    seconds: float
    eta_seconds: float | None
    notes: tuple[str, ...] = ()
    saved: bool = False


def train(
    config: TrainingConfig,
    data: Path,
    run_dir: Path,
    *,
    device: str,
    on_progress: Callable[[TrainingProgress], None],
    should_stop: Callable[[], bool],
    ranks: Ranks = Ranks(),  # noqa: B008 - immutable
    recipe: Recipe | None = None,
) -> MetaModel:
    """Train on the training split of ``data`` and return the calibrated meta-model, on the CPU.

    If ``run_dir`` has a checkpoint, training resumes from it and gives the same bits as without interruption.
    ``recipe``: None for the preset's. ``on_progress`` is called after each epoch, ``should_stop`` before each task, and
    while a backbone's maps are computed, which is before the first epoch and after the last one. All processes of
    ``ranks`` are given the same arguments; only rank 0 writes files, validates, reports progress and calibrates.

    Raises DatasetError; TrainingStopped; TrainingDivergedError; FileNotFoundError and MetaModelError for
    ``config.start`` and ``config.pretrained``; and ValueError if the checkpoint has a different configuration or
    recipe.
    """
    recipe = recipe_for(config.preset) if recipe is None else recipe
    model_config = config.model_config()
    learner = TaskLearner.build(model_config, device, half_precision=half_precision(device))
    initial = starting_parameters(model_config, config.start, config.seed, config.pretrained)
    saved = checkpoint.load(run_dir)
    if saved is not None:
        _check_same(config, recipe, saved[1], run_dir)
    splits = ranks.first_before_others(lambda: _load(config, model_config, data, run_dir, write=ranks.first))
    told = notes(data)
    network, check = learner.network, partial(_stop_if_asked, should_stop)
    styles = recipe.tasks.cached_styles
    epochs_left = saved is None or saved[1]["epoch"] < config.epochs
    if epochs_left:
        tasks_from = in_styles(splits["train"], network, recipe.styles, styles, 0, check)
        if saved is None and config.start is None:
            initial = with_prior_of(initial, learner, tasks_from)
    run = begin(config, initial.map(lambda tensor: tensor.to(device)), recipe, network.fixed)
    if saved is not None:
        run.restore(*saved)
    if epochs_left:
        source = TaskSource(config, model_config, recipe, tasks_from, device)
        val = with_inputs(splits["val"], network, check=check) if ranks.first else splits["val"]
        with closing(_epochs(source, learner, run, val, run_dir, ranks, should_stop)) as epochs:
            for progress in epochs:
                on_progress(replace(progress, notes=told))
        del tasks_from, source, val  # of photos, they take as much memory again as what follows, and more
    # Of a run that was stopped after its last epoch, this and the calibration are left.
    _keep_phi(config, recipe, run, run_dir, ranks)
    metrics = {
        "validation_accuracy": run.validation,
        "training_seconds": round(run.seconds),
        "skipped_tasks": run.skipped,
    }
    card = model_card(config, recipe, splits, data, told, metrics)
    model = MetaModel(run.average.map(lambda tensor: tensor.detach().cpu()), card)
    if not ranks.first:
        return model
    # In mixed light: photos of new things are harder than those of the things that a training resembles.
    mixed = in_mixed_light(splits["val"], network, recipe.styles, styles, config.seed, check)
    return calibrated(model, with_inputs(mixed, network, check=check), config.seed, recipe.calibration)


def _epochs(
    source: TaskSource,
    learner: TaskLearner,
    run: RunState,
    val: ImageClasses,
    run_dir: Path,
    ranks: Ranks,
    should_stop: Callable[[], bool],
) -> Generator[TrainingProgress]:
    """Goes through the epochs that are left of ``run``; rank 0 yields the progress after each, without notes."""
    config, recipe, schedule = source.options, source.recipe, source.recipe.schedule
    validate_every = {"warm_up": schedule.warm_up_epochs_per_validation, "meta": schedule.meta_epochs_per_validation}
    with closing(run_folder.Curves(run_dir, run.epoch)) if ranks.first else nullcontext() as curves:
        while run.epoch < config.epochs:
            _keep_phi(config, recipe, run, run_dir, ranks)
            started, skipped = time.perf_counter(), run.skipped
            stage = "meta" if run.epoch >= config.warm_up_epochs else "warm_up"
            loss = _epoch(source, learner, run, should_stop, ranks)
            run.epoch += 1
            run.loss = run.loss if loss is None else loss
            if curves is None:
                continue
            validated = run.epoch % validate_every[stage] == 0 or run.epoch == config.epochs
            if validated:
                run.validation = _validate(config, source.config, recipe, run, val)
            run.seconds += time.perf_counter() - started
            accuracy = run.validation if validated else None
            row = {"epoch": run.epoch, "stage": stage, "loss": loss, "validation_accuracy": accuracy}
            curves.add(row | {"skipped_tasks": run.skipped - skipped})
            saved = run.epoch % schedule.epochs_per_checkpoint == 0 or run.epoch == config.epochs
            if saved:
                run.save(run_dir, config, recipe)
            eta = (config.epochs - run.epoch) * run.seconds / run.epoch
            known = (run.loss, run.validation, config.warm_up_epochs, run.seconds, eta)
            yield TrainingProgress(run.epoch, config.epochs, *known, saved=saved)


def model_so_far(run_dir: Path) -> MetaModel:
    """The model of a finished run, or the running average in an unfinished run's checkpoint.

    Raises FileNotFoundError if ``run_dir`` has neither.
    """
    if (run_dir / "model.json").is_file():
        return read(run_dir)
    saved = checkpoint.load(run_dir)
    if saved is None:
        raise FileNotFoundError(f"{run_dir} contains neither a model nor a checkpoint")
    tensors, state = saved
    config = TrainingConfig(**state["config"]).model_config()
    average = {name: tensors[f"average.{name}"] for name in initial_parameters(config, 0).named()}
    return MetaModel(Parameters.from_named(average), {"config": config.to_json()})


def _load(
    config: TrainingConfig, model_config: Config, data: Path, run_dir: Path, *, write: bool
) -> dict[Split, ImageClasses]:
    """The data set with the split recorded in the run folder; a new split is recorded there if ``write``.

    A run that starts from a meta-model neither validates nor tests on classes that this model was trained on. With
    Lake's split, which classes are for that is fixed: it raises ValueError if the model may have been trained on them.
    """
    recorded, image, skip_damaged = run_folder.read_split(run_dir), model_config.network.image, config.skip_damaged
    split = recorded
    start_card = None if config.start is None else load_start(config.start).card
    if config.split == "lake":
        split = lake_split(data)
        if recorded is not None and recorded != split:
            raise ValueError(f"{run_dir} contains a run with a different split")
    try:
        if split is None and start_card is not None:
            start = None if config.start in (None, "shipped") else Path(config.start)
            split = split_after(start, trained_digests(start_card), data, image, config.seed, skip_damaged=skip_damaged)
        splits = load_dataset(data, image, seed=config.seed, split=split, skip_damaged=skip_damaged)
    except DamagedImageError as error:
        raise DatasetError(f"{error} (--skip-damaged trains without such images)") from error
    if config.split == "lake" and start_card is not None:
        refuse_trained(f"cannot start from {config.start}", start_card, splits["val"], splits["test"])
    if recorded is None and write:
        run_folder.write_split(run_dir, data, splits)
    return splits


def _stop_if_asked(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise TrainingStopped


def _check_same(config: TrainingConfig, recipe: Recipe, saved: dict[str, Any], run_dir: Path) -> None:
    # Options that did not exist when the checkpoint was written had their default.
    if asdict(TrainingConfig()) | saved["config"] != asdict(config):
        raise ValueError(f"{run_dir} contains a run with a different configuration: {saved['config']}")
    if "recipe" in saved and Recipe.from_json(saved["recipe"]) != recipe:
        raise ValueError(f"{run_dir} contains a run with a different recipe: {saved['recipe']}")


def _keep_phi(config: TrainingConfig, recipe: Recipe, run: RunState, run_dir: Path, ranks: Ranks) -> None:
    done, times = run.epoch - config.warm_up_epochs, recipe.schedule.phi_kept
    if ranks.first and done in {config.meta_epochs * i // times for i in range(times + 1)}:
        run_folder.keep_phi(run_dir, done, run.average.phi)


def _epoch(
    source: TaskSource, learner: TaskLearner, run: RunState, should_stop: Callable[[], bool], ranks: Ranks
) -> float | None:
    """The outer steps of one epoch, and their mean loss; None if no task had a finite gradient."""
    config, recipe = source.options, source.recipe
    warming = run.epoch < config.warm_up_epochs
    count = recipe.schedule.warm_up_steps_per_epoch if warming else 1
    losses = []
    for i in range(count):
        if warming:
            done = (run.epoch + i / count) / config.warm_up_epochs
            optimizer, tasks = run.warm_up, config.warm_up_batch
        else:
            done = (run.epoch - config.warm_up_epochs) / config.meta_epochs
            optimizer, tasks = run.meta, config.meta_batch
        # Every process draws the seeds of all tasks, so that the generators of all processes stay in the same state.
        seeds = torch.randint(2**31, (tasks,), generator=run.generator).tolist()
        found = {}
        for number in ranks.mine(tasks):
            _stop_if_asked(should_stop)
            found[number] = _gradient(source, learner, run, seeds[number], done if warming else None)
        gradients = _finite(run, ranks.share(found, tasks, run.parameters.named()))
        if gradients:
            _apply(run, optimizer, gradients, _rate(done, recipe.schedule), recipe)
        losses += [gradient.loss for gradient in gradients]
    return sum(losses) / len(losses) if losses else None


def _finite(run: RunState, gradients: list[MetaGradient]) -> list[MetaGradient]:
    """The finite ones of a step's ``gradients``; the others are counted in ``run``.

    All processes have the same gradients, so that all decide alike. Raises TrainingDivergedError.
    """
    kept = []
    for gradient in gradients:
        if gradient.finite():
            run.skipped_in_a_row = 0
            kept.append(gradient)
            continue
        run.skipped += 1
        run.skipped_in_a_row += 1
        if run.skipped_in_a_row == MOST_SKIPPED:
            raise TrainingDivergedError(
                f"the training has diverged: the gradients of {MOST_SKIPPED} tasks in a row were not finite, the last "
                f"in epoch {run.epoch + 1}; no step was made on them, and the last checkpoint is from before. Resumed, "
                "the run would end in the same way: start another one with a different seed, loss or data set"
            )
    return kept


def _gradient(source: TaskSource, learner: TaskLearner, run: RunState, seed: int, warmed: float | None) -> MetaGradient:
    """The meta-gradient of the task with this seed. ``warmed``: progress of the warm-up (0..1), None after it."""
    config, recipe = source.options, source.recipe
    generator = torch.Generator().manual_seed(seed + 1)
    if warmed is not None and learner.config.network.backbone is not None:
        return maml(learner, run.parameters, source.adaptation_task(seed), 0, generator)
    if warmed is not None:
        annealed_by = recipe.warm_up.annealed_by
        if config.start is not None:  # α has already been annealed
            warmed = annealed_by + (1 - annealed_by) * warmed
        return warm_up_gradient(learner, run.parameters, source.warm_up_task(seed), warmed, recipe.warm_up)
    episode, count = source.adaptation_task(seed), learner.config.task_learner.steps
    if config.meta == "maml":
        order: Literal["first", "second"] = "first" if config.first_order else "second"
        return maml(learner, run.parameters, episode, count, generator, order)
    if recipe.reptile.steps is not None:
        count = recipe.reptile.steps
    of_phi = (config.proxy, config.phi_steps, recipe.reptile.phi_rate_within_task)
    return reptile(learner, run.parameters, episode, count, generator, *of_phi)


def _apply(
    run: RunState, optimizer: torch.optim.Optimizer, gradients: list[MetaGradient], rate: float, recipe: Recipe
) -> None:
    """One outer step on the mean of the tasks' meta-gradients, and an update of the running average."""
    named = run.parameters.named()
    for name, value in named.items():
        value.grad = torch.stack([gradient.gradients[name] for gradient in gradients]).mean(0)
    if not isinstance(optimizer, torch.optim.SGD):  # Reptile's differences are not clipped
        clipping, parameters = recipe.clipping, run.parameters
        torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], clipping.theta)  # what is trained of θ
        torch.nn.utils.clip_grad_norm_(parameters.phi.values(), clipping.phi)
        log_rates = (parameters.theta_log_rates, parameters.alpha_log_rates)
        torch.nn.utils.clip_grad_norm_(log_rates, clipping.log_rates)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * rate
    optimizer.step()
    decay = recipe.warm_up.average_decay if optimizer is run.warm_up else recipe.meta_average_decay
    with torch.no_grad():
        for name, average in run.average.named().items():
            average.lerp_(named[name].detach(), 1 - decay)


def _rate(done: float, schedule: Schedule) -> float:
    """The learning rate as a fraction of its peak at progress ``done`` (0..1) of a stage; see ``Schedule``."""
    rising = min(1.0, (done + schedule.first_rise) / schedule.rise)
    return rising * (0.5 * (1 - schedule.floor) * (1 + math.cos(math.pi * done)) + schedule.floor)


def _validate(
    config: TrainingConfig, model_config: Config, recipe: Recipe, run: RunState, classes: ImageClasses
) -> float:
    """The accuracy of the averaged parameters on fixed validation episodes; in the warm-up without inner steps."""
    model = MetaModel(run.average.map(lambda tensor: tensor.detach().cpu()), {"config": model_config.to_json()})
    schedule = recipe.schedule
    evaluation = EvaluationConfig(
        ways=min(schedule.validation_ways, len(classes), model.learner.head.classes() or len(classes)),
        shots=min(config.shots, min(map(len, classes.members)) - 1),
        queries=schedule.validation_queries,
        episodes=schedule.validation_episodes,
        seed=config.seed,
        steps=0 if run.epoch <= config.warm_up_epochs else None,
    )
    return evaluate(model, classes, evaluation, lambda number: None).accuracy
