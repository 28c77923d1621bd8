"""``lamanas data``: download, generate or unpack data sets."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cli import show
from cli.errors import CommandError
from cli.numbers import between, seed

DESCRIPTION = """Download Omniglot; or, without a network, generate characters, render letters or unpack
handwritten digits.

example: lamanas data glyphs --to glyphs --classes 5 --images 6"""


def add_parser(commands: Any) -> None:
    """Options of ``lamanas data``."""
    parser = commands.add_parser(
        "data",
        help="download or generate data sets",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sets = parser.add_subparsers(dest="name", metavar="DATA_SET", required=True)
    omniglot = sets.add_parser("omniglot", help="download Omniglot (needs a network)")
    omniglot.add_argument(
        "--to", type=Path, required=True, help="folder to put images_background and images_evaluation in"
    )
    glyphs = sets.add_parser("glyphs", help="generate characters, a folder of images for each")
    glyphs.add_argument("--to", type=Path, required=True, help="new folder to put the class folders in")
    glyphs.add_argument("--classes", type=between(1, 10_000), default=20, help="characters (default: 20)")
    glyphs.add_argument("--images", type=between(1, 10_000), default=20, help="drawings of each (default: 20)")
    glyphs.add_argument("--colour", action="store_true", help="coloured strokes on coloured backgrounds")
    glyphs.add_argument("--seed", type=seed, default=0, help="another seed generates other characters (default: 0)")
    show.add_json(glyphs)
    digits = sets.add_parser("digits", help="scikit-learn's handwritten digits (needs scikit-learn)")
    digits.add_argument("--to", type=Path, required=True, help="new folder to put the class folders in")
    noise = sets.add_parser("noise", help="images that nothing can be learned from")
    noise.add_argument("--to", type=Path, required=True, help="new folder to put the class folders in")
    typefaces = sets.add_parser("typefaces", help="letters and digits in matplotlib's typefaces (needs matplotlib)")
    typefaces.add_argument("--to", type=Path, required=True, help="new folder to put the class folders in")


def run(args: argparse.Namespace) -> int:
    """Writes the data set to the folder; returns 0."""
    if args.name == "omniglot":
        print(f"{_omniglot(args.to)}: set LAMANAS_OMNIGLOT to it, or pass it as --data")
        return 0
    if args.name == "digits":
        from lamanas_core.data.sources import digits

        _unpack(digits.write_folders, args.to, "scikit-learn is not installed: pip install 'lamanas[digits]'")
        print(f"{args.to}: 10 digits, 1797 drawings; from scikit-learn, originally from the UCI repository")
        return 0
    if args.name == "typefaces":
        from lamanas_core.data.sources import typefaces

        _unpack(typefaces.write_folders, args.to, "matplotlib is not installed: pip install 'lamanas[plots]'")
        print(f"{args.to}: 62 letters and digits in 21 typefaces each: DejaVu, STIX and Computer Modern")
        return 0
    if args.name == "noise":
        from lamanas_core.data.sources import noise

        _unpack(noise.write_folders, args.to, "")
        print(f"{args.to}: {noise.CLASSES} classes of {noise.IMAGES} images of noise")
        return 0
    _glyphs(args.to, args.classes, args.images, args.seed, colour=args.colour)
    if args.json:
        show.print_json({"folder": str(args.to), "classes": args.classes, "images": args.images, "seed": args.seed})
    else:
        print(f"{args.to}: {args.classes} characters, {args.images} drawings of each")
    return 0


def _omniglot(folder: Path) -> Path:
    from lamanas_core.data.sources.omniglot import download

    try:
        return download(folder)
    except (OSError, RuntimeError) as error:
        raise CommandError(
            f"Omniglot could not be downloaded to {folder} ({error}): without a network, put its images_background and "
            "images_evaluation, as folders or zips, into a folder and pass that as --data"
        ) from error


def _unpack(write_folders: Callable[[Path], None], folder: Path, missing: str) -> None:
    _refuse_unless_new(folder)
    try:
        write_folders(folder)
    except ImportError as error:
        raise CommandError(missing) from error
    except OSError as error:
        raise CommandError(f"cannot write to {folder}: {error.strerror}") from error


def _refuse_unless_new(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise CommandError(f"{folder} is not empty: name a new folder")


def _glyphs(folder: Path, classes: int, images: int, seed: int, *, colour: bool) -> None:
    from lamanas_core.data.sources.glyphs import write_folders

    try:
        _refuse_unless_new(folder)
        write_folders(folder, classes, images, seed, colour=colour)
    except OSError as error:
        raise CommandError(f"cannot write to {folder}: {error.strerror}") from error
