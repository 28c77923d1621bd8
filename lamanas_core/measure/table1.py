"""The paper's Table 1: its rows, one run (a row with a seed), and the table of results as Markdown."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import stdev
from typing import Any, Literal

import torch
import torch.nn.functional as F

from lamanas_core.config import LossKind, Proxy, TrainingConfig
from lamanas_core.data.folders import load_dataset
from lamanas_core.files import write_whole
from lamanas_core.measure.evaluate import EvaluationConfig, evaluate
from lamanas_core.measure.metrics import mean_and_interval
from lamanas_core.meta_model import MetaModel, read, write
from lamanas_core.recipe import Recipe, Reptile
from lamanas_core.train.loop import train
from lamanas_core.train.provenance import provenance
from lamanas_core.train.run_folder import kept_phi


@dataclass(frozen=True)
class Printed:
    """A row of the paper's Table 1: test and train accuracy in %, and the mean number of parameters."""

    test: float
    train: float
    parameters: int


# The paper's Table 1, by our names of its rows.
PAPER_TABLE = {
    "cross_entropy": Printed(82.5, 57.1, 413_215),
    "fnn-residual-mse": Printed(41.6, 50.0, 398_533),
    "fnn-mse": Printed(7.5, 6.5, 327_590),
    "fnn-residual-inner_product": Printed(43.8, 49.9, 402_351),
    "fnn-inner_product": Printed(6.0, 5.0, 299_200),
    "lstm-residual-mse": Printed(89.8, 61.0, 398_533),
    "lstm-mse": Printed(5.5, 5.1, 327_590),
    "lstm-residual-inner_product": Printed(91.4, 61.3, 435_067),
    "lstm-inner_product": Printed(6.0, 4.8, 299_200),
}
# Student's t for a 95 % confidence interval, by the number of values.
STUDENT = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776}


@dataclass(frozen=True)
class Row:
    """One row of the table: a variant of the method or a baseline.

    ``residual`` and ``proxy`` apply to learned losses only. ``algorithm`` "none" means that nothing is meta-trained
    after the warm-up. ``fixed``: the architecture α is fixed. ``resnet``: the stem is that of a ResNet-18.
    ``prototypes``: classes are told apart by their mean features, without inner steps.
    """

    name: str
    loss: LossKind = "cross_entropy"
    residual: bool = False
    proxy: Proxy | None = None
    algorithm: Literal["maml", "reptile", "none"] = "reptile"
    fixed: bool = False
    resnet: bool = False
    prototypes: bool = False


@dataclass(frozen=True)
class Budget:
    """The amount of computation per run. With ``warm_up_epochs`` 0, rows start from a random initialisation.

    ``steps`` is K at evaluation. ``outer_rate``: the peak of λ_meta, ξ_meta and χ_meta of Algorithm 2, for the mean of
    the tasks' differences; the sum that the paper prints needs ``outer_rate`` / ``meta_batch`` for the same step.
    ``episodes`` and ``train_episodes`` are the numbers of evaluation episodes on the test and training splits;
    ``resnet_episodes`` that of the ResNet-18 row, on each.
    """

    preset: str
    resnet_preset: str
    warm_up_epochs: int
    meta_epochs: int
    meta_batch: int
    steps: int
    outer_rate: float
    episodes: int
    train_episodes: int
    resnet_meta_epochs: int
    resnet_meta_batch: int
    resnet_episodes: int
    seeds: int = 3
    ways: int = 20
    shots: int = 5


BUDGETS = {
    "small": Budget(
        preset="paper_small",
        resnet_preset="paper_resnet18_small",
        warm_up_epochs=30,
        meta_epochs=20,
        meta_batch=5,
        steps=100,
        outer_rate=0.1,
        episodes=70,
        train_episodes=20,
        resnet_meta_epochs=6,
        resnet_meta_batch=2,
        resnet_episodes=7,
    ),
    "paper": Budget(
        preset="paper",
        resnet_preset="paper_resnet18",
        warm_up_epochs=0,
        meta_epochs=200,
        meta_batch=5,
        steps=100,
        outer_rate=1.0,
        episodes=70,
        train_episodes=20,
        resnet_meta_epochs=200,
        resnet_meta_batch=5,
        resnet_episodes=7,
        seeds=1,
    ),
}


def rows() -> tuple[Row, ...]:
    """The paper's nine variants (cross-entropy and eight learned losses), then the baselines."""
    learned = [
        Row(f"{loss}{'-residual' if residual else ''}-{proxy}", loss, residual, proxy)
        for loss in ("fnn", "lstm")
        for residual in (False, True)
        for proxy in ("mse", "inner_product")
    ]
    return (
        Row("cross_entropy"),
        *learned,
        Row("no_meta_training", algorithm="none"),
        Row("maml", algorithm="maml", fixed=True),
        Row("reptile", fixed=True),
        Row("prototypes", algorithm="none", prototypes=True),
        Row("resnet18", resnet=True),
    )


