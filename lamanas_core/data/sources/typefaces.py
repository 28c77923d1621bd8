"""Printed letters and digits in matplotlib's typefaces: a domain that no meta-model here was trained on."""

import string
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIDE = 80
CHARACTERS = string.ascii_letters + string.digits
# All of matplotlib's typefaces with letters and digits; its mathematical fonts have other symbols in their place.
FACES = (
    *(f"DejaVu{name}{style}" for name in ("Sans", "SansMono") for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
    *("cmb10", "cmr10", "cmss10", "cmti10", "cmtt10"),
)


def write_folders(folder: Path) -> None:
    """Write ``folder/<U+code point>/<face>.png``: 62 characters in 21 faces, black on white, 80 x 80 pixels.

    All have the same font size and baseline. Raises ImportError without matplotlib.
    """
    import matplotlib

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for face in FACES:
        font = ImageFont.truetype(fonts / f"{face}.ttf", 56)
        for character in CHARACTERS:
            target = folder / f"U+{ord(character):04X}"  # not the character itself: some file systems ignore case
            target.mkdir(parents=True, exist_ok=True)
            image = Image.new("L", (SIDE, SIDE), 255)
            ImageDraw.Draw(image).text((SIDE / 2, 58), character, fill=0, font=font, anchor="ms")
            image.save(target / f"{face}.png")
