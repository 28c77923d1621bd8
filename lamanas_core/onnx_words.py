"""What users of ``model.onnx`` need to know of its input and its outputs, in words that its metadata hold."""

from lamanas_core.deep_samples import WHITES
from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import LEAST_SIDE, LIGHTEST_ON_WHITE

ANSWERS = (
    'For each image, logits and probabilities have a value for each class, in the order of "classes"; the label is the '
    "class with the highest probability. novelty, where it is an output, is the probability that the image belongs to "
    "none of the classes, if half of all images do not; known is false if it probably belongs to none of them."
)
GREY = "grey: 0.299 R + 0.587 G + 0.114 B, rounded"


def preparation(spec: ImageSpec) -> str:
    """How ``images.load`` makes the input from an image file, as numbered steps."""
    steps = [*_reading(spec), *(_drawing(spec) if spec.drawings else _photo(spec))]
    shape = ", ".join(map(str, spec.shape))
    lines = [f"{number}. {step}" for number, step in enumerate(steps, start=1)]
    return "\n".join([f"The input images is uint8, (n, {shape}). An image file is prepared in these steps:", *lines])


def _reading(spec: ImageSpec) -> list[str]:
    side = max(LEAST_SIDE, 2 * spec.size)
    whites = f"{', '.join(map(str, WHITES[:-1]))} and {WHITES[-1]}"
    return [
        f"A JPEG whose shorter side has at least {2 * side} pixels is decoded at 1/2, 1/4 or 1/8 of its size, as long "
        f"as the shorter side keeps {side}. The image is turned upright by its EXIF orientation.",
        f"Of images with more than 8 bits a sample, the least of {whites} that no sample exceeds becomes 255; of "
        f"colours that exceed {WHITES[-2]}, the highest 8 bits are used.",
        "A transparent image is put on white; if nothing on it is then darker than grey "
        f"{LIGHTEST_ON_WHITE}, on black instead.",
    ]


def _drawing(spec: ImageSpec) -> list[str]:
    return [
        f"It becomes {GREY}." if spec.channels == 1 else "Red, green and blue are each treated as follows.",
        "The background is the median of the pixels of the border.",
        "If the sum of (pixel - background) over all pixels is negative, the strokes are darker than the background, "
        "and each pixel becomes 255 * (background - pixel) / background. Otherwise it becomes 255 * (pixel - "
        "background) / (255 - background). The result is rounded, and 0 where it is negative. If the sum is 0, the "
        "first pixel, row by row, that differs from the background decides.",
        f"The image is scaled, keeping its aspect ratio, so that its longer side has {spec.size} pixels and the other "
        "at least 1: by the mean of the pixels (Pillow's BOX) if it shrinks, otherwise bilinearly.",
        f"It is centred on a square of {spec.size} x {spec.size} pixels that are 0.",
    ]


def _photo(spec: ImageSpec) -> list[str]:
    return [
        f"The square in its middle, as large as its shorter side, is scaled to {spec.size} x {spec.size} pixels: "
        "bicubically with antialiasing (Pillow's BICUBIC).",
        "If the file has a colour profile, the colours are converted to sRGB.",
        f"It becomes {GREY}." if spec.channels == 1 else "The channels are red, green and blue.",
    ]
