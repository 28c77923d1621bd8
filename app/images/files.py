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
from lamanas_core.image_spec import UNLABELLED

MAX_LABEL = 200
# In a digest in place of the length of a label.
NO_LABEL = 2**64 - 1


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
    """The files of a request, and ``notes``: what is to be told about how they or their labels were read."""

    labelled: tuple[LabelledFile, ...]
    unlabelled: tuple[ImageFile, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> list[ImageFile]:
        """All of them, the labelled ones first."""
        return [*(each.file for each in self.labelled), *self.unlabelled]

    @property
    def labels(self) -> list[str | None]:
        """Those of ``files``, None for one without."""
        return [*(each.label for each in self.labelled), *(None for _ in self.unlabelled)]

    def digest(self, asked: dict[str, Any]) -> str:
        """The SHA-256 of these options and the files with their labels, in hexadecimal."""
        total = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
        for each in self.labelled:
            label = each.label.encode()
            total.update(_length(len(label)) + label + _length(len(each.file.data)))
            total.update(each.file.data)
        for file in self.unlabelled:
            total.update(_length(NO_LABEL) + _length(len(file.data)))
            total.update(file.data)
        return total.hexdigest()


@dataclass(frozen=True)
class SupportSet:
    """The support set of one request: the files in the order sent, and the options."""

    sent: SentFiles
    options: EpisodeOptions

    @property
    def shots(self) -> dict[str, int]:
        """The number of images of each class; classes in the order in which they were first sent."""
        return Counter(each.label for each in self.sent.labelled)

    @property
    def labels(self) -> list[int]:
        """The class index of each file, UNLABELLED for those without a label."""
        return numbered(self.sent.labels, self.shots)

    def digest(self) -> str:
        """Equal for equal requests, in JSON or as a form."""
        return self.sent.digest(self.options.model_dump())


def numbered(labels: Iterable[str | None], classes: Iterable[str]) -> list[int]:
    """The index of each label among the classes, UNLABELLED for None."""
    number = {label: at for at, label in enumerate(classes)}
    return [UNLABELLED if label is None else number[label] for label in labels]


def _length(number: int) -> bytes:
    return number.to_bytes(8, "big")


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


def check_counts(shots: Mapping[str, int], settings: Settings, unlabelled: int, notes: Sequence[str]) -> None:
    """Raises Problem if there are too few or too many classes, or too many images of one class.

    ``unlabelled``, the number of images without a label, and ``notes``, what there is to be told about the images, are
    stated if there are too few classes.
    """
    if len(shots) < 2:
        without = f" and {unlabelled} without a label" if unlabelled else ""
        text = f"{len(shots)} classes in {sum(shots.values())} images{without}: at least 2 classes are needed"
        text = "; ".join([text, *notes])
        raise Problem(TOO_FEW_CLASSES, text, field="support")
    if len(shots) > settings.max_classes:
        text = f"{len(shots)} classes, at most {settings.max_classes} are accepted"
        raise Problem(TOO_MANY_CLASSES, text, field="support")
    label, most = max(shots.items(), key=lambda item: item[1])
    if most > settings.max_shots:
        text = f"class {label!r} has {most} images, at most {settings.max_shots} are accepted"
        raise Problem(TOO_MANY_SHOTS, text, field="support")
