"""Turns the forms that images may be sent in into one list of labelled files, within the limits of the settings."""

import asyncio
import base64
import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from app.http.problems import (
    INVALID_BASE64,
    INVALID_REQUEST,
    LABELS_MISMATCH,
    UNKNOWN_FIELD,
    UNSUPPORTED_MEDIA_TYPE,
    Problem,
    invalid,
)
from app.images import archive, multipart
from app.images.files import ImageFile, LabelledFile, SupportSet, check_counts, check_labels, check_number
from app.images.multipart import Part
from app.schemas import EpisodeBody, EpisodeOptions, PredictBody, SupportImage
from app.settings import Settings

BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
Body = TypeVar("Body", bound=BaseModel)


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