def reproduce(
    budget: Budget, seeds: Sequence[int], data: Path, run: Path, out: Path, command: str, tell: Callable[[str], None]
) -> Iterator[Path]:
    """Run every row with every seed, write one JSON file per run to ``out`` and yield its path.

    Runs whose JSON file exists are skipped. All rows of one seed precede the next seed. ``run`` holds the training
    folders, so that an interrupted training is resumed. ``command`` is recorded in each file; ``tell`` gets a line of
    progress before each run.
    """
    for seed in seeds:
        for row in rows():
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
    folder = run / f"{row.name}-{seed}"
    if row.algorithm == "none":
        model = warmed_up(budget, data, run)
    else:
        if config.start is not None:
            warmed_up(budget, data, run)
        model = trained(config, recipe(budget), data, folder)
    if row.prototypes:
        model = with_prototypes(model)
    splits = load_dataset(data, model.config.network.image)
    episodes, train_episodes = budget.episodes, budget.train_episodes
    if row.resnet:
        episodes = train_episodes = budget.resnet_episodes
    steps = 0 if row.prototypes else budget.steps
    asked = EvaluationConfig(budget.ways, budget.shots, 5, episodes, seed, steps)
    test = evaluate(model, splits["test"], asked, lambda number: None)
    known = evaluate(model, splits["train"], replace(asked, episodes=train_episodes), lambda number: None)
    means = test
    if not row.prototypes:
        means = evaluate(with_prototypes(model), splits["test"], replace(asked, steps=0), lambda number: None)
    return {
        "row": row.name,
        "loss": row.loss,
        "residual": row.residual,
        "proxy": row.proxy,
        "algorithm": row.algorithm,
        "seed": seed,
        "config": asdict(config),
        "budget": asdict(budget),
        "provenance": provenance(),
        "accuracy": test.accuracy,
        "ci95": test.ci95,
        "accuracies": [round(value, 4) for value in test.accuracies],
        "train_accuracy": known.accuracy,
        "prototype_accuracy": means.accuracy,
        "parameters_kept": test.parameters_kept,
        "parameters_total": test.parameters_total,
        "seconds": round(time.perf_counter() - started, 1),
        "direction_changed": direction_changed(model, folder) if model.parameters.phi else None,
    }


def recipe(budget: Budget) -> Recipe:
    """The recipe of all rows: the default one with the budget's outer rates for Algorithm 2."""
    rate = budget.outer_rate
    return Recipe(reptile=Reptile(theta_rate=rate, alpha_rate=rate, phi_rate=rate))


def training_config(row: Row, seed: int, budget: Budget, run: Path) -> TrainingConfig:
    """The training options for this row. A ResNet-18 row has a different θ, so it starts from random weights."""
    return TrainingConfig(
        preset=budget.resnet_preset if row.resnet else budget.preset,
        meta="maml" if row.algorithm == "maml" else "reptile",
        loss=row.loss,
        residual=row.residual,
        proxy=row.proxy or "mse",
        phi_steps="once",
        warm_up_epochs=0,
        meta_epochs=budget.resnet_meta_epochs if row.resnet else budget.meta_epochs,
        meta_batch=budget.resnet_meta_batch if row.resnet else budget.meta_batch,
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
        write(with_level_head(trained(config, recipe(budget), data, run / "warm")), start)
    return read(start)


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


def table(out: Path) -> str:
    """A Markdown table of all JSON files in ``out``, beside the paper's numbers.

    The first interval is the 95 % confidence interval over the episodes of all runs of a row, thus for these models;
    the second that over the seeds (Student's t), thus for other trainings as well.
    """
    found = [json.loads(path.read_text("utf-8")) for path in sorted(out.glob("*.json"))]
    lines = [
        "| row | runs | test accuracy | over seeds | by seed | train accuracy | class means | mean parameters "
        "| direction changed | paper: test | train | parameters |",
        "|" + " --- |" * 12,
    ]
    for row in rows():
        own = sorted((document for document in found if document["row"] == row.name), key=lambda one: one["seed"])
        if own:
            lines.append("| " + " | ".join(_cells(row, own)) + " |")
    return "\n".join(lines)


def _cells(row: Row, own: list[dict[str, Any]]) -> tuple[str, ...]:
    mean, half = mean_and_interval([value for document in own for value in document["accuracies"]])
    kept = sum(document["parameters_kept"] for document in own) / len(own)
    turned = [document["direction_changed"] for document in own if document["direction_changed"] is not None]
    printed = PAPER_TABLE.get(row.name)
    return (
        row.name,
        f"{len(own)} x {len(own[0]['accuracies'])} episodes",
        f"{100 * mean:.1f} ± {100 * half:.1f}",
        _over_seeds([document["accuracy"] for document in own]),
        ", ".join(f"{100 * document['accuracy']:.1f}" for document in own),
        f"{100 * _mean_of(own, 'train_accuracy'):.1f}",
        f"{100 * _mean_of(own, 'prototype_accuracy'):.1f}",
        f"{kept:,.0f} of {own[0]['parameters_total']:,}",
        ", ".join(f"{value:.2f}" for value in turned) or "-",
        *(("-",) * 3 if printed is None else (f"{printed.test}", f"{printed.train}", f"{printed.parameters:,}")),
    )


def _mean_of(own: list[dict[str, Any]], name: str) -> float:
    return sum(float(document[name]) for document in own) / len(own)


def _over_seeds(accuracies: list[float]) -> str:
    """The half-width of the 95 % confidence interval over seeds, in %; "-" for a single seed."""
    if len(accuracies) not in STUDENT:
        return "-"
    return f"± {100 * STUDENT[len(accuracies)] * stdev(accuracies) / len(accuracies) ** 0.5:.1f}"
