"""The paper's Table 1: its rows, one run (a row with a seed), and the table of results as Markdown."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F

from lamanas_core.config import LossKind, Proxy, TrainingConfig
from lamanas_core.data.folders import load_dataset
from lamanas_core.files import write_whole
from lamanas_core.measure.evaluate import EvaluationConfig, evaluate
from lamanas_core.measure.metrics import mean_and_interval
from lamanas_core.meta_model import MetaModel, read, write
from lamanas_core.train.loop import train
from lamanas_core.train.provenance import provenance
from lamanas_core.train.run_folder import kept_phi

BEST = 0.914  # the paper's best accuracy; its other numbers, and the row this one belongs to, are not known here


@dataclass(frozen=True)
class Row:
    """One row of the table: a variant of the method or a baseline.

    ``residual`` and ``proxy`` apply to learned losses only. ``algorithm`` "none" means that nothing is meta-trained
    after the warm-up. ``fixed``: the architecture α is fixed. ``resnet``: the backbone is a ResNet-18 stem.
    """

    name: str
    loss: LossKind = "cross_entropy"
    residual: bool = False
    proxy: Proxy | None = None
    algorithm: Literal["maml", "reptile", "none"] = "reptile"
    fixed: bool = False
    resnet: bool = False


@dataclass(frozen=True)
class Budget:
    """The amount of computation per run. With ``warm_up_epochs`` 0, rows start from a random initialisation.

    ``steps`` is K at evaluation. ``episodes`` and ``train_episodes`` are the numbers of evaluation episodes on the test
    and training splits.
    """

    preset: str
    resnet_preset: str
    warm_up_epochs: int
    meta_epochs: int
    meta_batch: int
    steps: int
    episodes: int
    train_episodes: int
    resnet_meta_epochs: int
    resnet_meta_batch: int
    seeds: int = 3
    ways: int = 20
    shots: int = 5


BUDGETS = {
    "small": Budget("paper_small", "paper_resnet18_small", 30, 20, 5, 5, 70, 20, 6, 2),
    "paper": Budget("paper", "paper_resnet18", 0, 200, 5, 50, 200, 100, 200, 5),
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
        Row("maml", algorithm="maml", fixed=True),
        Row("reptile", fixed=True),
        Row("prototypes", algorithm="none"),
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
        model = with_prototypes(warmed_up(budget, data, run))
    else:
        if config.start is not None:
            warmed_up(budget, data, run)
        model = trained(config, data, folder)
    steps = 0 if row.algorithm == "none" else budget.steps
    splits = load_dataset(data, model.config.network.image)
    asked = EvaluationConfig(budget.ways, budget.shots, 5, budget.episodes, seed, steps)
    test = evaluate(model, splits["test"], asked, lambda number: None)
    seen = replace(asked, episodes=budget.train_episodes)
    known = evaluate(model, splits["train"], seen, lambda number: None)
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
        "parameters_kept": test.parameters_kept,
        "parameters_total": test.parameters_total,
        "seconds": round(time.perf_counter() - started, 1),
        "direction_changed": direction_changed(model, folder) if model.parameters.phi else None,
    }


def training_config(row: Row, seed: int, budget: Budget, run: Path) -> TrainingConfig:
    """The training options for this row. A ResNet-18 row has a different θ, so it starts from random weights."""
    return TrainingConfig(
        preset=budget.resnet_preset if row.resnet else budget.preset,
        meta="maml" if row.algorithm == "maml" else "reptile",
        loss=row.loss,
        residual=row.residual,
        proxy=row.proxy or "mse",
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

    If the budget has no warm-up, only the prototype row uses them, after 80 warm-up epochs of its own.
    """
    start = run / "start"
    if not (start / "model.json").is_file():
        config = TrainingConfig(
            budget.preset, "reptile", "cross_entropy", warm_up_epochs=budget.warm_up_epochs or 80, meta_epochs=0
        )
        write(with_level_head(trained(config, data, run / "warm")), start)
    return read(start)


def with_level_head(model: MetaModel) -> MetaModel:
    """``model`` with its linear layer set to zero.

    The warm-up does not train this layer, and its random weights would favour some classes by more than five adaptation
    steps can correct.
    """
    theta = model.parameters.theta
    level = {name: torch.zeros_like(value) if name.startswith("head.") else value for name, value in theta.items()}
    return MetaModel(replace(model.parameters, theta=level), model.card)


def trained(config: TrainingConfig, data: Path, folder: Path) -> MetaModel:
    """The trained model in ``folder``. If there is none yet, its training is started or resumed first."""
    if not (folder / "model.json").is_file():
        model = train(config, data, folder, device="cpu", on_progress=lambda progress: None, should_stop=lambda: False)
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
    """A Markdown table of all JSON files in ``out``.

    Each interval is the 95 % confidence interval over the episodes of all runs of a row; the accuracy of each seed is
    also listed separately.
    """
    found = [json.loads(path.read_text("utf-8")) for path in sorted(out.glob("*.json"))]
    lines = [
        "| row | loss | residual | proxy | runs | test accuracy | by seed | train accuracy | mean parameters "
        "| direction changed | paper |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows():
        own = sorted((document for document in found if document["row"] == row.name), key=lambda one: one["seed"])
        if own:
            lines.append("| " + " | ".join(_cells(row, own)) + " |")
    return "\n".join([*lines, "", f"The paper's best row has {100 * BEST} %; its other numbers are not known to us."])


def _cells(row: Row, own: list[dict[str, Any]]) -> tuple[str, ...]:
    mean, half = mean_and_interval([value for document in own for value in document["accuracies"]])
    known = sum(document["train_accuracy"] for document in own) / len(own)
    kept = sum(document["parameters_kept"] for document in own) / len(own)
    turned = [document["direction_changed"] for document in own if document["direction_changed"] is not None]
    return (
        row.name,
        row.loss,
        "-" if row.loss == "cross_entropy" else "on" if row.residual else "off",
        row.proxy or "-",
        f"{len(own)} x {len(own[0]['accuracies'])} episodes",
        f"{100 * mean:.1f} ± {100 * half:.1f}",
        ", ".join(f"{100 * document['accuracy']:.1f}" for document in own),
        f"{100 * known:.1f}",
        f"{kept:,.0f} of {own[0]['parameters_total']:,}",
        ", ".join(f"{value:.2f}" for value in turned) or "-",
        "-",
    )
