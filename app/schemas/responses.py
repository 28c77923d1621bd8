"""The JSON of responses."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, cast

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SerializeAsAny, SkipValidation

from app.store.records import EpisodeRecord, EpisodeState, ModelRecord, Scope, TrainingRecord, TrainingState
from lamanas_core.image_spec import ImageKind

Probability = Annotated[float, Field(ge=0, le=1)]


class Progress(BaseModel):
    step: int
    steps: int
    loss: list[float] = Field(description="the learned loss of each step so far")
    ahead: int | None = Field(
        description="while the episode waits for a worker: how many that arrived before it wait too; since tenants "
        "take turns, it may come sooner or later; null otherwise, and in lists"
    )

    @classmethod
    def of(cls, record: EpisodeRecord) -> "Progress":
        return cls(step=record.step, steps=record.steps, loss=list(record.losses), ahead=record.ahead)


class Operation(BaseModel):
    name: str
    weight: float


class Edge(BaseModel):
    source: str = Field(description="`input0`, `input1` or `node<i>`")
    weight: float
    operations: list[Operation]


class Node(BaseModel):
    inputs: list[Edge]


class Genotype(BaseModel):
    """The adapted architecture: the nodes of each of the two cells, with the inputs and operations that were kept."""

    normal: list[Node]
    reduction: list[Node]


class Parameters(BaseModel):
    kept: int
    total: int


class Suspect(BaseModel):
    """A support image whose label may be wrong, by a comparison with the other images."""

    image: int = Field(ge=0, description="the index of the image, as in GET /episodes/{id}/support")
    label: str = Field(description="the label that was sent")
    likelier: str = Field(description="the label of a class that the image resembles more")
    times: float = Field(ge=1, description="how many times as likely that label is, at most 1,000,000")


class Episode(BaseModel):
    id: str
    name: str | None
    parent: str | None = Field(description="the episode that this one corrects")
    state: EpisodeState
    classes: list[str] = Field(description="in the order in which they were first sent")
    shots: dict[str, int]
    unlabelled: int = Field(description="number of images without a label")
    steps: int
    seed: int
    progress: Progress
    model_version: str
    model_kind: ImageKind | None = Field(description="null for an episode from before there were kinds of models")
    model_reason: str | None = Field(description="why this model was chosen, in words")
    warnings: list[str] = Field(
        description="what to know about the images: how an archive was read, and whether the model suits them"
    )
    # As a worker has stored it: to check and rebuild it would take longer than all the rest.
    genotype: SerializeAsAny[SkipValidation[Genotype]] | None
    parameters: Parameters | None
    support_accuracy: Probability | None
    leave_one_out_accuracy: Probability | None = Field(
        description="an estimate of the accuracy on new images, from images that the adaptation did not see; "
        "null if every class has only one image"
    )
    unlabelled_belonging: Probability | None = Field(
        description="an estimate of the fraction of the images without a label that belongs to the classes, not a "
        "reliable one for photos; below 0.2, they were not used; null without them, and until the episode is ready"
    )
    suspects: list[Suspect] = Field(description="images whose label may be wrong, the most doubtful first")
    adapt_seconds: float | None
    created_at: AwareDatetime
    expires_at: AwareDatetime
    error: str | None

    @classmethod
    def of(cls, record: EpisodeRecord) -> "Episode":
        kept, total = record.parameters_kept, record.parameters_total
        return cls(
            id=record.id,
            name=record.name,
            parent=record.parent,
            state=record.state,
            classes=list(record.classes),
            shots=dict(zip(record.classes, record.shots, strict=True)),
            unlabelled=record.unlabelled,
            steps=record.steps,
            seed=record.seed,
            progress=Progress.of(record),
            model_version=record.model_version,
            model_kind=record.model_kind,
            model_reason=record.model_reason,
            warnings=[*record.notes, *([record.model_warning] if record.model_warning else []), *record.warnings],
            genotype=cast(Genotype | None, record.genotype),
            parameters=None if kept is None or total is None else Parameters(kept=kept, total=total),
            support_accuracy=record.support_accuracy,
            leave_one_out_accuracy=record.leave_one_out_accuracy,
            unlabelled_belonging=record.unlabelled_belonging,
            suspects=[
                Suspect(image=row, label=record.classes[label], likelier=record.classes[likelier], times=times)
                for row, label, likelier, times in record.suspects
            ],
            adapt_seconds=record.adapt_seconds,
            created_at=_time(record.created_at),
            expires_at=_time(record.expires_at),
            error=record.error,
        )


class StoredImage(BaseModel):
    label: str | None = Field(description="null for an image without a label; these follow all others")
    image: str = Field(description="a PNG file in base64: the image as it is stored, preprocessed for the network")


class StoredSupport(BaseModel):
    images: list[StoredImage] = Field(description="in the order of their indices, from 0")


class EpisodePage(BaseModel):
    episodes: list[Episode]
    next_cursor: str | None


class Prediction(BaseModel):
    label: str
    probability: Probability
    probabilities: dict[str, Probability]
    novelty: Probability | None = Field(
        description="probability that the image belongs to none of the classes, if half of all images do not; "
        "null if it is not estimated"
    )
    known: bool | None = Field(
        description="false if the image probably belongs to none of the classes; null if novelty is not estimated"
    )


class Predictions(BaseModel):
    episode_id: str
    model_version: str
    predictions: list[Prediction] = Field(description="in the order of the images")


class Training(BaseModel):
    id: str
    state: TrainingState
    dataset: str
    options: dict[str, Any]
    epoch: int
    epochs: int
    warm_up_epochs: int = Field(
        description="how many of the epochs are warm-up, which comes first; the others are meta-epochs"
    )
    loss: float | None
    losses: list[float] = Field(description="the most recent ones")
    warnings: list[str] = Field(description="how the data set was read, known after the first epoch")
    validation_accuracy: float | None
    seconds: float | None = Field(description="how long it has trained, before it was resumed too")
    eta_seconds: float | None
    model_version: str | None
    created_at: AwareDatetime
    cancelling: bool
    error: str | None

    @classmethod
    def of(cls, record: TrainingRecord) -> "Training":
        return cls(
            id=record.id,
            state=record.state,
            dataset=record.dataset,
            options=record.options,
            epoch=record.epoch,
            epochs=record.epochs,
            warm_up_epochs=record.warm_up_epochs,
            loss=record.loss,
            losses=list(record.losses),
            warnings=list(record.warnings),
            validation_accuracy=record.validation_accuracy,
            seconds=record.seconds,
            eta_seconds=record.eta_seconds,
            model_version=record.model_version,
            created_at=_time(record.created_at),
            cancelling=record.cancelling,
            error=record.error,
        )


class TrainingPage(BaseModel):
    trainings: list[Training]
    next_cursor: str | None


class Model(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    version: str
    kind: ImageKind = Field(description="the kind of images that it is for")
    active: bool = Field(description="whether new episodes with images of its kind use it")
    created_at: AwareDatetime
    card: dict[str, Any]

    @classmethod
    def of(cls, record: ModelRecord) -> "Model":
        return cls(
            version=record.version,
            kind=record.kind,
            active=record.active,
            created_at=_time(record.created_at),
            card=record.card,
        )


class Models(BaseModel):
    models: list[Model]


class Worker(BaseModel):
    name: str
    device: str
    started_at: AwareDatetime


class Queue(BaseModel):
    name: Literal["adapt", "train"]
    waiting: int
    running: int = Field(description="number of jobs that a worker has claimed and not finished")
    workers: list[Worker] = Field(description="workers with a fresh heartbeat")
    starting: int = Field(description="number of workers that are starting")


class Queues(BaseModel):
    queues: list[Queue]


class Limits(BaseModel):
    """What the service accepts at most."""

    images: int = Field(description="images of an episode, with those without a label")
    classes: int = Field(description="classes of an episode")
    shots: int = Field(description="images of a class")
    bytes: int = Field(description="bytes of a request")


class Session(BaseModel):
    """The key that is signed in, and the limits for its requests."""

    name: str
    scopes: list[Scope]
    limits: Limits


class ExampleImage(BaseModel):
    label: str
    image: str = Field(description="a PNG or JPEG file in base64")


class Example(BaseModel):
    """An example task: `support` and `queries` have the same classes and no image in common."""

    title: str
    kind: ImageKind
    support: list[ExampleImage]
    queries: list[ExampleImage]


class Examples(BaseModel):
    examples: list[Example]


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    ready: Literal[True] = True
    checks: dict[str, bool]


class FieldError(BaseModel):
    field: str
    detail: str


class ProblemDetails(BaseModel):
    """RFC 9457. Branch on `type`, which is stable; show `detail` to users."""

    type: str = Field(description="`/problems/<name>`")
    title: str
    status: int
    detail: str
    field: str | None = Field(None, description="the invalid field")
    image: str | None = Field(None, description="the invalid image, identified by its index or file name")
    errors: list[FieldError] | None = Field(None, description="every invalid field")
    state: str | None = Field(None, description="the state of an episode that is not ready")


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
