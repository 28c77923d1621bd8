"""What a meta-model is built and trained with. Presets hold overrides only. Needs no torch."""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from lamanas_core.image_spec import ImageSpec

LossKind = Literal["cross_entropy", "fnn", "lstm"]
Proxy = Literal["mse", "inner_product", "cosine"]
# A step size too small to move anything, whose logarithm is finite.
NO_STEP = 1e-30


@dataclass(frozen=True)
class NetworkConfig:
    """The supernet (search space of MetaNAS): cells N-R-N-R of ``nodes`` nodes, ``channels`` wide throughout."""

    image: ImageSpec = field(default_factory=ImageSpec)
    channels: int = 32
    stem_stride: int = 2
    nodes: int = 3
    cells: tuple[Literal["normal", "reduction"], ...] = ("normal", "reduction", "normal", "reduction")
    operations: tuple[str, ...] = ("max_pool_3x3", "skip", "conv_3x3", "sep_conv_3x3")
    # By its name in ``backbones.BACKBONES``; operations by theirs in ``search.operations.OPERATIONS``.
    stem: str = "convolution"
    pool_to: int = 2
    # By its name in ``heads.HEADS``: "linear" is the paper's, a layer of θ for ``ways`` classes; "prototypes" serves
    # any number of classes.
    head: str = "prototypes"
    ways: int = 20
    temperature: float = 0.05
    prune_threshold: float = 0.05
    train_threshold: float = 0.01
    drop_path: float = 0.0


@dataclass(frozen=True)
class TaskLearnerConfig:
    """Φ_K: K steps on θ and α with the learned loss (Eq. 2). SGD's step sizes are learned, and start out as these.

    ``optimizer`` "adam" is Adam with β₁ = 0 at fixed rates, for Algorithm 2 alone: no meta-gradient flows through it.
    ``batch``: images a step, None for all. α's temperature falls linearly from ``start_temperature``
    (None: it stands) to the network's.
    """

    steps: int = 3
    max_steps: int = 20
    theta_rate: float = 0.6
    alpha_rate: float = 0.03
    optimizer: Literal["sgd", "adam"] = "sgd"
    batch: int | None = None
    start_temperature: float | None = None
    loss: LossKind = "lstm"
    residual: bool = True
    hidden: int = 32
    logit_scale: float = 0.2


@dataclass(frozen=True)
class Calibration:
    """Fitted on the validation split: what logits are divided by, and where and how steeply novelty rises (logistic in
    the log of an image's distance to the nearest prototype over the prototypes' distance from each other).
    """

    temperature: float = 1.0
    novelty_centre: float = 0.0
    novelty_slope: float = 4.0


@dataclass(frozen=True)
class Config:
    """Everything that fixes what a meta-model is, apart from its weights; stored in the model card."""

    preset: str = "serving"
    network: NetworkConfig = field(default_factory=NetworkConfig)
    task_learner: TaskLearnerConfig = field(default_factory=TaskLearnerConfig)
    calibration: Calibration = field(default_factory=Calibration)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; ``image``, ``steps`` and ``max_steps`` stand at the top too, where services look for them."""
        return asdict(self) | {
            "image": asdict(self.network.image),
            "steps": self.task_learner.steps,
            "max_steps": self.task_learner.max_steps,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Config":
        """The inverse of ``to_json``. Raises KeyError or TypeError on a document of another shape."""
        network = dict(data["network"])
        network["image"] = ImageSpec(**network["image"])
        network["cells"], network["operations"] = tuple(network["cells"]), tuple(network["operations"])
        calibration = Calibration(**data.get("calibration", {}))
        return cls(data["preset"], NetworkConfig(**network), TaskLearnerConfig(**data["task_learner"]), calibration)


# The paper's search space and task learner; what it leaves open is as in the public MetaNAS settings.
PAPER = Config(
    "paper",
    replace(
        NetworkConfig(),
        channels=28,
        stem_stride=1,
        operations=(
            "max_pool_3x3",
            "avg_pool_3x3",
            "skip",
            "conv_1x5_5x1",
            "conv_3x3",
            "double_sep_conv_3x3",
            "dil_conv_3x3",
        ),
        pool_to=1,
        head="linear",
        drop_path=0.2,
    ),
    TaskLearnerConfig(
        steps=5,
        max_steps=100,
        theta_rate=0.005,
        alpha_rate=0.005,
        optimizer="adam",
        batch=20,
        start_temperature=1.0,
        hidden=64,
        logit_scale=1.0,
    ),
)

PRESETS: dict[str, Config] = {
    "serving": Config(),
    # Colour photos (the miniImageNet setting). A stem of 3 x 3 patches: 28 x 28 positions, and every pixel is seen.
    "rgb84": Config(
        "rgb84",
        NetworkConfig(ImageSpec(size=84, channels=3, normalise_polarity=False), channels=24, stem_stride=3),
    ),
    # Small enough for tests and for trying a data set out: minutes, not hours.
    "tiny": Config("tiny", replace(NetworkConfig(), channels=8), replace(TaskLearnerConfig(), hidden=8)),
    "paper": PAPER,
    # The paper's network at a size that two cores train in minutes. Its steps are few, so each sees all images, and
    # α stands where a warm-up left it: at a temperature of 1.0 what that has dropped would be back.
    "paper_small": replace(
        PAPER,
        preset="paper_small",
        network=replace(PAPER.network, channels=8, stem_stride=2),
        task_learner=replace(PAPER.task_learner, batch=None, start_temperature=None),
    ),
    "paper_resnet18": replace(PAPER, preset="paper_resnet18", network=replace(PAPER.network, stem="resnet18")),
    "paper_resnet18_small": replace(
        PAPER, preset="paper_resnet18_small", network=replace(PAPER.network, channels=8, stem="resnet18")
    ),
}


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
            task = replace(task, alpha_rate=NO_STEP)
        return replace(preset, task_learner=task)
