"""One run, a row with a seed: its training, its measurement and its JSON file."""

import copy
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.adapt.parameters import Tensors
from lamanas_core.config import TrainingConfig
from lamanas_core.data.folders import load_dataset
from lamanas_core.files import write_whole
from lamanas_core.losses.invariant import LossState
from lamanas_core.measure.evaluate import EvaluationConfig, evaluate
from lamanas_core.measure.table1.rows import Budget, Row
from lamanas_core.meta_model import MetaModel, read, write
from lamanas_core.recipe import Recipe, Reptile
from lamanas_core.train.loop import train
from lamanas_core.train.provenance import provenance
from lamanas_core.train.run_folder import kept_phi
from lamanas_core.train.starting import starting_parameters

# θ and α of all rows come from it; Algorithm 2's rates do not matter to it.
WARM_UP = Row("warm_up")


def reproduce(
    rows: Sequence[Row],
    budget: Budget,
    seeds: Sequence[int],
    data: Path,
    run: Path,
    out: Path,
    command: str,
    tell: Callable[[str], None],
) -> Iterator[Path]:
    """Run each of ``rows`` with every seed, write one JSON file per run to ``out`` and yield its path.

    Runs whose JSON file exists are skipped. All rows of one seed precede the next seed. ``run`` holds the training
    folders, so that an interrupted training is resumed. ``command`` is recorded in each file; ``tell`` gets a line of
    progress before each run.
    """
    for seed in seeds:
        for row in rows:
            path = out / f"{row.name}-{seed}.json"
            if path.is_file():
                continue
            tell(f"{row.name}, seed {seed}")
            document = one_run(row, seed, budget, data, run) | {"command": command}
            write_whole(path, (json.dumps(document) + "\n").encode())
            yield path


def one_run(row: Row, seed: int, budget: Budget, data: Path, run: Path) -> dict[str, Any]:
    """Train one row with ``seed``, or resume its training, evaluate it and return the content of its JSON file."""
    started = time.perf_counter()
    config = training_config(row, seed, budget, run)
    folder = run / f"{row.trained_as}-{seed}"
    if row.algorithm == "none":
        warmed_up(budget, data, run)
        model = untrained(config, run / "start")
    else:
        if config.start is not None:
            warmed_up(budget, data, run)
        model = trained(config, recipe(budget, row), data, folder)
    if row.prototypes:
        model = with_prototypes(model)
    evaluated = centred(model) if row.centred else model
    splits = load_dataset(data, model.config.network.image)
    episodes, train_episodes = budget.episodes, budget.train_episodes
    if row.resnet:
        episodes = train_episodes = budget.resnet_episodes
    steps = 0 if row.prototypes else budget.steps
    asked = EvaluationConfig(budget.ways, budget.shots, 5, episodes, seed, steps)
    test = evaluate(evaluated, splits["test"], asked, lambda number: None)
    known = evaluate(evaluated, splits["train"], replace(asked, episodes=train_episodes), lambda number: None)
    means = test
    if not row.prototypes:
        means = evaluate(with_prototypes(model), splits["test"], replace(asked, steps=0), lambda number: None)
    trained_phi = model.parameters.phi and row.algorithm != "none"
    return {
        "row": row.name,
        "settings": asdict(row),
        "loss": row.loss,
        "residual": row.residual,
        "proxy": row.proxy,
        "algorithm": row.algorithm,
        "seed": seed,
        "config": asdict(config),
        "budget": asdict(budget),
        "reptile": asdict(recipe(budget, row).reptile),
        "provenance": provenance(),
        "accuracy": test.accuracy,
        "ci95": test.ci95,
        "accuracies": [round(value, 4) for value in test.accuracies],
        "train_accuracy": known.accuracy,
        "prototype_accuracy": means.accuracy,
        "parameters_kept": test.parameters_kept,
        "parameters_total": test.parameters_total,
        "seconds": round(time.perf_counter() - started, 1),
        "direction_changed": direction_changed(model, folder) if trained_phi else None,
        "slope_without_label": slope_without_label(model) if model.parameters.phi else None,
    }


def recipe(budget: Budget, row: Row) -> Recipe:
    """The default recipe with the outer rates of the budget, or of the row, for Algorithm 2."""
    rate = budget.outer_rate if row.outer_rate is None else row.outer_rate
    of_phi = rate if row.phi_rate is None else row.phi_rate
    return Recipe(reptile=Reptile(rate, rate, of_phi, head_moves=not row.level_head, steps=row.steps))


def training_config(row: Row, seed: int, budget: Budget, run: Path) -> TrainingConfig:
    """The training options for this row. A ResNet-18 row has a different θ, so it starts from random weights."""
    return TrainingConfig(
        preset=budget.resnet_preset if row.resnet else budget.preset,
        meta="maml" if row.algorithm == "maml" else "reptile",
        loss=row.loss,
        residual=row.residual,
        proxy=row.proxy or "mse",
        phi_steps=row.phi_steps,
        warm_up_epochs=0,
        meta_epochs=budget.resnet_meta_epochs if row.resnet else budget.meta_epochs,
        meta_batch=row.meta_batch or (budget.resnet_meta_batch if row.resnet else budget.meta_batch),
        ways=budget.ways,
        shots=budget.shots,
        seed=seed,
        start=None if row.resnet or not budget.warm_up_epochs else str(run / "start"),
        fixed_architecture=row.fixed,
    )


