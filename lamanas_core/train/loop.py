"""Meta-training: a warm-up of θ and α by prototypes, then θ, α, φ and the step sizes through the adaptation."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lamanas_core.adapt.inner import Learner
from lamanas_core.adapt.parameters import Parameters, initial_parameters
from lamanas_core.config import PRESETS, Config
from lamanas_core.data.folders import ImageClasses, load_dataset
from lamanas_core.data.splits import Split
from lamanas_core.devices import use_mixed_precision
from lamanas_core.losses.invariant import LossKind
from lamanas_core.measure.calibrate import calibrated
from lamanas_core.measure.evaluate import EvaluationConfig, evaluate
from lamanas_core.meta.gradient import MetaGradient
from lamanas_core.meta.maml import maml
from lamanas_core.meta.reptile import Proxy, reptile
from lamanas_core.meta.warm_up import ANNEALED_BY, warm_up_gradient
from lamanas_core.meta_model import MetaModel, read
from lamanas_core.train import checkpoint, run_folder
from lamanas_core.train.distributed import Ranks
from lamanas_core.train.provenance import provenance
from lamanas_core.train.starting import load_start, starting_parameters
from lamanas_core.train.tasks import meta_task, warm_up_task

STEPS_PER_EPOCH = 50
VALIDATE_EVERY = {"warm_up": 10, "meta": 50}  # epochs
CHECKPOINT_EVERY = 5  # epochs
PHI_KEPT = 4  # times in the meta-training, and once before it
STILL = 1e-30  # a step size too small to move anything, whose logarithm is finite
DECAY = 0.998  # of the running average of the weights, which is what is kept


class TrainingStopped(Exception):  # noqa: N818 - asked for, not an error
    """The caller asked the training to stop; its last checkpoint stays."""


@dataclass(frozen=True)
class TrainingConfig:
    """What ``lamanas train`` and ``POST /train`` choose.

    An epoch is 50 steps of warm-up on ``warm_up_batch`` tasks
    each, or one step on ``meta_batch`` tasks: so many processes can share them out. ``rotations``: turned classes are
    classes of their own, by default where images are grey.
    """

    preset: str = "serving"
    meta: Literal["reptile", "maml"] = "maml"
    loss: LossKind = "lstm"
    residual: bool = True
    first_order: bool = False
    proxy: Proxy = "cosine"
    warm_up_epochs: int = 80
    warm_up_batch: int = 1
    meta_epochs: int = 40
    meta_batch: int = 5
    ways: int = 80
    shots: int = 5
    seed: int = 0
    rotations: bool = True
    # A meta-model to go on from: its folder, or "shipped".
    start: str | None = None
    # A safetensors file with a trained ResNet-18, for the stem of the presets that have its first layers.
    pretrained: str | None = None
    # α is neither adapted nor learned: plain MAML and Reptile.
    fixed_architecture: bool = False

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
        counts = (config.meta_epochs, config.meta_batch, config.warm_up_batch, config.shots)
        if min(counts) < 1 or config.ways < 2 or config.warm_up_epochs < 0:
            raise ValueError(
                "meta_epochs, meta_batch, warm_up_batch and shots are at least 1, ways at least 2, warm_up_epochs 0"
            )
        if config.start is not None and config.pretrained is not None:
            raise ValueError("start and pretrained exclude each other: a meta-model brings its own stem")
        if "meta_epochs" in options and "warm_up_epochs" not in options:
            config = replace(config, warm_up_epochs=2 * config.meta_epochs)
        if "rotations" not in options:
            config = replace(config, rotations=PRESETS[config.preset].network.image.channels == 1)
        return config

    def model_config(self) -> Config:
        """The preset with this run's loss, and SGD steps where Algorithm 1 needs them."""
        preset = PRESETS[self.preset]
        task = replace(preset.task_learner, loss=self.loss, residual=self.residual)
        if self.meta == "maml":  # no meta-gradient flows through Adam with β₁ = 0
            task = replace(task, optimizer="sgd")
        if self.fixed_architecture:
            task = replace(task, alpha_rate=STILL)
        return replace(preset, task_learner=task)


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
    ranks: Ranks = Ranks(),  # noqa: B008 - immutable
) -> MetaModel:
    """Train on the train split of ``data``; resumes from the checkpoint in ``run_dir`` if there is one.

    Every process of ``ranks`` gets the same arguments; the first alone writes, validates and tells of progress.
    Raises DatasetError, TrainingStopped, and ValueError where the checkpoint is of another configuration.
    """
    model_config = config.model_config()
    learner = Learner.build(model_config)
    learner.network.to(device)
    use_mixed_precision(learner.network, device)
    run = _begin(config, model_config, device)
    saved = checkpoint.load(run_dir)
    if saved is not None:
        _check_same(config, saved[1]["config"], run_dir)
        run.restore(*saved)
    splits = ranks.first_before_others(lambda: _load(config, model_config, data, run_dir, write=ranks.first))
    epochs = config.warm_up_epochs + config.meta_epochs
    curves = run_folder.Curves(run_dir, run.epoch) if ranks.first else None
    while run.epoch < epochs:
        _keep_phi(config, run, run_dir, ranks)
        started = time.perf_counter()
        stage = "meta" if run.epoch >= config.warm_up_epochs else "warm_up"
        loss = _epoch(config, learner, run, splits["train"], device, should_stop, ranks)
        run.epoch += 1
        if curves is None:
            continue
        validated = run.epoch % VALIDATE_EVERY[stage] == 0 or run.epoch == epochs
        if validated:
            run.validation = _validate(config, model_config, run, splits["val"])
        seconds = time.perf_counter() - started
        run.seconds += seconds
        accuracy = run.validation if validated else None
        curves.add({"epoch": run.epoch, "stage": stage, "loss": loss, "validation_accuracy": accuracy})
        if run.epoch % CHECKPOINT_EVERY == 0 or run.epoch == epochs:
            run.save(run_dir, config)
        eta = (epochs - run.epoch) * run.seconds / run.epoch
        on_progress(TrainingProgress(run.epoch, epochs, loss, run.validation, eta))
    _keep_phi(config, run, run_dir, ranks)
    if curves is not None:
        curves.close()
    card = _card(config, model_config, run, splits, data)
    model = MetaModel(run.average.map(lambda tensor: tensor.detach().cpu()), card)
    return calibrated(model, splits["val"], config.seed) if ranks.first else model


