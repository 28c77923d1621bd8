"""The rows of the paper's Table 1 with its numbers, their variants, and the budgets."""

from dataclasses import dataclass, replace
from typing import Literal

from lamanas_core.config import LossKind, PhiSteps, Proxy


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


@dataclass(frozen=True)
class Row:
    """One row of the table, a method or a baseline, or a variant of one.

    ``residual``, ``proxy`` and ``phi_steps`` apply to learned losses only. ``algorithm`` "none" means that nothing is
    meta-trained after the warm-up. ``fixed``: the architecture α is fixed. ``resnet``: the stem is that of a ResNet-18.
    ``prototypes``: classes are told apart by their mean features, without inner steps.

    ``outer_rate`` (of φ: ``phi_rate``) and ``meta_batch``: in place of the budget's; ``steps``: K in meta-training, in
    place of the preset's. ``level_head``: the linear layer is 0 at the start of each task, as outer steps leave it out.
    ``centred``: the steps of the evaluation are on the learned loss less the slope that ignores the label
    (``runs.centred``); the trained model is that of the row with the same name less "-centred".
    """

    name: str
    loss: LossKind = "cross_entropy"
    residual: bool = False
    proxy: Proxy | None = None
    algorithm: Literal["maml", "reptile", "none"] = "reptile"
    fixed: bool = False
    resnet: bool = False
    prototypes: bool = False
    phi_steps: PhiSteps = "once"
    outer_rate: float | None = None
    phi_rate: float | None = None
    meta_batch: int | None = None
    steps: int | None = None
    level_head: bool = False
    centred: bool = False

    @property
    def trained_as(self) -> str:
        """The name of the row that is trained in the same way."""
        return self.name.removesuffix("-centred")


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
    """The paper's nine methods (cross-entropy and eight learned losses), then the baselines."""
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


def variants() -> tuple[Row, ...]:
    """Cross-entropy and learned losses, trained in other ways than the paper prints them: is one of them better than no
    meta-training, or a learned loss than cross-entropy?
    """
    table = {row.name: row for row in rows()}
    of_mse, of_product = table["fnn-residual-mse"], table["fnn-residual-inner_product"]
    by_cosine = replace(of_product, name="fnn-residual-cosine-phi_rate_1", proxy="cosine", phi_rate=1.0)
    by_adam = replace(by_cosine, name=f"{by_cosine.name}-each_step", phi_steps="each_step")
    long = replace(by_adam, name=f"{by_adam.name}-level_head-20_steps", level_head=True, steps=20)
    return (
        Row("cross_entropy-rate_0.03", outer_rate=0.03),
        Row("cross_entropy-rate_0.01", outer_rate=0.01),
        Row("cross_entropy-level_head", level_head=True),
        Row("cross_entropy-20_steps", steps=20),
        Row("cross_entropy-20_tasks", meta_batch=20),
        Row("cross_entropy-level_head-20_steps-20_tasks", level_head=True, steps=20, meta_batch=20),
        replace(of_mse, name=f"{of_mse.name}-centred", centred=True),
        replace(of_product, name=f"{of_product.name}-centred", centred=True),
        Row("fnn-residual-untrained", "fnn", residual=True, algorithm="none"),
        by_cosine,
        by_adam,
        long,
        replace(long, name=long.name.replace("fnn", "lstm"), loss="lstm"),
    )
