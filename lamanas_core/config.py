"""Configuration of meta-models and of their training, and the presets. Does not import torch."""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from lamanas_core.image_spec import ImageSpec

LossKind = Literal["cross_entropy", "fnn", "lstm"]
Proxy = Literal["mse", "inner_product", "cosine"]
ResidualAt = Literal["first_layer", "output"]
PhiSteps = Literal["once", "each_step"]
# A step size that changes no parameter but has a finite logarithm.
NO_STEP = 1e-30
# The default limit of the number of classes of a task.
MOST_WAYS = 80


@dataclass(frozen=True)
class NetworkConfig:
    """The supernet (the search space of MetaNAS) with its head; or, with a ``backbone``, cells on its maps.

    ``image``: the images it takes. ``channels``: the width of all cells. ``nodes``: intermediate nodes per cell.
    ``stem_stride``: the stride of the convolutional stem. ``pool_to``: the side that the last feature map is
    average-pooled to. ``temperature``: the final temperature of the softmax over α. ``prune_threshold`` and
    ``train_threshold``: shares (0..1) below which operations and inputs are dropped, at adaptation and in the inner
    steps of meta-training. ``drop_path``: the probability of dropping an operation, in meta-training only.

    ``backbone``: a pretrained network that stays as it is (see ``backbones.storage``). With it, operations
    are names in ``search.tap_operations.TAP_OPERATIONS``, and ``channels``, ``nodes``, ``cells``, ``stem``,
    ``stem_stride`` and ``pool_to`` have no meaning.
    """

    image: ImageSpec = field(default_factory=ImageSpec)
    channels: int = 32
    stem_stride: int = 2
    nodes: int = 3
    cells: tuple[Literal["normal", "reduction"], ...] = ("normal", "reduction", "normal", "reduction")
    operations: tuple[str, ...] = ("max_pool_3x3", "skip", "conv_3x3", "sep_conv_3x3")
    # A name in ``search.stems.STEMS``. Operations are names in ``search.operations.OPERATIONS``.
    stem: str = "convolution"
    pool_to: int = 2
    # A name in ``heads.registry.HEADS``: "linear" is the paper's head, a layer of θ for ``ways`` classes; "prototypes"
    # and "gaussian" take any number of classes.
    head: str = "prototypes"
    ways: int = 20
    # The largest number of crops of each support image to which the head is fitted as well (``data.crops``), after
    # meta-training, which is without them. Without a backbone it has no meaning.
    crops: int = 0
    temperature: float = 0.05
    prune_threshold: float = 0.05
    train_threshold: float = 0.05
    drop_path: float = 0.0
    backbone: str | None = None

    def takes_parameters_of(self, other: "NetworkConfig") -> bool:
        """Whether parameters trained for ``other`` have the same shapes and meaning in this network.

        The networks may differ in what they drop, and in the crops that the head is fitted to.
        """
        names = ("prune_threshold", "train_threshold", "drop_path", "crops")
        return replace(other, **{name: getattr(self, name) for name in names}) == self


