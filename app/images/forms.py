"""Parses images sent as JSON or multipart forms, with labels or without, within the limits of the settings."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.http.problems import (
    INVALID_BASE64,
    INVALID_REQUEST,
    LABELS_MISMATCH,
    MALFORMED_BODY,
    UNKNOWN_FIELD,
    UNSUPPORTED_MEDIA_TYPE,
    Problem,
    invalid,
)
from app.images import archive, base64_text
from app.images.files import (
    ImageFile,
    LabelledFile,
    SentFiles,
    SupportSet,
    check_counts,
    check_labels,
    check_number,
    label_notes,
    normal_label,
)
from app.schemas.requests import EpisodeBody, EpisodeOptions, PredictBody, SupportImage
from app.settings import Settings

# Characters of base64 that take 0.5 ms, longer than passing them to a thread.
LONG = 2**16
Body = TypeVar("Body", bound=BaseModel)
Result = TypeVar("Result")


@dataclass
class Part:
    """One part: the name of its form field, its file name if it is a file, and its bytes."""

    name: str = ""
    filename: str | None = None
    data: bytearray = field(default_factory=bytearray)

    def text(self) -> str:
        """The bytes as text. Raises Problem if they are not UTF-8."""
        try:
            return self.data.decode()
        except UnicodeDecodeError:
            raise Problem(INVALID_REQUEST, f"{self.name}: not UTF-8 text", field=self.name) from None


# ---------------------------------------------------------------------- reading a request


async def read_json(request: Request, model: type[Body]) -> Body:
    """The body as ``model``. Raises Problem."""
    require(request, "application/json")
    body = bytearray()
    async for chunk in request.stream():  # not ``request.body()``, which keeps it as long as the request
        body += chunk
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False, include_context=False)) from None


async def read_support(request: Request, settings: Settings) -> SupportSet:
    """The support set in any of its three forms, checked but not decoded. Raises Problem."""
    if require(request, "application/json", "multipart/form-data") == "application/json":
        support = await _support_of_json(request, settings)
    else:
        support = await _support_of_form(request, settings)
    check_number(len(support.sent.files), "support", settings)
    check_labels(support.sent.labelled)
    check_counts(support.shots, settings, len(support.sent.unlabelled), support.sent.notes)
    return support


async def read_form(request: Request, settings: Settings, *, many: set[str], one: set[str]) -> dict[str, list[Part]]:
    """The parts of a form by field; a field in ``one`` may occur only once. Raises Problem."""
    most = 2 * settings.max_images + 100
    parts = await read_parts(request.headers["content-type"], request.stream(), max_parts=most)
    return _by_field(parts, many=many, one=one)


def form_options(fields: dict[str, list[Part]], model: type[Body]) -> Body:
    """The form's fields that belong to ``model``. Raises Problem."""
    texts = {name: fields[name][0].text() for name in set(model.model_fields) & set(fields)}
    try:
        return model.model_validate(texts, strict=False)  # accepts numbers as text
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False, include_context=False)) from None


async def form_files(fields: dict[str, list[Part]], settings: Settings) -> SentFiles:
    """A form's files: ``images`` with ``labels`` or an ``archive``, and ``unlabelled`` ones. Raises Problem."""
    unlabelled = _files(fields.get("unlabelled", []), "unlabelled")
    if "archive" not in fields:
        return _pairs(fields.get("images", []), fields.get("labels", []), unlabelled, settings)
    if "images" in fields or "labels" in fields:
        raise Problem(INVALID_REQUEST, "send either an archive or images with labels, not both", field="archive")
    # In a thread, since inflating would block the event loop.
    return await asyncio.to_thread(_of_archive, fields["archive"][0].data, unlabelled, settings)


async def json_files(
    support: Sequence[SupportImage], field: str, unlabelled: Sequence[str], settings: Settings
) -> SentFiles:
    """The files of two JSON lists, that of this ``field`` and ``unlabelled``. Raises Problem."""
    check_number(len(support), field, settings)

    def files() -> SentFiles:
        labelled = (
            LabelledFile(normal_label(item.label), _of_base64(item.image, f"{field}[{number}].image"))
            for number, item in enumerate(support)
        )
        without = of_base64(unlabelled, "unlabelled", settings)
        return SentFiles(tuple(labelled), tuple(without), label_notes(item.label for item in support))

    return await _in_thread_if_long((*(item.image for item in support), *unlabelled), files)


async def read_queries(request: Request, settings: Settings) -> tuple[str, list[ImageFile]]:
    """The episode and the images of ``POST /predict``. Raises Problem."""
    if require(request, "application/json", "multipart/form-data") == "application/json":
        body = await read_json(request, PredictBody)
        episode_id = body.episode_id
        files = await _in_thread_if_long(body.images, lambda: of_base64(body.images, "images", settings))
    else:
        parts = await read_parts(request.headers["content-type"], request.stream(), max_parts=settings.max_images + 100)
        fields = _by_field(parts, many={"images"}, one={"episode_id"})
        if "episode_id" not in fields:
            raise Problem(INVALID_REQUEST, "episode_id: Field required", field="episode_id")
        episode_id, files = fields["episode_id"][0].text(), _files(fields.get("images", []), "images")
    if not files:
        raise Problem(INVALID_REQUEST, "images: at least one is needed", field="images")
    check_number(len(files), "images", settings)
    return episode_id, files


