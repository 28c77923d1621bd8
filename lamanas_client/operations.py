"""The operations of the service, as generators of calls. Both clients have them as methods."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypedDict, TypeVar, Unpack
from urllib.parse import quote

from lamanas_client.calls import IDEMPOTENCY_KEY, Call, Calls, parse
from lamanas_client.images import Image, Sent, Support, file, several, support_parts, unlabelled_parts
from lamanas_client.types import (
    Episode,
    EpisodePage,
    Model,
    Models,
    Prediction,
    Predictions,
    Session,
    Training,
    TrainingPage,
)

# A request stays far below what a service accepts (by default 1,000 images and 96 MB), unless a single image is larger.
BATCH_IMAGES = 200
BATCH_BYTES = 4 * 2**20
# Seconds that the service may wait for an episode to become ready: the most that it allows.
WAIT_S = 60
LARGEST_PAGE = 100

Page = TypeVar("Page", EpisodePage, TrainingPage)
Item = TypeVar("Item")


class TrainingOptions(TypedDict, total=False):
    """The options of a training run; the service has a default for each."""

    preset: Literal[
        "serving", "rgb84", "photos", "tiny", "paper", "paper_small", "paper_resnet18", "paper_resnet18_small"
    ]
    meta: Literal["reptile", "maml"]
    loss: Literal["cross_entropy", "fnn", "lstm"]
    residual: bool
    proxy: Literal["mse", "inner_product", "cosine"]
    meta_epochs: int
    ways: int
    shots: int
    seed: int


def session() -> Calls[Session]:
    """The name and the scopes of the client's token."""
    return parse(Session, (yield Call("GET", "/session")))


def create_episode(
    support: Support,
    *,
    unlabelled: Iterable[Image] = (),
    steps: int | None = None,
    seed: int = 0,
    name: str | None = None,
    model: str = "auto",
) -> Calls[Episode]:
    """Send a support set: a mapping of classes to images, a folder of class folders, or a zip of one.

    It is stored when this returns; a worker adapts it afterwards. ``unlabelled``: images without a label, from which
    the classifier learns as well, besides those in a folder ``_unlabelled`` of the folder or zip. The episode's
    warnings begin with how the folder or zip was read. ``model``: the meta-model to adapt, "drawings" or "photos" for
    the active one of that kind, a version, or "auto" for the kind that the images seem to be.
    """
    support_set = support_parts(support, unlabelled)
    options = {"steps": steps, "name": name}
    fields = {"seed": str(seed), "model": model}
    fields |= {field: str(value) for field, value in options.items() if value is not None}
    sent = {"data": fields | {"labels": support_set.labels}, "files": support_set.files, "headers": _idempotency_key()}
    return _noted(parse(Episode, (yield Call("POST", "/episodes", sent))), support_set.notes)


def correct_episode(
    id: str,
    *,
    remove: Iterable[int] = (),
    relabel: Mapping[int, str] | None = None,
    add: Support | None = None,
    unlabelled: Iterable[Image] = (),
) -> Calls[Episode]:
    """Create an episode from this one's images, some removed or relabelled (by index from 0), and others added, some of
    them ``unlabelled``. An image without a label gets one by being relabelled."""
    renamed = relabel or {}
    sent: dict[str, Any] = {"headers": _idempotency_key()}
    added = Sent(unlabelled_parts(unlabelled), []) if add is None else support_parts(add, unlabelled)
    if added.files:
        fields = {"remove": [str(image) for image in remove], "labels": added.labels}
        sent["data"] = fields | {"relabel": [f"{image}={label}" for image, label in renamed.items()]}
        sent["files"] = added.files
    else:
        named = [{"image": image, "label": label} for image, label in renamed.items()]
        sent["json"] = {"remove": list(remove), "relabel": named}
    return _noted(parse(Episode, (yield Call("POST", f"{_path('episodes', id)}/support", sent))), added.notes)


def get_episode(id: str) -> Calls[Episode]:
    """An episode, its state and its results."""
    return parse(Episode, (yield Call("GET", _path("episodes", id))))