@dataclass(frozen=True)
class TaskLearnerConfig:
    """The task learner Φ_K: K inner steps on θ and α with the learned loss L_φ (Eq. 2).

    ``steps`` is K; ``max_steps`` limits what a request may choose instead. ``theta_rate`` and ``alpha_rate`` are the
    initial step sizes λ_task and ξ_task; with SGD they are meta-learned per step and tensor. ``optimizer`` "adam" is
    Adam with β₁ = 0 and fixed step sizes, for Algorithm 2 only, since no meta-gradient flows through it. ``batch``:
    support images per inner step, None for all. The temperature of α falls linearly over the K steps from
    ``start_temperature`` (None: it is constant) to ``NetworkConfig.temperature``.

    ``loss``, ``residual`` (the residual connection to cross-entropy) and ``hidden`` (its width) define L_φ;
    ``residual_at`` is the place of the residual connection in the paper's loss networks (``losses.paper``).
    ``logit_scale`` multiplies the logits that L_φ takes.
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
    residual_at: ResidualAt = "output"
    hidden: int = 32
    logit_scale: float = 0.2


@dataclass(frozen=True)
class Novelty:
    """How novelty, the probability that an image belongs to none of the classes, follows from its distance to them.

    Novelty is sigmoid(``slope`` * (r - ``relative`` * R - ``centre``)) with ``slope`` > 0, where r is the logarithm of
    the squared distance to the nearest prototype, each divided by (1 + 1 / n) ** ``spread`` for a prototype of n
    images: the fewer they are, the farther from it are images of its class (``DistanceHead.log_distance``). R tells how
    far apart the classes of an episode are: the mean of r over its labelled images, each without the prototype of its
    own class (``DistanceHead.reference``). An image whose novelty exceeds ``threshold`` (0..1) is called unknown.
    """

    centre: float
    slope: float
    spread: float
    threshold: float
    relative: float = 0.0

    def of_episode(self, reference: float) -> "Novelty":
        """The same for an episode with this R, without ``relative``."""
        return replace(self, centre=self.centre + self.relative * reference, relative=0.0)


@dataclass(frozen=True)
class Calibration:
    """Calibration fitted on the validation split.

    With m images in each class, logits are divided by ``temperature`` (1 + 1 / m)^``temperature_spread``, since fewer
    images make other mistakes. ``novelty``: None if novelty is not measured. ``without_crops``: ``temperature`` and
    ``temperature_spread`` of heads that are fitted to no crops; None if all are.
    """

    temperature: float = 1.0
    novelty: Novelty | None = None
    temperature_spread: float = 0.0
    without_crops: tuple[float, float] | None = None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Calibration":
        """The inverse of ``asdict``. Cards from before ``Novelty`` measured it otherwise; they are read without it."""
        novelty, without_crops = data.get("novelty"), data.get("without_crops")
        return cls(
            data.get("temperature", 1.0),
            None if novelty is None else Novelty(**novelty),
            data.get("temperature_spread", 0.0),
            None if without_crops is None else (without_crops[0], without_crops[1]),
        )


@dataclass(frozen=True)
class Config:
    """Everything that defines a meta-model except its weights; stored in the model card."""

    preset: str = "serving"
    network: NetworkConfig = field(default_factory=NetworkConfig)
    task_learner: TaskLearnerConfig = field(default_factory=TaskLearnerConfig)
    calibration: Calibration = field(default_factory=Calibration)

    def to_json(self) -> dict[str, Any]:
        """A JSON object. ``image``, ``steps`` and ``max_steps`` are repeated at the top level, where services read."""
        return asdict(self) | {
            "image": asdict(self.network.image),
            "steps": self.task_learner.steps,
            "max_steps": self.task_learner.max_steps,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Config":
        """The inverse of ``to_json``. Raises KeyError or TypeError if ``data`` has a different structure."""
        network = dict(data["network"])
        network["image"] = ImageSpec(**network["image"])
        network["cells"], network["operations"] = tuple(network["cells"]), tuple(network["operations"])
        calibration = Calibration.from_json(data.get("calibration", {}))
        return cls(data["preset"], NetworkConfig(**network), TaskLearnerConfig(**data["task_learner"]), calibration)


# The paper's search space and task learner. What the paper does not specify follows MetaNAS's published settings.
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
        train_threshold=0.01,
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
        residual_at="first_layer",
        hidden=64,
        logit_scale=1.0,
    ),
)

PRESETS: dict[str, Config] = {
    "serving": Config(),
    # Colour photos (the miniImageNet setting). The stem's stride 3 gives 28 x 28 positions and skips no pixel.
    "rgb84": Config(
        "rgb84",
        NetworkConfig(ImageSpec(size=84, channels=3, normalise_polarity=False), channels=24, stem_stride=3),
    ),
    # Photos: few parameters, on the maps of EfficientNet-Lite0.
    "photos": Config(
        "photos",
        NetworkConfig(
            ImageSpec(size=224, channels=3, normalise_polarity=False),
            operations=("none", "scale", "conv_1x1", "depthwise_3x3"),
            head="gaussian",
            crops=3,
            temperature=1.0,
            backbone="lite0-d09a698f3246",
        ),
        TaskLearnerConfig(theta_rate=5.0, alpha_rate=0.1, logit_scale=0.3),
    ),
    # For tests and first experiments with a data set: trains in minutes instead of hours.
    "tiny": Config("tiny", replace(NetworkConfig(), channels=8), replace(TaskLearnerConfig(), hidden=8)),
    "paper": PAPER,
    # The paper's network at a size that two cores train in minutes. α keeps its final temperature: at 1.0, operations
    # that the warm-up dropped would reappear.
    "paper_small": replace(
        PAPER,
        preset="paper_small",
        network=replace(PAPER.network, channels=8, stem_stride=2),
        task_learner=replace(PAPER.task_learner, start_temperature=None),
    ),
    "paper_resnet18": replace(PAPER, preset="paper_resnet18", network=replace(PAPER.network, stem="resnet18")),
    "paper_resnet18_small": replace(
        PAPER, preset="paper_resnet18_small", network=replace(PAPER.network, channels=8, stem="resnet18")
    ),
}


# The options of a training whose defaults differ for a preset. Most of the photo model is there before its training.
PRESET_OPTIONS: dict[str, dict[str, Any]] = {"photos": {"warm_up_epochs": 8, "warm_up_batch": 2, "meta_epochs": 50}}


@dataclass(frozen=True)
class TrainingConfig:
    """The options of ``lamanas train`` and ``POST /train``.

    A warm-up epoch is ``Schedule.warm_up_steps_per_epoch`` (50) steps on ``warm_up_batch`` tasks each; a meta-epoch is
    one outer step on ``meta_batch`` tasks. The tasks of a step can be distributed over that many processes.
    ``ways`` and ``shots`` limit the tasks, and a linear head has ``ways`` classes. Where ``ways`` is None, tasks have
    up to ``MOST_WAYS`` classes, and a linear head as many as in the preset. ``first_order``: MAML ignores second
    derivatives with respect to θ and α. ``proxy``: the loss for φ in Algorithm 2 (Eqs. 7 and 8). ``phi_steps``: how
    Algorithm 2 moves φ within a task, by one step of gradient descent after the K steps, as the paper has it ("once"),
    or by a step of Adam at each of them ("each_step"). ``rotations``: a class rotated by 90, 180 or 270 degrees is a
    class of its own; by default for drawings.
    """

    preset: str = "serving"
    meta: Literal["reptile", "maml"] = "maml"
    loss: LossKind = "lstm"
    residual: bool = True
    first_order: bool = False
    proxy: Proxy = "cosine"
    phi_steps: PhiSteps = "each_step"
    warm_up_epochs: int = 80
    warm_up_batch: int = 1
    meta_epochs: int = 40
    meta_batch: int = 5
    ways: int | None = None
    shots: int = 5
    seed: int = 0
    rotations: bool = True
    # The meta-model to continue training from: its folder, or "shipped".
    start: str | None = None
    # A safetensors file with a pretrained ResNet-18, for presets with a ResNet-18 stem.
    pretrained: str | None = None
    # A backbone in place of that of the preset, which must have one.
    backbone: str | None = None
    # α is trained in neither stage, nor adapted: plain MAML and Reptile. Without ``start`` it remains near-uniform.
    fixed_architecture: bool = False
    # Damaged images of the data set are left out.
    skip_damaged: bool = False
    # Lake's split of Omniglot in place of the usual split.
    split: Literal["lake"] | None = None

    @property
    def epochs(self) -> int:
        """Of both stages."""
        return self.warm_up_epochs + self.meta_epochs

    @classmethod
    def from_request(cls, options: dict[str, Any]) -> "TrainingConfig":
        """The defaults of the preset overridden by ``options``. Raises ValueError for unknown names and invalid values.

        If ``meta_epochs`` is given without ``warm_up_epochs``, the warm-up has twice as many epochs as ``meta_epochs``,
        so that a short run is short as a whole; but not if the preset has a default of its own for both.
        """
        unknown = options.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"unknown options: {', '.join(sorted(unknown))}")
        preset = options.get("preset", cls.preset)
        config = cls(**PRESET_OPTIONS.get(preset, {}) | options)
        for name, value, allowed in (
            ("preset", config.preset, tuple(PRESETS)),
            ("meta", config.meta, ("reptile", "maml")),
            ("loss", config.loss, get_args(LossKind)),
            ("proxy", config.proxy, get_args(Proxy)),
            ("phi_steps", config.phi_steps, get_args(PhiSteps)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; valid values: {', '.join(allowed)}")
        counts = (config.meta_epochs, config.meta_batch, config.warm_up_batch, config.shots)
        if min(counts) < 1 or config.most_ways < 2 or config.warm_up_epochs < 0:
            raise ValueError(
                "meta_epochs, meta_batch, warm_up_batch and shots must be at least 1, "
                "ways at least 2 and warm_up_epochs at least 0"
            )
        if config.backbone is not None and PRESETS[config.preset].network.backbone is None:
            raise ValueError(f"preset {config.preset} has no backbone: give one with preset photos")
        if config.start is not None and config.pretrained is not None:
            raise ValueError("start and pretrained are mutually exclusive: a meta-model includes its stem")
        if "meta_epochs" in options and "warm_up_epochs" not in options and preset not in PRESET_OPTIONS:
            config = replace(config, warm_up_epochs=2 * config.meta_epochs)
        network = PRESETS[config.preset].network
        if network.head != "linear":  # as checkpoints have recorded it so far
            config = replace(config, ways=config.most_ways)
        if "rotations" not in options:
            config = replace(config, rotations=network.image.drawings)
        return config

    @property
    def most_ways(self) -> int:
        """The largest number of classes of a task."""
        return MOST_WAYS if self.ways is None else self.ways

    def model_config(self) -> Config:
        """The preset's config with this run's loss and, for a linear head, its number of classes. Algorithm 1 (MAML)
        gets SGD as its inner optimiser.
        """
        preset = PRESETS[self.preset]
        network = preset.network
        if network.head == "linear" and self.ways is not None:
            network = replace(network, ways=self.ways)
        if self.backbone is not None:
            network = replace(network, backbone=self.backbone)
        task = replace(preset.task_learner, loss=self.loss, residual=self.residual)
        if self.meta == "maml":  # no meta-gradient flows through Adam with β₁ = 0
            task = replace(task, optimizer="sgd")
        if self.fixed_architecture:
            task = replace(task, alpha_rate=NO_STEP)
        return replace(preset, network=network, task_learner=task)
