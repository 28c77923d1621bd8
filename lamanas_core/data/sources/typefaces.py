"""Printed letters and digits in the typefaces that come with matplotlib: images of a kind no training here has seen."""

import string
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIDE = 80
CHARACTERS = string.ascii_letters + string.digits
# All of matplotlib's that have every character as itself; those of mathematics alone have other signs there.
FACES = (
    *(f"DejaVu{name}{style}" for name in ("Sans", "SansMono") for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
    *("cmb10", "cmr10", "cmss10", "cmti10", "cmtt10"),
)


def write_folders(folder: Path) -> None:
    """``folder/<U+code point>/<face>.png``: 62 characters in 21 faces, 80 x 80 pixels, black on white, in one size and
    on one baseline. Raises ImportError where matplotlib is missing.
    """
    import matplotlib

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for face in FACES:
        font = ImageFont.truetype(fonts / f"{face}.ttf", 56)
        for character in CHARACTERS:
            target = folder / f"U+{ord(character):04X}"  # not the character: some file systems take a for A
            target.mkdir(parents=True, exist_ok=True)
            image = Image.new("L", (SIDE, SIDE), 255)
            ImageDraw.Draw(image).text((SIDE / 2, 58), character, fill=0, font=font, anchor="ms")
            image.save(target / f"{face}.png")