def list_episodes(limit: int = 20) -> Calls[list[Episode]]:
    """The most recent episodes that this token has access to, newest first."""
    return (yield from _newest("/episodes", limit, EpisodePage, lambda page: page.episodes))


def delete_episode(id: str) -> Calls[None]:
    """Delete an episode and its data; no error if it is already deleted."""
    yield Call("DELETE", _path("episodes", id), expected=frozenset({410}))


def predict(episode_id: str, images: Iterable[Image]) -> Calls[list[Prediction]]:
    """Classify any number of images, in order. Waits up to a minute for an episode that is not ready."""
    found: list[Prediction] = []
    for files in _batches(images):
        parts = [("images", part) for part in files]
        sent = {"params": {"wait": WAIT_S}, "data": {"episode_id": episode_id}, "files": parts}
        found += parse(Predictions, (yield Call("POST", "/predict", sent, safe=True))).predictions
    return found


def download(episode_id: str) -> Calls[bytes]:
    """The adapted classifier as an ONNX file."""
    response = yield Call("GET", f"{_path('episodes', episode_id)}/model.onnx")
    return response.content


def list_models() -> Calls[list[Model]]:
    """All versions of the meta-model, newest first."""
    return list(parse(Models, (yield Call("GET", "/models"))).models)


def activate_model(version: str) -> Calls[Model]:
    """Adapt new episodes from this version; existing episodes keep theirs."""
    return parse(Model, (yield Call("POST", f"{_path('models', version)}/activate")))


def start_training(dataset: str, **options: Unpack[TrainingOptions]) -> Calls[Training]:
    """Start a meta-training run on a data set in the service's data directory."""
    sent: dict[str, Any] = {"json": {"dataset": dataset} | options, "headers": _idempotency_key()}
    return parse(Training, (yield Call("POST", "/train", sent)))


def get_training(id: str) -> Calls[Training]:
    """A training run and its progress."""
    return parse(Training, (yield Call("GET", _path("train", id))))


def list_trainings(limit: int = 20) -> Calls[list[Training]]:
    """The most recent training runs, newest first."""
    return (yield from _newest("/train", limit, TrainingPage, lambda page: page.trainings))


def cancel_training(id: str) -> Calls[Training]:
    """Stop a run and keep its last checkpoint."""
    return parse(Training, (yield Call("POST", f"{_path('train', id)}/cancel")))


def resume_training(id: str) -> Calls[Training]:
    """Resume a failed or cancelled run from its last checkpoint."""
    return parse(Training, (yield Call("POST", f"{_path('train', id)}/resume")))


def _noted(episode: Episode, notes: tuple[str, ...]) -> Episode:
    """The episode, with what this side has to tell of its images before what the service tells."""
    return episode.model_copy(update={"warnings": (*notes, *episode.warnings)})


def _idempotency_key() -> dict[str, str]:
    """A header that all attempts at one submission share, so that the service carries it out once."""
    return {IDEMPOTENCY_KEY: str(uuid.uuid4())}


def _path(kind: str, id: str) -> str:
    return f"/{kind}/{quote(id, safe='')}"


def _newest(path: str, limit: int, model: type[Page], items: Callable[[Page], Iterable[Item]]) -> Calls[list[Item]]:
    """The first ``limit`` items of the pages at this path."""
    found: list[Item] = []
    query: dict[str, Any] = {}
    while len(found) < limit:
        query["limit"] = min(limit - len(found), LARGEST_PAGE)
        page = parse(model, (yield Call("GET", path, {"params": dict(query)})))
        found += items(page)
        if page.next_cursor is None:
            break
        query["cursor"] = page.next_cursor
    return found


def _batches(images: Iterable[Image]) -> Iterator[list[tuple[str, bytes]]]:
    batch: list[tuple[str, bytes]] = []
    size = 0
    for image in several("images", images):
        name, content = file(image)
        if batch and (len(batch) >= BATCH_IMAGES or size + len(content) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((name, content))
        size += len(content)
    if batch:
        yield batch