def warmed_up(budget: Budget, data: Path, run: Path) -> MetaModel:
    """The initial θ and α that all rows share, trained first if necessary.

    If the budget has no warm-up, only the rows without meta-training use them, after 80 warm-up epochs of their own.
    """
    start = run / "start"
    if not (start / "model.json").is_file():
        config = TrainingConfig(
            budget.preset, "reptile", "cross_entropy", warm_up_epochs=budget.warm_up_epochs or 80, meta_epochs=0
        )
        write(with_level_head(trained(config, recipe(budget, WARM_UP), data, run / "warm")), start)
    return read(start)


def untrained(config: TrainingConfig, start: Path) -> MetaModel:
    """The model that a training with ``config`` from the model in ``start`` begins with."""
    model_config = config.model_config()
    parameters = starting_parameters(model_config, str(start), config.seed)
    return MetaModel(parameters, {"config": model_config.to_json()})


def with_level_head(model: MetaModel) -> MetaModel:
    """``model`` with its linear layer set to zero.

    The warm-up does not train this layer, and its random weights would favour some classes by more than five adaptation
    steps can correct.
    """
    theta = model.parameters.theta
    level = {name: torch.zeros_like(value) if name.startswith("head.") else value for name, value in theta.items()}
    return MetaModel(replace(model.parameters, theta=level), model.card)


def trained(config: TrainingConfig, recipe: Recipe, data: Path, folder: Path) -> MetaModel:
    """The trained model in ``folder``. If there is none yet, its training is started or resumed first."""
    if not (folder / "model.json").is_file():
        model = train(
            config,
            data,
            folder,
            device="cpu",
            on_progress=lambda progress: None,
            should_stop=lambda: False,
            recipe=recipe,
        )
        write(model, folder)
    return read(folder)


def with_prototypes(model: MetaModel) -> MetaModel:
    """``model`` with its linear layer replaced by a prototype head, which has no parameters in θ."""
    config = replace(model.config, network=replace(model.config.network, head="prototypes"))
    theta = {name: value for name, value in model.parameters.theta.items() if not name.startswith("head.")}
    rates = model.parameters.theta_log_rates[:, : len(theta)]  # not used without inner steps
    parameters = replace(model.parameters, theta=theta, theta_log_rates=rates)
    return MetaModel(parameters, model.card | {"config": config.to_json()})


def direction_changed(model: MetaModel, folder: Path) -> float:
    """1 - cosine similarity of ∂L_φ/∂z before and after training, in 0..2, on 64 fixed random logit vectors z."""
    kept = list(kept_phi(folder).values())
    ways = model.config.network.ways
    logits = torch.randn(64, ways, generator=torch.Generator().manual_seed(0)).requires_grad_()
    slopes = [
        torch.autograd.grad(model.learner.learned_loss(phi, logits, torch.arange(64) % ways, 0.0)[0], logits)[0]
        for phi in (kept[0], kept[-1])
    ]
    return 1 - float(F.cosine_similarity(slopes[0].flatten(), slopes[1].flatten(), dim=0))


def slope_without_label(model: MetaModel) -> float:
    """How much of the slope ∂L_φ/∂z ignores the label, at logits z = 0, near which adaptation starts: the norm of the
    mean slope over all labels, divided by the mean norm of what each label's slope is beyond that. For cross-entropy it
    is 0: the mean of its slopes, softmax(z) - label, is.
    """
    slopes = _slopes_at_zero(model)
    common = slopes.mean(0)
    return float(common.norm() / (slopes - common).norm(dim=1).mean())


def centred(model: MetaModel) -> MetaModel:
    """``model``, with the same version, whose steps are on L_φ(z, y) - ⟨c, z⟩ in place of L_φ(z, y), where c is the
    mean slope of L_φ over all labels y at z = 0, so that there no part of the slope ignores the label.
    """
    own, other = model.learner, copy.copy(model)
    other.learner = _Centred(own.config, own.network, own.head, own.loss, _slopes_at_zero(model).mean(0))
    return other


@dataclass(frozen=True)
class _Centred(TaskLearner):
    common: Tensor

    def learned_loss(
        self, phi: Tensors, logits: Tensor, labels: Tensor, progress: float, state: LossState = None
    ) -> tuple[Tensor, LossState]:
        value, after = super().learned_loss(phi, logits, labels, progress, state)
        return value - (logits @ self.common).mean(), after


def _slopes_at_zero(model: MetaModel) -> Tensor:
    """∂L_φ/∂z of an example of each label, (ways, ways), at logits z = 0."""
    ways = model.config.network.ways
    logits = torch.zeros(ways, ways, requires_grad=True)
    loss, _ = model.learner.learned_loss(model.parameters.phi, logits, torch.arange(ways), 0.0)
    return ways * torch.autograd.grad(loss, logits)[0]
