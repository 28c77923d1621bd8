"""Running a backbone: images in, feature maps out, without torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from lamanas_core.backbones.storage import backbone_file
from lamanas_core.onnx_runtime import open_session, ort

Array = npt.NDArray[np.float32]
# The outputs that do not depend on the image: the convolution behind the last map.
HEAD = ("head_weight", "head_bias")


@dataclass(frozen=True)
class Backbone:
    """An open backbone. Thread-safe.

    ``shapes``: of its maps for one image, (channels, side, side), by name, from the largest side to the smallest.
    ``head``: the convolution behind the last map, ``head_weight``, float (c, channels, 1, 1), and ``head_bias``, float
    (c,); a ReLU6 and the mean over all positions follow. Empty if the backbone has none.
    """

    session: ort.InferenceSession
    shapes: Mapping[str, tuple[int, int, int]]
    head: Mapping[str, Array]

    @property
    def sizes(self) -> list[int]:
        """How many numbers each of the maps of an image has."""
        return [math.prod(shape) for shape in self.shapes.values()]

    def maps(self, image: npt.NDArray[np.uint8]) -> dict[str, Array]:
        """The maps, float (1, channels, side, side), of one image, uint8 (1, 3, size, size)."""
        found = self.session.run(list(self.shapes), {"images": image})
        return dict(zip(self.shapes, found, strict=True))

    def packed(self, images: npt.NDArray[np.uint8]) -> Array:
        """The numbers of all maps of each image in a row: uint8 (n, 3, size, size) -> float (n, numbers).

        Each image is computed on its own: the last bits of a batched product depend on the batch.
        """
        rows = np.empty((len(images), sum(self.sizes)), np.float32)
        for i in range(len(images)):
            rows[i] = np.concatenate([found.ravel() for found in self.maps(images[i : i + 1]).values()])
        return rows

    def unpacked(self, row: Array) -> dict[str, Array]:
        """The inverse of ``packed`` for one image, also from float16: (numbers,) -> (1, channels, side, side) each."""
        parts = np.split(row.astype(np.float32, copy=False), np.cumsum(self.sizes)[:-1])
        return {name: part.reshape(1, *shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}


@cache
def open_backbone(name: str) -> Backbone:
    """The backbone ``name``, opened once in each process. Raises BackboneError."""
    session = open_session(backbone_file(name))
    outputs = {output.name: tuple(output.shape[1:]) for output in session.get_outputs()}
    shapes = {output: shape for output, shape in outputs.items() if output not in HEAD}
    if outputs.keys() == shapes.keys():
        return Backbone(session, shapes, {})
    size = session.get_inputs()[0].shape[-1]
    blank = np.zeros((1, 3, size, size), np.uint8)
    return Backbone(session, shapes, dict(zip(HEAD, session.run(list(HEAD), {"images": blank}), strict=True)))
