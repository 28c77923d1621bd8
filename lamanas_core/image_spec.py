"""The image format that a meta-model expects; all code that reads images uses it."""

from dataclasses import dataclass
from typing import Literal, get_args

# The default limit for an image file: what the main cameras of phones take at most.
MAX_PIXELS = 50_000_000
# The label number of a support image that has no label. In a support set, such images follow all others.
UNLABELLED = -1

ImageKind = Literal["drawings", "photos"]
KINDS: tuple[ImageKind, ...] = get_args(ImageKind)


@dataclass(frozen=True)
class ImageSpec:
    """``size``: side in pixels. ``channels``: 1 (grey) or 3 (RGB). ``normalise_polarity``: the background becomes 0."""

    size: int = 28
    channels: int = 1
    normalise_polarity: bool = True

    @property
    def drawings(self) -> bool:
        """Whether the images are drawings, ink on a background that becomes 0; otherwise they are photos."""
        return self.normalise_polarity

    @property
    def kind(self) -> ImageKind:
        """What the images show, and so the kind of a meta-model that takes them."""
        return "drawings" if self.drawings else "photos"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, size, size): the shape of one preprocessed image (uint8)."""
        return (self.channels, self.size, self.size)

    @property
    def bytes(self) -> int:
        """What one preprocessed image takes."""
        return self.channels * self.size * self.size
