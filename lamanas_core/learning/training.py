"""Meta-training: a warm-up of θ and α by prototypes, then θ, α, φ and the step sizes through the adaptation."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lamanas_core.learning import checkpoint
from lamanas_core.learning.config import PRESETS, Config
from lamanas_core.learning.datasets import ImageClasses, Split, load_dataset
from lamanas_core.learning.episodes import random_affine, sample_episode, to_float
from lamanas_core.learning.evaluation import EvaluationConfig, evaluate
from lamanas_core.learning.losses import LossKind, mend_slope
from lamanas_core.learning.meta_learners import MetaGradient, Proxy, Task, maml, reptile
from lamanas_core.learning.meta_model import MetaModel
from lamanas_core.learning.task_learner import Learner, Parameters, initial_parameters
from lamanas_core.learning.warm_up import warm_up_gradient

STEPS_PER_EPOCH = 50
VALIDATE_EVERY = 10  # epochs
CHECKPOINT_EVERY = 5  # epochs
DECAY = 0.998  # of the running average of the weights, which is what is kept


class TrainingStopped(Exception):  # noqa: N818 - asked for, not an error
    """The caller asked the training to stop; its last checkpoint stays."""


@dataclass(frozen=True)
class TrainingConfig:
    """What ``lamanas train`` and ``POST /train`` choose. An epoch is 50 tasks of warm-up or ``meta_batch`` tasks."""

    preset: str = "serving"
    meta: Literal["reptile", "maml"] = "maml"
    loss: LossKind = "lstm"
    residual: bool = True
    proxy: Proxy = "inner_product"
    warm_up_epochs: int = 80
    meta_epochs: int = 40
    meta_batch: int = 5
    ways: int = 80
    shots: int = 5
    seed: int = 0
    rotations: bool = True

    @classmethod
    def from_request(cls, options: dict[str, Any]) -> "TrainingConfig":
        """Defaults with ``options`` laid over them. Raises ValueError for a name or a value that does not exist.

        The warm-up is scaled with ``meta_epochs`` where only that is given, so that a short run is short throughout.
        """
        unknown = options.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"unknown options: {', '.join(sorted(unknown))}")
        config = cls(**options)
        for name, value, allowed in (
            ("preset", config.preset, tuple(PRESETS)),
            ("meta", config.meta, ("reptile", "maml")),
            ("loss", config.loss, get_args(LossKind)),
            ("proxy", config.proxy, get_args(Proxy)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; it can be {', '.join(allowed)}")
        if min(config.meta_epochs, config.meta_batch, config.shots) < 1 or config.ways < 2 or config.warm_up_epochs < 0:
            raise ValueError("meta_epochs, meta_batch and shots are at least 1, ways at least 2, warm_up_epochs 0")
        if "meta_epochs" in options and "warm_up_epochs" not in options:
            config = replace(config, warm_up_epochs=2 * config.meta_epochs)
        return config

    def model_config(self) -> Config:
        """The preset with this run's loss."""
        preset = PRESETS[self.preset]
        return replace(preset, task_learner=replace(preset.task_learner, loss=self.loss, residual=self.residual))


@dataclass(frozen=True)
class TrainingProgress:
    """Where a run stands; ``loss`` is the mean over the epoch's tasks, ``validation_accuracy`` the last one taken."""

    epoch: int
    epochs: int
    loss: float
    validation_accuracy: float | None
    eta_seconds: float | None


@dataclass
class _Run:
    """All that changes while training: what a checkpoint holds."""

    parameters: Parameters
    average: Parameters
    warm_up: torch.optim.Optimizer
    meta: torch.optim.Optimizer
    generator: torch.Generator
    epoch: int = 0
    seconds: float = 0.0
    validation: float | None = None

    def save(self, folder: Path, config: TrainingConfig) -> None:
        tensors = {f"now.{name}": value for name, value in self.parameters.named().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.named().items()}
        tensors |= {f"warm_up.{name}": value for name, value in checkpoint.optimizer_tensors(self.warm_up).items()}
        tensors |= {f"meta.{name}": value for name, value in checkpoint.optimizer_tensors(self.meta).items()}
        state = {"epoch": self.epoch, "seconds": self.seconds, "validation": self.validation}
        checkpoint.save(folder, tensors | {"generator": self.generator.get_state()}, state | {"config": asdict(config)})

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

        with torch.no_grad():
            for prefix, parameters in (("now.", self.parameters), ("average.", self.average)):
                saved = part(prefix)
                for name, value in parameters.named().items():
                    value.copy_(saved[name])
        checkpoint.restore_optimizer(self.warm_up, part("warm_up."))
        checkpoint.restore_optimizer(self.meta, part("meta."))
        self.generator.set_state(tensors["generator"])
        self.epoch, self.seconds, self.validation = state["epoch"], state["seconds"], state["validation"]


