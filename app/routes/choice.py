"""Chooses the meta-model of a new episode, and says why."""

from app.http.problems import INVALID_REQUEST, UNAVAILABLE_NOW, Problem
from app.store.errors import UnknownModel
from app.store.models import Models
from app.store.records import ModelRecord
from lamanas_core.image_kinds import Judgement
from lamanas_core.image_spec import KINDS, ImageKind

AUTO = "auto"


async def candidates(models: Models, asked: str) -> dict[ImageKind, ModelRecord]:
    """The models among which the images decide, at least one: both active ones for "auto", one for a kind or a version.

    Raises Problem.
    """
    if asked == AUTO or asked in KINDS:
        return await _active(models, asked)
    try:
        model = await models.get(asked)
    except UnknownModel:
        raise missing(asked) from None
    return {model.kind: model}


def missing(asked: str) -> Problem:
    """The problem of a request whose model there is not, or no longer when its episode is stored."""
    if asked == AUTO or asked in KINDS:
        text = "the active meta-model was replaced and removed meanwhile"
        return Problem(UNAVAILABLE_NOW, text, headers={"Retry-After": "1"})
    text = f"model: {asked[:100]!r} is neither {AUTO}, drawings or photos nor a version that GET /models lists"
    return Problem(INVALID_REQUEST, text, field="model")


async def _active(models: Models, asked: str) -> dict[ImageKind, ModelRecord]:
    """The active model of each kind, or of the kind ``asked`` for. Raises Problem."""
    active = await models.active()
    if active and asked != AUTO and asked not in active:
        raise Problem(INVALID_REQUEST, f"model: there is no model for {asked}", field="model")
    wanted = {kind: model for kind, model in active.items() if asked in (AUTO, kind)}
    found = {kind: model for kind, model in wanted.items() if model is not None}
    if not wanted or len(found) < len(wanted):
        text = "the active meta-model is not stored: an adapt worker registers those that are shipped within seconds; "
        text += "`lamanas models` adds or activates another"
        raise Problem(UNAVAILABLE_NOW, text, headers={"Retry-After": "5"})
    return found


def reason(asked: str, found: dict[ImageKind, ModelRecord], judgement: Judgement) -> str:
    """Why the model was chosen among ``found``, in words."""
    if asked != AUTO:
        return f"the request asks for {asked}"
    if len(found) == 1:
        return f"there is only a model for {next(iter(found))}"
    return judgement.reason


async def warning(models: Models, model: ModelRecord, judgement: Judgement) -> str | None:
    """What a client should know before relying on predictions: that a model for drawings does not suit photos."""
    domain = model.card.get("domain")
    if model.kind == judgement.kind or model.kind == "photos" or not isinstance(domain, dict):
        return None
    advice = (
        "Create the episode with `model: photos`."
        if "photos" in await models.active_versions()
        else "Send drawings, characters or symbols: dark strokes on a plain light ground, or the reverse."
    )
    return (
        f"These look like photos: {judgement.reason}. The model was trained on drawings ({domain['name']}), and tells "
        f"photos apart hardly better than by chance. {advice}"
    )
