"""The image files of a request, with their labels, and the limits on labels and numbers of images."""

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.http.problems import (
    EMPTY_LABEL,
    INVALID_REQUEST,
    TOO_FEW_CLASSES,
    TOO_MANY_CLASSES,
    TOO_MANY_IMAGES,
    TOO_MANY_SHOTS,
    Problem,
)
from app.schemas.requests import EpisodeOptions
from app.settings import Settings
from lamanas_core import layout

MAX_LABEL = 200


@dataclass(frozen=True)
class ImageFile:
    """The bytes of one image file, and its position in the request, as error messages state it."""

    data: bytes | bytearray
    where: str


@dataclass(frozen=True)
class LabelledFile:
    label: str
    file: ImageFile


@dataclass(frozen=True)
class SentFiles:
    """The labelled files of a request, and ``notes``: what is to be told about how they or their labels were read."""

    files: tuple[LabelledFile, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SupportSet:
    """The support set of one request: its files in the order sent, the options, and what is to be told about it."""

    files: tuple[LabelledFile, ...]
    options: EpisodeOptions
    notes: tuple[str, ...] = ()

    @property
    def shots(self) -> dict[str, int]:
        """The number of images of each class; classes in the order in which they were first sent."""
        return Counter(file.label for file in self.files)

    @property
    def labels(self) -> list[int]:
        """The class index of each file."""
        number = {label: at for at, label in enumerate(self.shots)}
        return [number[file.label] for file in self.files]

    def digest(self) -> str:
        """Equal for equal requests, in JSON or as a form."""
        return digest(self.options.model_dump(), self.files)


def digest(asked: dict[str, Any], files: Iterable[LabelledFile]) -> str:
    """The SHA-256 of the options and the labelled files, in hexadecimal."""
    total = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
    for file in files:
        label = file.label.encode()
        total.update(len(label).to_bytes(8, "big") + label + len(file.file.data).to_bytes(8, "big"))
        total.update(file.file.data)
    return total.hexdigest()


def normal_label(text: str) -> str:
    """A label as it is stored: as the name of a folder in an archive would be."""
    return layout.label([text])


def label_notes(labels: Iterable[str]) -> tuple[str, ...]:
    """What is to be told about labels as they were sent: different ones that are one class."""
    joined = layout.joined((label,) for label in labels)
    return tuple(f"labels that look the same are one class: {label}" for label in joined)


def check_number(images: int, field: str, settings: Settings) -> None:
    """Raises Problem if a request has too many images."""
    if images > settings.max_images:
        text = f"{field}: {images} images, a request may have {settings.max_images} at most"
        raise Problem(TOO_MANY_IMAGES, text, field=field)


def check_labels(files: Sequence[LabelledFile]) -> None:
    """Raises Problem for an invalid label; equal labels are checked once."""
    first: dict[str, str] = {}
    for file in files:
        first.setdefault(file.label, file.file.where)
    for label, where in first.items():
        check_label(label, where)


def check_label(label: str, where: str) -> None:
    """Raises Problem for an invalid label; ``where`` is the position of its image."""
    if not label.strip():
        raise Problem(EMPTY_LABEL, f"the label of {where} is empty", field="label", image=where)
    if len(label) > MAX_LABEL:
        text = f"the label of {where} has {len(label)} characters, at most {MAX_LABEL} are accepted"
        raise Problem(INVALID_REQUEST, text, field="label", image=where)
    if any(unicodedata.category(character) == "Cc" for character in label):
        text = f"the label of {where} holds control characters"
        raise Problem(INVALID_REQUEST, text, field="label", image=where)


def check_counts(shots: Mapping[str, int], settings: Settings, notes: Sequence[str] = ()) -> None:
    """Raises Problem if there are too few or too many classes, or too many images of one class.

    ``notes``: what there is to be told about the images, in case there are too few classes.
    """
    if len(shots) < 2:
        text = f"{len(shots)} classes in {sum(shots.values())} images: at least 2 classes are needed"
        text = "; ".join([text, *notes])
        raise Problem(TOO_FEW_CLASSES, text, field="support")
    if len(shots) > settings.max_classes:
        text = f"{len(shots)} classes, at most {settings.max_classes} are accepted"
        raise Problem(TOO_MANY_CLASSES, text, field="support")
    label, most = max(shots.items(), key=lambda item: item[1])
    if most > settings.max_shots:
        text = f"class {label!r} has {most} images, at most {settings.max_shots} are accepted"
        raise Problem(TOO_MANY_SHOTS, text, field="support")
