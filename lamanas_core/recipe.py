"""The recipe: all hyperparameters of meta-training that are not options of ``TrainingConfig``.

Every model card contains the recipe of its training.
"""

from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any


@dataclass(frozen=True)
class Schedule:
    """The learning rate schedule of each stage (warm-up and meta-training), validation and checkpoints.

    At progress p (0..1) of a stage, each rate is its peak times min(1, (p + ``first_rise``) / ``rise``), times half a
    cosine that falls from 1 to ``floor``. The fields ``*_per_validation`` and ``epochs_per_checkpoint`` are intervals.
    """

    warm_up_steps_per_epoch: int = 50
    rise: float = 0.02
    first_rise: float = 1e-3
    floor: float = 0.02
    warm_up_epochs_per_validation: int = 10
    meta_epochs_per_validation: int = 50
    epochs_per_checkpoint: int = 5
    validation_episodes: int = 20
    validation_ways: int = 20
    validation_queries: int = 2
    phi_kept: int = 4  # snapshots of φ in the meta-training, besides the initial one


@dataclass(frozen=True)
class WarmUp:
    """The warm-up: AdamW on θ, α and the head's scale, with a penalty on the size of the network.

    During the first ``annealed_by`` (a fraction of the stage) the temperature of α falls from 1 to ``end_temperature``
    and the penalty's weight rises to ``pressure``. The penalty applies to the size in excess of ``target_size``, a
    fraction of the supernet's. An operation with the weight ``faint`` counts about a quarter of its full cost (see
    ``meta.warm_up.size``). An operation costs its number of parameters plus ``pass_cost``, for the computation of a
    pass over the images. Operations and inputs with a share below ``threshold`` (0..1) are dropped. ``average_decay``:
    of the running average of the parameters, per step.
    """

    theta_rate: float = 2e-3
    alpha_rate: float = 1.5e-2
    scale_rate: float = 1e-2
    theta_weight_decay: float = 1e-2
    beta_1: float = 0.9
    beta_2: float = 0.99
    annealed_by: float = 0.15
    end_temperature: float = 0.05
    target_size: float = 0.3
    pressure: float = 3.0
    faint: float = 0.05
    pass_cost: int = 2000
    threshold: float = 0.01
    average_decay: float = 0.998


@dataclass(frozen=True)
class Maml:
    """The meta-learning rates of Algorithm 1 (MAML): Adam on θ (λ_meta), α (ξ_meta), φ (χ_meta), the logarithms of the
    step sizes, and the logarithm of the head's scale.
    """

    theta_rate: float = 1e-4
    alpha_rate: float = 1e-3
    phi_rate: float = 1e-2
    log_rates_rate: float = 1e-1
    scale_rate: float = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.99


@dataclass(frozen=True)
class Reptile:
    """The meta-learning rates of Algorithm 2 (Reptile), for the mean of the tasks' differences θ_i* - θ, α_i* - α and
    φ_i* - φ. ``phi_rate_within_task``: the rate for φ_i within a task (χ_task). ``head_moves``: the head's part of θ is
    meta-learned as well; otherwise each task starts with that of the first. ``steps``: K in the training's tasks; None:
    the task learner's.
    """

    theta_rate: float = 1.0
    alpha_rate: float = 0.6
    phi_rate: float = 1.0
    phi_rate_within_task: float = 0.01
    head_moves: bool = True
    steps: int | None = None


@dataclass(frozen=True)
class Clipping:
    """The maximum norm of the meta-gradient of each group of parameters. Reptile's differences are not clipped."""

    theta: float = 5.0
    phi: float = 1.0
    log_rates: float = 1.0


@dataclass(frozen=True)
class Tasks:
    """The distribution of training tasks. The fractions without a unit are probabilities, each of a task.

    Warm-up: ``warm_up_images`` is the maximum number of images of a task if the stem's feature maps have at most
    ``positions`` positions, and fewer otherwise; ``pairs`` are the combinations of shots and queries per class.

    Meta-training: a task has ``fewest_ways`` to ``most_ways`` classes, ``queries`` query images per class, and at most
    ``adaptation_share`` of the warm-up's images, since the graph of all inner steps is kept in memory. ``uneven``: the
    classes have different numbers of shots. ``restyled``: all images are drawn in another style; ``unsteady``: the
    images of a restyled task are also distorted a second time, so that those of a class differ more than in the data.
    ``cached_styles``: the styles that a backbone's maps of all training images are computed in before the training, and
    from which those of validation images are drawn for calibration.
    """

    warm_up_images: int = 160
    positions: int = 196
    pairs: tuple[tuple[int, int], ...] = ((1, 1), (1, 2), (2, 2), (5, 3))
    warm_up_within_group: float = 0.3
    adaptation_within_group: float = 0.5
    adaptation_uneven: float = 0.5
    adaptation_share: float = 0.3
    fewest_ways: int = 5
    most_ways: int = 20
    queries: int = 2
    restyled: float = 0.7
    unsteady: float = 0.5
    cached_styles: int = 3


@dataclass(frozen=True)
class Affine:
    """The limits of random affine transformations: rotation in degrees, relative change of scale, shear coefficient,
    and shift in half sides of the image.
    """

    degrees: float = 12.0
    scale: float = 0.15
    shear: float = 0.15
    shift: float = 0.16


