"""Corrections of an episode's support set: reads the request, and computes the corrected support set."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from app.http.problems import INVALID_REQUEST, Problem
from app.images.files import SentFiles, check_counts, check_label, check_labels, check_number, normal_label, numbered
from app.images.forms import Part, form_files, form_options, json_files, read_form, read_json, require
from app.schemas.requests import CorrectionBody, CorrectionOptions
from app.settings import Settings
from lamanas_core.image_spec import UNLABELLED


@dataclass(frozen=True)
class Correction:
    """Images are identified by their indices among the parent's; each index occurs at most once.

    An image without a label gets one by being relabelled.
    """

    removed: tuple[int, ...]
    relabelled: dict[int, str]
    added: SentFiles
    options: CorrectionOptions

    def digest(self, parent: str) -> str:
        """Equal for equal corrections of the same episode, in JSON or as a form."""
        asked: dict[str, Any] = {
            "parent": parent,
            "remove": sorted(self.removed),
            "relabel": sorted(self.relabelled.items()),
            "options": self.options.model_dump(),
        }
        return self.added.digest(asked)


@dataclass(frozen=True)
class Corrected:
    """The corrected support set: those with a label first, and in each part the images kept from the parent first.

    ``rows``: the indices of the images among the parent's followed by the added ones. ``shots``: the number of images
    per class, the parent's classes first. ``labels``: the class index of each image, UNLABELLED for one without.
    """

    rows: list[int]
    shots: dict[str, int]
    labels: list[int]


# ---------------------------------------------------------------------- reading a request


async def read(request: Request, settings: Settings) -> Correction:
    """The correction in the body of a request. Raises Problem."""
    if require(request, "application/json", "multipart/form-data") == "application/json":
        correction = await _of_json(request, settings)
    else:
        correction = await _of_form(request, settings)
    check_labels(correction.added.labelled)
    return correction


async def _of_json(request: Request, settings: Settings) -> Correction:
    body = await read_json(request, CorrectionBody)
    options = CorrectionOptions(steps=body.steps, seed=body.seed, name=body.name)
    relabelled = [(each.image, each.label) for each in body.relabel]
    added = await json_files(body.add, "add", body.unlabelled, settings)
    return _checked(body.remove, relabelled, added, options)


async def _of_form(request: Request, settings: Settings) -> Correction:
    options = set(CorrectionOptions.model_fields)
    many = {"images", "labels", "unlabelled", "remove", "relabel"}
    fields = await read_form(request, settings, many=many, one={"archive", *options})
    chosen = form_options(fields, CorrectionOptions)
    removed = [_place(part.text(), f"remove[{at}]") for at, part in enumerate(fields.get("remove", []))]
    relabelled = [_relabelled(part, f"relabel[{at}]") for at, part in enumerate(fields.get("relabel", []))]
    return _checked(removed, relabelled, await form_files(fields, settings), chosen)


def _relabelled(part: Part, field: str) -> tuple[int, str]:
    place, equals, label = part.text().partition("=")
    if not equals:
        raise Problem(INVALID_REQUEST, f"{field}: must be <place of the image>=<label>", field=field)
    return _place(place, field), label


def _place(text: str, field: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Problem(INVALID_REQUEST, f"{field}: {text[:50]!r} is not the place of an image, from 0", field=field)
    return int(text)


def _checked(
    removed: Sequence[int],
    relabelled: Sequence[tuple[int, str]],
    added: SentFiles,
    options: CorrectionOptions,
) -> Correction:
    named: set[int] = set()
    for place, field in _named(removed, [place for place, _ in relabelled]):
        if place in named:
            text = f"{field}: image {place} is named twice; remove or relabel it once"
            raise Problem(INVALID_REQUEST, text, field=field)
        named.add(place)
    labels = {place: normal_label(label) for place, label in relabelled}
    for at, label in enumerate(labels.values()):
        check_label(label, f"relabel[{at}]")
    return Correction(tuple(removed), labels, added, options)


def _named(removed: Iterable[int], relabelled: Iterable[int]) -> Iterator[tuple[int, str]]:
    """The indices of the images that a correction removes or relabels, each with its field in the request."""
    for name, places in (("remove", removed), ("relabel", relabelled)):
        for at, place in enumerate(places):
            yield place, f"{name}[{at}]"


# ---------------------------------------------------------------------- applying it


def corrected(correction: Correction, classes: Sequence[str], labels: Sequence[int], settings: Settings) -> Corrected:
    """The corrected version of a support set with these ``classes`` and ``labels``. Raises Problem."""
    _check_places(correction, len(labels))
    removed = set(correction.removed)
    before = [None if label == UNLABELLED else classes[label] for label in labels]
    now = [(place, correction.relabelled.get(place, label)) for place, label in enumerate(before)]
    now = [(place, label) for place, label in now if place not in removed]
    now += enumerate(correction.added.labels, start=len(labels))
    now.sort(key=lambda each: each[1] is None)
    counted = Counter(label for _, label in now if label is not None)
    # The parent's classes that still have images keep their order.
    shots = {label: counted[label] for label in dict.fromkeys([*classes, *counted]) if counted[label]}
    check_number(len(now), "support", settings)
    check_counts(shots, settings, len(now) - counted.total(), correction.added.notes)
    return Corrected([row for row, _ in now], shots, numbered((label for _, label in now), shots))


def _check_places(correction: Correction, images: int) -> None:
    for place, field in _named(correction.removed, correction.relabelled):
        if place >= images:
            text = f"{field}: there is no image {place}; the episode has {images}, counted from 0"
            raise Problem(INVALID_REQUEST, text, field=field)