def model_so_far(run_dir: Path) -> MetaModel:
    """The finished model of a run, or the running average of one that is not. Raises FileNotFoundError."""
    if (run_dir / "model.json").is_file():
        return read(run_dir)
    saved = checkpoint.load(run_dir)
    if saved is None:
        raise FileNotFoundError(f"{run_dir}: neither a model nor a checkpoint")
    tensors, state = saved
    config = TrainingConfig(**state["config"]).model_config()
    average = {name: tensors[f"average.{name}"] for name in initial_parameters(config, 0).named()}
    return MetaModel(Parameters.from_named(average), {"config": config.to_json()})


def _load(
    config: TrainingConfig, model_config: Config, data: Path, run_dir: Path, *, write: bool
) -> dict[Split, ImageClasses]:
    """The data set, split as the run folder says, which is told how if it does not."""
    known = run_folder.read_split(run_dir)
    splits = load_dataset(data, model_config.network.image, seed=config.seed, split=known)
    if known is None and write:
        run_folder.write_split(run_dir, data, splits)
    return splits


def _check_same(config: TrainingConfig, saved: dict[str, Any], run_dir: Path) -> None:
    # A checkpoint written before an option existed was trained with that option's default.
    if asdict(TrainingConfig()) | saved != asdict(config):
        raise ValueError(f"{run_dir} holds a run of another configuration: {saved}")


def _keep_phi(config: TrainingConfig, run: _Run, run_dir: Path, ranks: Ranks) -> None:
    done = run.epoch - config.warm_up_epochs
    if ranks.first and done in {config.meta_epochs * i // PHI_KEPT for i in range(PHI_KEPT + 1)}:
        run_folder.keep_phi(run_dir, done, run.average.phi)


def _begin(config: TrainingConfig, model_config: Config, device: str) -> _Run:
    started = starting_parameters(model_config, config.start, config.seed, config.pretrained)
    parameters = started.map(lambda tensor: tensor.to(device))
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
        groups = [(theta, 1e-4), (alpha, 1e-3), (phi, 1e-2), (rates, 1e-1), ([parameters.log_scale], 1e-3)]
        meta = torch.optim.Adam([{"params": p, "lr": lr} for p, lr in groups if p], betas=(0.9, 0.99))
    if config.fixed_architecture:
        for group in meta.param_groups:
            if group["params"][0] is alpha[0]:
                group["lr"] = 0.0
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
    ranks: Ranks,
) -> float:
    warming = run.epoch < config.warm_up_epochs
    count = STEPS_PER_EPOCH if warming else 1
    losses = []
    for i in range(count):
        if warming:
            done = (run.epoch + i / count) / config.warm_up_epochs
            optimizer, tasks = run.warm_up, config.warm_up_batch
        else:
            done = (run.epoch - config.warm_up_epochs) / config.meta_epochs
            optimizer, tasks = run.meta, config.meta_batch
        # Every process draws all seeds, and the tasks of its own share only: so they stay in step.
        seeds = torch.randint(2**31, (tasks,), generator=run.generator).tolist()
        found = {}
        for number in ranks.mine(tasks):
            if should_stop():
                raise TrainingStopped
            found[number] = _gradient(config, learner, run, classes, device, seeds[number], done if warming else None)
        asked = ranks.share(found, tasks, run.parameters.named())
        _apply(run, optimizer, asked, _rate(done))
        losses += [one.loss for one in asked]
    return sum(losses) / len(losses)


