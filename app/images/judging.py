"""Decodes a support set for the meta-model that suits it, and judges what kind of images it has."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.images.files import ImageFile
from app.images.pool import Decoder
from lamanas_core.image_kinds import JUDGED, Judgement, judge, sample
from lamanas_core.image_spec import ImageKind, ImageSpec
from lamanas_core.images import UInt8Array

# Up to so many bytes in total, it takes less time to decode files twice than to make images of all kinds from them.
SMALL = 256 * 1024


@dataclass(frozen=True)
class Decoded:
    """``images``: uint8 (n, c, h, w), for a meta-model of ``kind``. ``judgement``: what the images seem to be."""

    images: UInt8Array
    kind: ImageKind
    judgement: Judgement


async def decode_support(
    decoder: Decoder, key: str, files: Sequence[ImageFile], labels: Sequence[int], specs: Mapping[ImageKind, ImageSpec]
) -> Decoded:
    """Decodes the files of a request of this key for the kind that the images seem to be, or for the only one in
    ``specs``. Raises Problem as ``Decoder.arrays`` does.

    Of small files, those by which they are judged are decoded before, and again with the others. Of larger ones, those
    are decoded once, for all kinds, and the others afterwards, for the kind that was found.
    """
    judged = sample(labels)
    if len(specs) > 1 and sum(len(files[row].data) for row in judged) <= SMALL:
        (seen,) = await decoder.arrays_for(key, [files[row] for row in judged], [JUDGED])
        judgement = await asyncio.to_thread(judge, seen)
        return Decoded(await decoder.arrays(key, files, specs[judgement.kind]), judgement.kind, judgement)
    others = sorted(set(range(len(files))) - set(judged))
    seen, *arrays = await decoder.arrays_for(key, [files[row] for row in judged], [JUDGED, *specs.values()])
    by_kind = dict(zip(specs, arrays, strict=True))
    judgement = await asyncio.to_thread(judge, seen)
    kind = judgement.kind if judgement.kind in specs else next(iter(specs))
    images = np.empty((len(files), *specs[kind].shape), np.uint8)
    images[judged] = by_kind[kind]
    if others:
        images[others] = await decoder.arrays(key, [files[row] for row in others], specs[kind])
    return Decoded(images, kind, judgement)
