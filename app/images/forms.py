"""Turns the forms that images may be sent in into one list of labelled files, within the limits of the settings."""

import asyncio
import base64
import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from app.http.problems import (
    EMPTY_LABEL,
    INVALID_BASE64,
    INVALID_REQUEST,
    LABELS_MISMATCH,
    TOO_FEW_CLASSES,
    TOO_MANY_CLASSES,
    TOO_MANY_IMAGES,
    TOO_MANY_SHOTS,
    UNKNOWN_FIELD,
    UNSUPPORTED_MEDIA_TYPE,
    Problem,
    invalid,
)
from app.images import archive, multipart
from app.images.multipart import Part
from app.images.pool import ImageFile
from app.schemas import EpisodeBody, EpisodeOptions, PredictBody, SupportImage
from app.settings import Settings

MAX_LABEL = 200
BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True)
class LabelledFile:
    label: str
    file: ImageFile


@dataclass(frozen=True)
class SupportSet:
    """The support set of one request: its files in the order sent, and what else was asked."""

    files: tuple[LabelledFile, ...]
    options: EpisodeOptions

    @property
    def shots(self) -> dict[str, int]:
        """How many images each class has; classes in the order in which they were first sent."""
        return Counter(file.label for file in self.files)

    @property
    def labels(self) -> list[int]:
        """The number of each file's class."""
        number = {label: at for at, label in enumerate(self.shots)}
        return [number[file.label] for file in self.files]

    def digest(self) -> str:
        """The same for the same request, however it was packed."""
        return digest(self.options.model_dump(), self.files)


def digest(asked: dict[str, Any], files: Iterable[LabelledFile]) -> str:
    """A name for what was asked, with these files."""
    total = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
    for file in files:
        label = file.label.encode()
        total.update(len(label).to_bytes(8, "big") + label + len(file.file.data).to_bytes(8, "big"))
        total.update(file.file.data)
    return total.hexdigest()


# ---------------------------------------------------------------------- reading a request


async def read_json(request: Request, model: type[Body]) -> Body:
    """The body as ``model``. Raises Problem."""
    require(request, "application/json")
    body = await request.body()
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False, include_context=False)) from None


async def read_support(request: Request, settings: Settings) -> SupportSet:
    """The support set in any of its three forms, counted and checked, not decoded. Raises Problem."""
    if require(request, "application/json", "multipart/form-data") == "application/json":
        support = await _support_of_json(request, settings)
    else:
        support = await _support_of_form(request, settings)
    check_labels(support.files)
    check_counts(support.shots, settings)
    return support


async def read_form(request: Request, settings: Settings, *, many: set[str], one: set[str]) -> dict[str, list[Part]]:
    """The parts of a form by their field; those in ``one`` are there once at most. Raises Problem."""
    most = 2 * settings.max_images + 100
    parts = await multipart.read(request.headers["content-type"], request.stream(), max_parts=most)
    return _by_field(parts, many=many, one=one)


def form_options(fields: dict[str, list[Part]], model: type[Body]) -> Body:
    """The fields of ``model`` that a form has. Raises Problem."""
    texts = {name: fields[name][0].text() for name in set(model.model_fields) & set(fields)}
    try:
        return model.model_validate(texts, strict=False)  # the text of a number is taken for it
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False, include_context=False)) from None


async def form_files(fields: dict[str, list[Part]], settings: Settings) -> tuple[LabelledFile, ...]:
    """A form's labelled files, sent as ``images`` with ``labels`` or as an ``archive``. Raises Problem."""
    if "archive" not in fields:
        return tuple(_pairs(fields.get("images", []), fields.get("labels", []), settings))
    if "images" in fields or "labels" in fields:
        raise Problem(INVALID_REQUEST, "send either an archive or images with labels, not both", field="archive")
    # Inflating takes its time and is beside the event loop, as decoding is.
    return await asyncio.to_thread(_of_archive, fields["archive"][0].data, settings)


def json_files(support: Sequence[SupportImage], field: str, settings: Settings) -> tuple[LabelledFile, ...]:
    """The labelled files of a JSON list. Raises Problem."""
    check_number(len(support), field, settings)
    return tuple(
        LabelledFile(item.label, _of_base64(item.image, f"{field}[{number}].image"))
        for number, item in enumerate(support)
    )


async def read_queries(request: Request, settings: Settings) -> tuple[str, list[ImageFile]]:
    """The episode and the images of ``POST /predict``. Raises Problem."""
    if require(request, "application/json", "multipart/form-data") == "application/json":
        body = await read_json(request, PredictBody)
        episode_id, files = body.episode_id, of_base64(body.images, "images", settings)
    else:
        parts = await multipart.read(
            request.headers["content-type"], request.stream(), max_parts=settings.max_images + 100
        )
        fields = _by_field(parts, many={"images"}, one={"episode_id"})
        if "episode_id" not in fields:
            raise Problem(INVALID_REQUEST, "episode_id: Field required", field="episode_id")
        episode_id, files = fields["episode_id"][0].text(), _files(fields.get("images", []))
    if not files:
        raise Problem(INVALID_REQUEST, "images: at least one is needed", field="images")
    check_number(len(files), "images", settings)
    return episode_id, files