@dataclass(frozen=True)
class Styles:
    """The distribution of styles; each style applies to a whole task.

    Drawings (see ``ImageSpec.drawings``): ``thicker_pen``, ``coarse`` (with ``coarsest`` and ``finest``),
    ``stretched``, ``contrast`` and ``grain`` are probabilities; ``stretch`` is the range of both axes' scale factors,
    ``slant`` the largest shear, ``contrast_power`` the range of the exponent of pixel values in 0..1, and
    ``grain_strength`` the range of the noise's standard deviation.

    Photos: ``coarse``, ``coloured_light``, ``exposure``, ``false_colours`` and ``grey`` are probabilities; each channel
    is multiplied by a factor from ``darkest_light`` to 1; ``exposure_power`` is the range of the exponent of pixel
    values.
    """

    thicker_pen: float = 0.5
    coarse: float = 0.5
    coarsest: float = 7.0  # pixels per side, for images of 28 x 28
    finest: float = 15.0
    stretched: float = 0.5
    stretch: tuple[float, float] = (0.6, 1.6)
    slant: float = 0.3
    contrast: float = 0.3
    contrast_power: tuple[float, float] = (0.4, 2.5)
    grain: float = 0.2
    grain_strength: tuple[float, float] = (0.02, 0.15)
    coloured_light: float = 0.5
    darkest_light: float = 0.5
    exposure: float = 0.5
    exposure_power: tuple[float, float] = (0.5, 2.0)
    false_colours: float = 0.4
    grey: float = 0.2


@dataclass(frozen=True)
class CalibrationEpisodes:
    """The episodes of the validation split that calibration is fitted on; ``queries`` per class.

    ``episodes``: of each number of shots. Novelty is fitted with ``novelty_shots``, the temperature with ``shots`` too.
    ``called_unknown``: the fraction of the queries whose novelty exceeds the threshold. ``within_group``: all classes
    of an episode are from one group, as a user's classes resemble each other. ``relative_novelty``: novelty is relative
    to how far apart the classes of its episode are, ``Novelty.relative``.
    """

    episodes: int = 40
    ways: int = 20
    shots: int = 5
    queries: int = 5
    novelty_shots: tuple[int, ...] = (1, 2, 5)
    called_unknown: float = 0.05
    within_group: bool = False
    relative_novelty: bool = False


@dataclass(frozen=True)
class Recipe:
    """All hyperparameters. The defaults are those of the shipped model."""

    schedule: Schedule = field(default_factory=Schedule)
    warm_up: WarmUp = field(default_factory=WarmUp)
    maml: Maml = field(default_factory=Maml)
    reptile: Reptile = field(default_factory=Reptile)
    clipping: Clipping = field(default_factory=Clipping)
    tasks: Tasks = field(default_factory=Tasks)
    affine: Affine = field(default_factory=Affine)
    styles: Styles = field(default_factory=Styles)
    calibration: CalibrationEpisodes = field(default_factory=CalibrationEpisodes)
    # The decay of the running average of all meta-learned parameters, per outer step after the warm-up.
    meta_average_decay: float = 0.8

    def to_json(self) -> dict[str, Any]:
        """A JSON object, as in a model card."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Recipe":
        """The inverse of ``to_json``. Raises TypeError for unknown and missing names."""
        # What cards of earlier models lack. Their warm-up's threshold is the network's ``train_threshold``, which was
        # 0.01; the other defaults apply if they are trained or calibrated again.
        default = cls()
        since: dict[str, dict[str, Any]] = {
            "warm_up": {"threshold": 0.01},
            "calibration": _defaults(
                default.calibration, "novelty_shots", "called_unknown", "within_group", "relative_novelty"
            ),
            "reptile": _defaults(default.reptile, "head_moves", "steps"),
            "tasks": _defaults(default.tasks, "cached_styles"),
            "styles": _defaults(default.styles, "false_colours", "grey"),
        }
        parts = {name: fields | document.get(name, {}) for name, fields in since.items()}
        return _part(default, document | parts)  # type: ignore[no-any-return]


def _defaults(part: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(part, name) for name in names}


# Photos: all classes of a task are from one set, and K steps start from the backbone, of which the warm-up trains the
# head's prior, the weights of the maps and the scale only. The rates are small: sets of objects soon make the head look
# at the backbone's last layer alone, which costs 2 points on textures that the training has not seen. Sets of photos
# differ in how far apart their classes are; on drawings, novelty relative to that would be no better (docs/method.md).
_PHOTOS = Recipe(
    warm_up=WarmUp(theta_rate=5e-4, alpha_rate=2e-3, theta_weight_decay=0.0, average_decay=0.98),
    maml=Maml(theta_rate=1e-4, alpha_rate=5e-4, phi_rate=3e-3),
    tasks=Tasks(adaptation_within_group=1.0, most_ways=12, queries=4, restyled=0.5),
    calibration=CalibrationEpisodes(ways=5, within_group=True, relative_novelty=True),
)


def recipe_for(preset: str) -> Recipe:
    """The hyperparameters of the training of a preset."""
    return _PHOTOS if preset == "photos" else Recipe()


def _part(default: Any, value: Any) -> Any:
    """``value``, from a JSON document, as an instance of the class of ``default`` if that is a dataclass."""
    if not is_dataclass(default):
        return _tuples(value)
    missing = {one.name for one in fields(default)} - value.keys()
    if missing:
        raise TypeError(f"{type(default).__name__} lacks {', '.join(sorted(missing))}")
    parts = {name: _part(getattr(default, name, None), inner) for name, inner in value.items()}
    kind: Any = type(default)
    return kind(**parts)


def _tuples(value: Any) -> Any:
    """``value`` with JSON's lists as tuples, also nested ones."""
    return tuple(_tuples(one) for one in value) if isinstance(value, list | tuple) else value
