"""What the service answers with. Immutable; fields that a newer service adds are ignored."""

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

Kind = Literal["drawings", "photos"]


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Session(Answer):
    """Whose token this is, and what it may do."""

    name: str
    scopes: tuple[str, ...]


class Progress(Answer):
    """The progress of an adaptation. ``loss``: the learned loss of each step so far. ``ahead``: while the episode
    waits, the number of waiting episodes that arrived before it; tenants take turns, so that it may come sooner or
    later."""

    step: int
    steps: int
    loss: tuple[float, ...]
    ahead: int | None = None


class Operation(Answer):
    name: str
    weight: float


class Edge(Answer):
    """``source``: ``input0``, ``input1`` or ``node<i>``."""

    source: str
    weight: float
    operations: tuple[Operation, ...]


class Node(Answer):
    inputs: tuple[Edge, ...]


class Genotype(Answer):
    """The adapted architecture: the nodes of its two kinds of cells."""

    normal: tuple[Node, ...]
    reduction: tuple[Node, ...]


class Parameters(Answer):
    kept: int
    total: int


class Suspect(Answer):
    """A support image, by its index, whose label may be wrong: ``likelier`` is ``times`` times as likely."""

    image: int
    label: str
    likelier: str
    times: float


class Episode(Answer):
    """A task and its classifier, once ``state`` is ``ready``; ``parent``: the episode that it is a correction of.

    ``shots``: the number of images of each class; ``unlabelled``: that of images without a label, of which the fraction
    ``unlabelled_belonging`` seems to belong to the classes. ``model_kind``, ``model_reason``: the kind of the
    meta-model, and why it was chosen.
    """

    id: str
    name: str | None
    parent: str | None
    state: Literal["queued", "adapting", "ready", "failed"]
    classes: tuple[str, ...]
    shots: dict[str, int]
    unlabelled: int = 0
    steps: int
    seed: int
    progress: Progress
    model_version: str
    model_kind: Kind | None = None
    model_reason: str | None = None
    warnings: tuple[str, ...]
    genotype: Genotype | None
    parameters: Parameters | None
    support_accuracy: float | None
    leave_one_out_accuracy: float | None
    unlabelled_belonging: float | None = None
    suspects: tuple[Suspect, ...] = ()
    adapt_seconds: float | None
    created_at: AwareDatetime
    expires_at: AwareDatetime
    error: str | None


class EpisodePage(Answer):
    episodes: tuple[Episode, ...]
    next_cursor: str | None


class Prediction(Answer):
    """The most probable label of one image, the probability of each, and how likely it is none of them.

    ``known`` is false if the image probably belongs to none of the classes.
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    novelty: float | None = None
    known: bool | None = None


class Predictions(Answer):
    predictions: tuple[Prediction, ...]


class Training(Answer):
    """A meta-training run; ``losses`` holds the most recent ones, ``warnings`` tells how the data set was read. The
    first ``warm_up_epochs`` of its ``epochs`` are warm-up; it has trained for ``seconds``."""

    id: str
    state: Literal["queued", "running", "finished", "failed", "cancelled"]
    dataset: str
    options: dict[str, Any]
    epoch: int
    epochs: int
    warm_up_epochs: int = 0
    loss: float | None
    losses: tuple[float, ...]
    warnings: tuple[str, ...] = ()
    validation_accuracy: float | None
    seconds: float | None = None
    eta_seconds: float | None
    model_version: str | None
    created_at: AwareDatetime
    cancelling: bool
    error: str | None


class TrainingPage(Answer):
    trainings: tuple[Training, ...]
    next_cursor: str | None


class Model(Answer):
    """A version of the meta-model; new episodes are adapted from the ``active`` one of the kind of their images."""

    version: str
    kind: Kind = "drawings"
    active: bool
    created_at: AwareDatetime
    card: dict[str, Any]


class Models(Answer):
    models: tuple[Model, ...]