def of_base64(images: Sequence[str], field: str, settings: Settings) -> list[ImageFile]:
    """Files of base64 as ``base64_text`` reads it. Raises Problem."""
    check_number(len(images), field, settings)
    return [_of_base64(text, f"{field}[{number}]") for number, text in enumerate(images)]


# ---------------------------------------------------------------------- the three forms


async def _support_of_json(request: Request, settings: Settings) -> SupportSet:
    body = await read_json(request, EpisodeBody)
    chosen = EpisodeOptions(steps=body.steps, seed=body.seed, name=body.name, model=body.model)
    return SupportSet(await json_files(body.support, "support", body.unlabelled, settings), chosen)


async def _support_of_form(request: Request, settings: Settings) -> SupportSet:
    options = set(EpisodeOptions.model_fields)
    fields = await read_form(request, settings, many={"images", "labels", "unlabelled"}, one={"archive", *options})
    chosen = form_options(fields, EpisodeOptions)
    return SupportSet(await form_files(fields, settings), chosen)


def _of_archive(data: bytearray, unlabelled: list[ImageFile], settings: Settings) -> SentFiles:
    found = archive.read(data, max_images=settings.max_images, max_bytes=settings.max_request_bytes)
    return replace(found, unlabelled=(*found.unlabelled, *unlabelled))


def _pairs(images: list[Part], labels: list[Part], unlabelled: list[ImageFile], settings: Settings) -> SentFiles:
    check_number(len(images), "images", settings)
    if len(images) != len(labels):
        text = f"{len(images)} images and {len(labels)} labels: there must be one label for each image"
        raise Problem(LABELS_MISMATCH, text, field="labels")
    texts = [label.text() for label in labels]
    labelled = (
        LabelledFile(normal_label(text), file) for text, file in zip(texts, _files(images, "images"), strict=True)
    )
    return SentFiles(tuple(labelled), tuple(unlabelled), label_notes(texts))


def _files(parts: list[Part], field: str) -> list[ImageFile]:
    return [ImageFile(part.data, _where(f"{field}[{number}]", part)) for number, part in enumerate(parts)]


def _where(place: str, part: Part) -> str:
    return f"{place} ({part.filename[: archive.MAX_PATH]})" if part.filename else place


def _by_field(parts: list[Part], *, many: set[str], one: set[str]) -> dict[str, list[Part]]:
    fields: dict[str, list[Part]] = {}
    for part in parts:
        if part.name not in many | one:
            text = f"{part.name[:100]!r}: unknown field; the fields are {', '.join(sorted(many | one))}"
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
    try:
        return ImageFile(base64_text.decode(text), where)
    except ValueError:
        raise Problem(INVALID_BASE64, f"{where}: not base64", image=where) from None


async def _in_thread_if_long(texts: Iterable[str], work: Callable[[], Result]) -> Result:
    """The result of ``work`` on these texts, which does not block the event loop for long."""
    if sum(map(len, texts)) <= LONG:
        return work()
    return await asyncio.to_thread(work)


# ---------------------------------------------------------------------- multipart/form-data


class _Reader:
    """The callbacks of the parser."""

    def __init__(self, max_parts: int) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._max_parts = max_parts
        self._header = b""
        self._value = b""
        self._disposition = b""

    def on_part_begin(self) -> None:
        if len(self.parts) >= self._max_parts:
            raise Problem(INVALID_REQUEST, f"more than {self._max_parts} parts")
        self.parts.append(Part())
        self._disposition = b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise Problem(MALFORMED_BODY, f"part {len(self.parts)} has no name")
        part = self.parts[-1]
        part.name = options[b"name"].decode(errors="replace")
        if b"filename" in options:
            part.filename = options[b"filename"].decode(errors="replace")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += data[start:end]

    def on_end(self) -> None:
        self.ended = True


async def read_parts(content_type: str, body: AsyncIterator[bytes], *, max_parts: int) -> list[Part]:
    """All parts in the order sent. Raises Problem for a body that is not multipart or has too many parts."""
    _, options = parse_options_header(content_type)
    if not options.get(b"boundary"):
        raise Problem(MALFORMED_BODY, "multipart/form-data without a boundary")
    reader = _Reader(max_parts)
    names = ("on_part_begin", "on_part_data", "on_header_field", "on_header_value", "on_header_end")
    callbacks = {name: getattr(reader, name) for name in (*names, "on_headers_finished", "on_end")}
    try:
        parser = MultipartParser(options[b"boundary"], callbacks)  # type: ignore[arg-type]
        async for chunk in body:
            parser.write(chunk)
    except FormParserError as error:
        raise Problem(MALFORMED_BODY, f"not multipart/form-data: {error}") from None
    if not reader.ended:
        raise Problem(MALFORMED_BODY, "the multipart body ends before its last boundary")
    return reader.parts
