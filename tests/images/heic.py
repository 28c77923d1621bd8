"""Making HEIC files: the package that the project reads them with has no encoder."""

import io
from typing import Any

import pillow_heif
from PIL import Image


def heic(image: Image.Image, *, quality: int = 90, **options: Any) -> bytes:
    """``image`` as a HEIC file."""
    mode = image.mode if image.mode in ("L", "RGB", "RGBA") else "RGB"
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image.convert(mode)).save(buffer, quality=quality, **options)
    return buffer.getvalue()
