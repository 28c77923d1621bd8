"""Every number of meta-training that is not a choice of ``TrainingConfig``. It is part of every model card."""

from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any


@dataclass(frozen=True)
class Schedule:
    """Learning rates as a share of their peaks over a stage, and how often what is done. Shares are of a stage.

    They rise over ``rise`` from ``first_rise`` of it on, then fall along half a cosine to ``floor``.
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
    phi_kept: int = 4  # times in the meta-training, and once before it


@dataclass(frozen=True)
class WarmUp:
    """AdamW on θ, α and the head's scale, and the price on operations that presses α.

    ``annealed_by``: the share of the stage in which α's temperature falls from 1 to ``end_temperature``, and the price
    rises. The size that α is pressed down to, as a share of the supernet's: ``target_size``; how hard: ``pressure``. An
    operation of the share ``faint`` counts about a quarter, and costs ``pass_cost`` numbers beside its parameters: a
    pass over the images is not free.
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
    average_decay: float = 0.998


@dataclass(frozen=True)
class Maml:
    """Adam on all that is meta-learned, by Algorithm 1."""

    theta_rate: float = 1e-4
    alpha_rate: float = 1e-3
    phi_rate: float = 1e-2
    log_rates_rate: float = 1e-1
    scale_rate: float = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.99


@dataclass(frozen=True)
class Reptile:
    """Plain steps towards where the tasks went, by Algorithm 2, on the mean over tasks; φ within a task by Adam."""

    theta_rate: float = 1.0
    alpha_rate: float = 0.6
    phi_rate: float = 1.0
    phi_rate_within_task: float = 0.01


@dataclass(frozen=True)
class Clipping:
    """The largest norm of the outer gradient of each part; Reptile's differences are not clipped."""

    theta: float = 5.0
    phi: float = 1.0
    log_rates: float = 1.0


@dataclass(frozen=True)
class Tasks:
    """Which tasks are drawn. Probabilities are of tasks.

    ``warm_up_images``: of a warm-up task, where a map behind the backbone has ``positions`` at most; ``pairs``: support
    and query images of each class there. A task of the adaptation has ``fewest_ways`` to ``most_ways`` classes, and
    ``adaptation_share`` of the warm-up's images: the graph of all steps stays in memory. ``unsteady`` is of those that
    are ``restyled``: their images of one class differ more than the data set's.
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


@dataclass(frozen=True)
class Affine:
    """The largest random changes of an image: degrees; shares of its size; shear; shift in half sides."""

    degrees: float = 12.0
    scale: float = 0.15
    shear: float = 0.15
    shift: float = 0.16


@dataclass(frozen=True)
class Styles:
    """Probabilities and ranges of what a task's style is made of; ``stretch`` and ``slant`` are of the whole task."""

    thicker_pen: float = 0.5
    coarse: float = 0.5
    coarsest: float = 7.0  # pixels a side for every 28
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


@dataclass(frozen=True)
class CalibrationEpisodes:
    """The episodes of the validation split that probabilities and novelty are fitted on."""

    episodes: int = 40
    ways: int = 20
    shots: int = 5
    queries: int = 5


@dataclass(frozen=True)
class Recipe:
    """All of it. The defaults are what the shipped model was trained with."""

    schedule: Schedule = field(default_factory=Schedule)
    warm_up: WarmUp = field(default_factory=WarmUp)
    maml: Maml = field(default_factory=Maml)
    reptile: Reptile = field(default_factory=Reptile)
    clipping: Clipping = field(default_factory=Clipping)
    tasks: Tasks = field(default_factory=Tasks)
    affine: Affine = field(default_factory=Affine)
    styles: Styles = field(default_factory=Styles)
    calibration: CalibrationEpisodes = field(default_factory=CalibrationEpisodes)
    # Of the running average of all that is meta-learned, at each outer step after the warm-up.
    meta_average_decay: float = 0.8

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, as a card holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Recipe":
        """The inverse of ``to_json``. Raises TypeError for a name that does not exist or is missing."""
        return _part(cls(), document)  # type: ignore[no-any-return]


def _part(default: Any, value: Any) -> Any:
    """``value`` of a JSON document as an instance of the dataclass that ``default`` is one of, or as it is."""
    if not is_dataclass(default):
        return _tuples(value)
    missing = {one.name for one in fields(default)} - value.keys()
    if missing:
        raise TypeError(f"{type(default).__name__} without {', '.join(sorted(missing))}")
    parts = {name: _part(getattr(default, name, None), inner) for name, inner in value.items()}
    kind: Any = type(default)
    return kind(**parts)


def _tuples(value: Any) -> Any:
    """Lists, which is what JSON has, as tuples."""
    return tuple(_tuples(one) for one in value) if isinstance(value, list | tuple) else value