def _gradient(
    config: TrainingConfig,
    learner: Learner,
    run: _Run,
    classes: ImageClasses,
    device: str,
    seed: int,
    warmed: float | None,
) -> MetaGradient:
    """What the task of this seed asks for: in the warm-up, of which the share ``warmed`` is done, or after it."""
    if warmed is not None:
        if config.start is not None:  # its architecture is chosen already
            warmed = ANNEALED_BY + (1 - ANNEALED_BY) * warmed
        return warm_up_gradient(learner, run.parameters, warm_up_task(config, classes, seed, device), warmed)
    task, count = meta_task(config, classes, seed, device), learner.config.task_learner.steps
    generator = torch.Generator().manual_seed(seed + 1)
    if config.meta == "maml":
        order: Literal["first", "second"] = "first" if config.first_order else "second"
        return maml(learner, run.parameters, task, count, generator, order)
    return reptile(learner, run.parameters, task, count, generator, config.proxy)


def _apply(run: _Run, optimizer: torch.optim.Optimizer, asked: list[MetaGradient], rate: float) -> None:
    """One outer step on the mean over tasks, and the running average of the weights."""
    named = run.parameters.named()
    for name, value in named.items():
        value.grad = torch.stack([one.gradients[name] for one in asked]).mean(0)
    if not isinstance(optimizer, torch.optim.SGD):  # what Reptile asks for is a way to go, not a slope
        torch.nn.utils.clip_grad_norm_(run.parameters.theta.values(), 5.0)
        for part in (run.parameters.phi.values(), (run.parameters.theta_rates, run.parameters.alpha_rates)):
            torch.nn.utils.clip_grad_norm_(part, 1.0)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * rate
    optimizer.step()
    with torch.no_grad():
        for name, average in run.average.named().items():
            average.lerp_(named[name].detach(), 1 - DECAY if optimizer is run.warm_up else 0.2)


def _rate(done: float) -> float:
    """Learning rate as a share of its peak: a short rise, then a cosine down to 2 %."""
    return min(1.0, (done + 1e-3) / 0.02) * (0.49 * (1 + math.cos(math.pi * done)) + 0.02)


def _validate(config: TrainingConfig, model_config: Config, run: _Run, classes: ImageClasses) -> float:
    """Accuracy of the averaged weights on 20 fixed validation episodes, without steps while still warming up."""
    model = MetaModel(run.average.map(lambda tensor: tensor.detach().cpu()), {"config": model_config.to_json()})
    steps = 0 if run.epoch <= config.warm_up_epochs else None
    ways, shots = min(20, len(classes)), min(config.shots, min(map(len, classes.members)) - 1)
    chosen = EvaluationConfig(ways=ways, shots=shots, queries=2, episodes=20, seed=config.seed, steps=steps)
    return evaluate(model, classes, chosen, lambda number: None).accuracy


def _card(
    config: TrainingConfig, model_config: Config, run: _Run, splits: dict[Split, ImageClasses], data: Path
) -> dict[str, Any]:
    counts = {split: {"classes": len(c), "images": len(c.images)} for split, c in splits.items()}
    before: dict[str, Any] = {} if config.start is None else {"started_from": load_start(config.start).version}
    return {
        **before,
        "config": model_config.to_json(),
        "training": asdict(config),
        "data": {"name": data.resolve().name, **counts},
        "metrics": {"validation_accuracy": run.validation, "training_seconds": round(run.seconds)},
        "domain": {"name": f"the training images, {data.resolve().name}", "ink": _ink_range(splits["train"])},
        "provenance": provenance(),
    }


def _ink_range(classes: ImageClasses) -> list[float]:
    """The range that the mean ink (0..1) of nearly any support set of the training images lies in."""
    ink = classes.images.float().mean(dim=(1, 2, 3)) / 255
    low, high = (float(torch.quantile(ink, q)) for q in (0.01, 0.99))
    return [round(low, 4), round(high, 4)]