def train(
    config: TrainingConfig,
    data: Path,
    run_dir: Path,
    *,
    device: str,
    on_progress: Callable[[TrainingProgress], None],
    should_stop: Callable[[], bool],
) -> MetaModel:
    """Train on the train split of ``data``; resumes from the checkpoint in ``run_dir`` if there is one.

    Raises DatasetError, TrainingStopped, and ValueError where the checkpoint is of another configuration.
    """
    model_config = config.model_config()
    splits = load_dataset(data, model_config.network.image, seed=config.seed)
    learner = Learner.build(model_config)
    learner.network.to(device)
    run = _begin(config, model_config, device)
    saved = checkpoint.load(run_dir)
    if saved is not None:
        if saved[1]["config"] != asdict(config):
            raise ValueError(f"{run_dir} holds a run of another configuration: {saved[1]['config']}")
        run.restore(*saved)
    epochs = config.warm_up_epochs + config.meta_epochs
    while run.epoch < epochs:
        started = time.perf_counter()
        loss = _epoch(config, learner, run, splits["train"], device, should_stop)
        run.epoch += 1
        if run.epoch % VALIDATE_EVERY == 0 or run.epoch == epochs:
            run.validation = _validate(config, model_config, run, splits["val"])
        seconds = time.perf_counter() - started
        run.seconds += seconds
        if run.epoch % CHECKPOINT_EVERY == 0 or run.epoch == epochs:
            run.save(run_dir, config)
        eta = (epochs - run.epoch) * run.seconds / run.epoch
        on_progress(TrainingProgress(run.epoch, epochs, loss, run.validation, eta))
    return MetaModel(run.average.map(lambda tensor: tensor.detach().cpu()), _card(config, model_config, run, splits))


