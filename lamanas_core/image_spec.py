"""What one meta-model expects of an image: the part of its config that everyone who reads images needs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageSpec:
    """Side in pixels, channels (1 grey, 3 colour), and whether polarity is normalised (dark background)."""

    size: int = 28
    channels: int = 1
    normalise_polarity: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, size, size): the shape of one preprocessed image, dtype uint8."""
        return (self.channels, self.size, self.size)