def of_base64(images: Sequence[str], field: str, settings: Settings) -> list[ImageFile]:
    """Files of base64 or base64url text, padded or not. Raises Problem."""
    check_number(len(images), field, settings)
    return [_of_base64(text, f"{field}[{number}]") for number, text in enumerate(images)]


def check_number(images: int, field: str, settings: Settings) -> None:
    """Raises Problem for more images than a request may have."""
    if images > settings.max_images:
        text = f"{field}: {images} images, a request may have {settings.max_images} at most"
        raise Problem(TOO_MANY_IMAGES, text, field=field)


# ---------------------------------------------------------------------- the three forms


async def _support_of_json(request: Request, settings: Settings) -> SupportSet:
    body = await read_json(request, EpisodeBody)
    files = json_files(body.support, "support", settings)
    return SupportSet(files, EpisodeOptions(steps=body.steps, seed=body.seed, name=body.name))


async def _support_of_form(request: Request, settings: Settings) -> SupportSet:
    options = set(EpisodeOptions.model_fields)
    fields = await read_form(request, settings, many={"images", "labels"}, one={"archive", *options})
    chosen = form_options(fields, EpisodeOptions)
    return SupportSet(await form_files(fields, settings), chosen)


def _of_archive(data: bytearray, settings: Settings) -> tuple[LabelledFile, ...]:
    found = archive.read(data, max_images=settings.max_images, max_bytes=settings.max_request_bytes)
    return tuple(LabelledFile(label, ImageFile(content, f"archive: {path}")) for label, path, content in found)


def _pairs(images: list[Part], labels: list[Part], settings: Settings) -> Iterable[LabelledFile]:
    check_number(len(images), "images", settings)
    if len(images) != len(labels):
        text = f"{len(images)} images and {len(labels)} labels: there must be one label for each image"
        raise Problem(LABELS_MISMATCH, text, field="labels")
    for label, file in zip(labels, _files(images), strict=True):
        yield LabelledFile(label.text(), file)


def _files(images: list[Part]) -> list[ImageFile]:
    return [ImageFile(part.data, _where(number, part)) for number, part in enumerate(images)]


def _where(number: int, part: Part) -> str:
    return f"images[{number}] ({part.filename[:100]})" if part.filename else f"images[{number}]"


def _by_field(parts: list[Part], *, many: set[str], one: set[str]) -> dict[str, list[Part]]:
    fields: dict[str, list[Part]] = {}
    for part in parts:
        if part.name not in many | one:
            text = f"{part.name[:100]!r}: not a field here; there are {', '.join(sorted(many | one))}"
            raise Problem(UNKNOWN_FIELD, text, field=part.name[:100])
        fields.setdefault(part.name, []).append(part)
    for name in one & set(fields):
        if len(fields[name]) > 1:
            raise Problem(INVALID_REQUEST, f"{name}: given {len(fields[name])} times", field=name)
    return fields


# ---------------------------------------------------------------------- checks


def require(request: Request, *media_types: str) -> str:
    """The content type that was sent, one of these. Raises Problem."""
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sent not in media_types:
        text = f"the body is {sent or 'of no content type'}; it must be {' or '.join(media_types)}"
        raise Problem(UNSUPPORTED_MEDIA_TYPE, text, headers={"Accept": ", ".join(media_types)})
    return sent


def _of_base64(text: str, where: str) -> ImageFile:
    digits = text.rstrip("=")
    if not BASE64.fullmatch(text) or len(digits) % 4 == 1:
        raise Problem(INVALID_BASE64, f"{where}: not base64", image=where)
    padded = digits + "=" * (-len(digits) % 4)
    return ImageFile(base64.b64decode(padded.encode(), altchars=b"-_"), where)  # '+' and '/' stay what they are


def check_labels(files: Sequence[LabelledFile]) -> None:
    """Raises Problem for a label that cannot be one; each is looked at once."""
    first: dict[str, str] = {}
    for file in files:
        first.setdefault(file.label, file.file.where)
    for label, where in first.items():
        check_label(label, where)


def check_label(label: str, where: str) -> None:
    """Raises Problem for a label that cannot be one; ``where`` says whose it is."""
    if not label.strip():
        raise Problem(EMPTY_LABEL, f"the label of {where} is empty", field="label", image=where)
    if len(label) > MAX_LABEL:
        text = f"the label of {where} has {len(label)} characters, at most {MAX_LABEL} are taken"
        raise Problem(INVALID_REQUEST, text, field="label", image=where)
    if any(unicodedata.category(character) == "Cc" for character in label):
        text = f"the label of {where} holds control characters"
        raise Problem(INVALID_REQUEST, text, field="label", image=where)


def check_counts(shots: Mapping[str, int], settings: Settings) -> None:
    """Raises Problem for more or fewer classes, or images of one class, than there may be."""
    if len(shots) < 2:
        text = f"{len(shots)} classes in {sum(shots.values())} images: at least 2 classes are needed"
        raise Problem(TOO_FEW_CLASSES, text, field="support")
    if len(shots) > settings.max_classes:
        text = f"{len(shots)} classes, at most {settings.max_classes} are taken"
        raise Problem(TOO_MANY_CLASSES, text, field="support")
    label, most = max(shots.items(), key=lambda item: item[1])
    if most > settings.max_shots:
        text = f"class {label!r} has {most} images, at most {settings.max_shots} are taken"
        raise Problem(TOO_MANY_SHOTS, text, field="support")