def _begin(config: TrainingConfig, model_config: Config, device: str) -> _Run:
    parameters = initial_parameters(model_config, config.seed)
    learner = Learner.build(model_config)
    learner.loss.load_state_dict(parameters.phi)
    if mend_slope(learner.loss):
        parameters = replace(parameters, phi={n: p.detach().clone() for n, p in learner.loss.named_parameters()})
    parameters = parameters.map(lambda tensor: tensor.to(device))
    theta, alpha = list(parameters.theta.values()), list(parameters.alpha.values())
    rates, phi = [parameters.theta_rates, parameters.alpha_rates], list(parameters.phi.values())
    warm_up = torch.optim.AdamW(
        [
            {"params": theta, "lr": 2e-3, "weight_decay": 1e-2},
            {"params": alpha, "lr": 1.5e-2, "weight_decay": 0.0},
            {"params": [parameters.log_scale], "lr": 1e-2, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.99),
    )
    if config.meta == "reptile":  # steps of size 1.0, 0.6 on the mean over tasks; φ's differences are small already
        groups = [(theta, 1.0), (alpha, 0.6), (phi, 1.0), ([*rates, parameters.log_scale], 0.0)]
        meta: torch.optim.Optimizer = torch.optim.SGD([{"params": p, "lr": lr} for p, lr in groups if p])
    else:
        groups = [(theta, 1e-4), (alpha, 1e-3), (phi, 3e-3), (rates, 5e-2), ([parameters.log_scale], 1e-3)]
        meta = torch.optim.Adam([{"params": p, "lr": lr} for p, lr in groups if p], betas=(0.9, 0.99))
    for group in (*warm_up.param_groups, *meta.param_groups):
        group["peak"] = group["lr"]
    average = parameters.map(lambda tensor: tensor.detach().clone())
    return _Run(parameters, average, warm_up, meta, torch.Generator().manual_seed(config.seed))


def _epoch(
    config: TrainingConfig,
    learner: Learner,
    run: _Run,
    classes: ImageClasses,
    device: str,
    should_stop: Callable[[], bool],
) -> float:
    warming = run.epoch < config.warm_up_epochs
    count = STEPS_PER_EPOCH if warming else config.meta_batch
    losses, meta_gradients = [], []
    for i in range(count):
        if should_stop():
            raise TrainingStopped
        if warming:
            done = (run.epoch + i / count) / config.warm_up_epochs
            meta_gradient = warm_up_gradient(
                learner, run.parameters, _warm_up_task(config, classes, run.generator, device), done
            )
            _apply(run, run.warm_up, [meta_gradient], _rate(done))
        else:
            meta_gradient = _meta_gradient(config, learner, run, classes, device)
            meta_gradients.append(meta_gradient)
        losses.append(meta_gradient.loss)
    if not warming:
        _apply(run, run.meta, meta_gradients, _rate((run.epoch - config.warm_up_epochs) / config.meta_epochs))
    return sum(losses) / len(losses)


def _meta_gradient(
    config: TrainingConfig, learner: Learner, run: _Run, classes: ImageClasses, device: str
) -> MetaGradient:
    count = learner.config.task_learner.steps
    task = _meta_task(config, classes, run.generator, device)
    if config.meta == "maml":
        return maml(learner, run.parameters, task, count)
    return reptile(learner, run.parameters, task, count, config.proxy, phi_rate=0.01)


def _apply(run: _Run, optimizer: torch.optim.Optimizer, asked: list[MetaGradient], rate: float) -> None:
    """One outer step on the mean over tasks, and the running average of the weights."""
    named = run.parameters.named()
    for name, value in named.items():
        value.grad = torch.stack([one.gradients[name] for one in asked]).mean(0)
    torch.nn.utils.clip_grad_norm_(run.parameters.theta.values(), 5.0)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * rate
    optimizer.step()
    with torch.no_grad():
        for name, average in run.average.named().items():
            average.lerp_(named[name].detach(), 1 - DECAY if optimizer is run.warm_up else 0.2)


def _rate(done: float) -> float:
    """Learning rate as a share of its peak: a short rise, then a cosine down to 2 %."""
    return min(1.0, (done + 1e-3) / 0.02) * (0.49 * (1 + math.cos(math.pi * done)) + 0.02)


def _warm_up_task(config: TrainingConfig, classes: ImageClasses, generator: torch.Generator, device: str) -> Task:
    """About 160 images of as many classes as fit, on both sides of the loss; 3 of 10 tasks lie within one alphabet."""
    pairs = ((1, 1), (1, 2), (2, 2), (5, 3))
    shots, queries = pairs[int(torch.randint(len(pairs), (), generator=generator))]
    shots = min(shots, config.shots)
    ways = min(160 // (shots + queries), config.ways)
    return _task(config, classes, ways, shots, queries, generator, device, _chance(0.3, generator))


def _meta_task(config: TrainingConfig, classes: ImageClasses, generator: torch.Generator, device: str) -> Task:
    """5 to 20 classes, 1 to ``shots`` images each; half of the tasks lie within one alphabet, the harder case."""
    ways = min(int(torch.randint(5, 21, (), generator=generator)), config.ways)
    shots = int(torch.randint(1, config.shots + 1, (), generator=generator))
    return _task(config, classes, ways, shots, 2, generator, device, _chance(0.5, generator))


def _chance(probability: float, generator: torch.Generator) -> bool:
    return bool(torch.rand((), generator=generator) < probability)


def _task(
    config: TrainingConfig,
    classes: ImageClasses,
    ways: int,
    shots: int,
    queries: int,
    generator: torch.Generator,
    device: str,
    within_group: bool,
) -> Task:
    """``within_group``: of one alphabet, turned as a whole where rotations make classes, where there are alphabets."""
    within = within_group and any(classes.groups.count(group) > 1 for group in classes.groups)
    available = len(classes) * (4 if config.rotations else 1)
    episode = sample_episode(
        classes,
        min(ways, available),
        shots,
        queries,
        generator,
        rotations=config.rotations and not within,
        within_group=within,
    )
    turns = int(torch.randint(4, (), generator=generator)) if within and config.rotations else 0
    support, query = (
        random_affine(to_float(torch.rot90(part, turns, (2, 3))), generator)
        for part in (episode.support, episode.query)
    )
    return Task(
        support.to(device),
        episode.support_labels.to(device),
        query.to(device),
        episode.query_labels.to(device),
        episode.ways,
    )


def _validate(config: TrainingConfig, model_config: Config, run: _Run, classes: ImageClasses) -> float:
    """Accuracy of the averaged weights on 20 fixed validation episodes, without steps while still warming up."""
    model = MetaModel(run.average.map(lambda tensor: tensor.detach().cpu()), {"config": model_config.to_json()})
    steps = 0 if run.epoch <= config.warm_up_epochs else None
    ways, shots = min(20, len(classes)), min(config.shots, min(map(len, classes.members)) - 1)
    chosen = EvaluationConfig(ways=ways, shots=shots, queries=2, episodes=20, seed=config.seed, steps=steps)
    return evaluate(model, classes, chosen, lambda number: None).accuracy


def _card(config: TrainingConfig, model_config: Config, run: _Run, splits: dict[Split, ImageClasses]) -> dict[str, Any]:
    return {
        "config": model_config.to_json(),
        "training": asdict(config),
        "data": {split: {"classes": len(c), "images": len(c.images)} for split, c in splits.items()},
        "metrics": {"validation_accuracy": run.validation, "training_seconds": round(run.seconds)},
        "domain": {"name": "the training images", "ink": _ink_range(splits["train"])},
    }


def _ink_range(classes: ImageClasses) -> list[float]:
    """The range that the mean ink (0..1) of nearly any support set of the training images lies in."""
    ink = classes.images.float().mean(dim=(1, 2, 3)) / 255
    low, high = (float(torch.quantile(ink, q)) for q in (0.01, 0.99))
    return [round(low, 4), round(high, 4)]
