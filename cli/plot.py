"""``lamanas plot``: figures of a run or a model, as PNG and SVG."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import numbers
from cli.errors import CommandError, told

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lamanas_core.meta_model import MetaModel

DESCRIPTION = """Draw a run's curves, a model's cells or the surface of its learned loss. Needs the extra `plots`.

example: lamanas plot curves runs/omniglot"""
WAYS, SHOTS = 5, 5


def add_parser(commands: Any) -> None:
    """Options of ``lamanas plot``."""
    parser = commands.add_parser(
        "plot",
        help="draw a run's curves, a model's cells or its learned loss",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    pictures = parser.add_subparsers(dest="picture", metavar="PICTURE", required=True)
    curves = pictures.add_parser("curves", help="loss and validation accuracy by epoch")
    curves.add_argument("folder", type=Path, metavar="RUN")
    genotype = pictures.add_parser("genotype", help="the cells of a model before adaptation")
    genotype.add_argument("folder", type=Path, nargs="?", metavar="MODEL", help="default: the shipped model")
    landscape = pictures.add_parser("loss-landscape", help="the learned loss over two directions of the logits")
    landscape.add_argument("folder", type=Path, nargs="?", metavar="RUN|MODEL", help="default: the shipped model")
    landscape.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("LAMANAS_OMNIGLOT"),
        help="take the support set from this data set's validation classes; default: generated characters",
    )
    landscape.add_argument("--seed", type=numbers.seed, default=0, help="another seed samples another support set")
    landscape.add_argument(
        "--epochs",
        type=_epochs,
        metavar="E,E,...",
        help="meta-epochs whose learned loss is drawn, of those that the run stored; default: all of these",
    )
    for picture in (curves, genotype, landscape):
        picture.add_argument("--to", type=Path, help="default: plots/ in the folder of the run or model, or here")


def _epochs(words: str) -> tuple[int, ...]:
    return tuple(int(word) for word in words.split(","))


def run(args: argparse.Namespace) -> int:
    """Writes the two files and prints their names; returns 0."""
    try:
        from lamanas_core.plots import figures
    except ImportError as error:
        raise CommandError("drawing needs matplotlib: pip install 'lamanas[plots]'") from error
    draw = {"curves": _curves, "genotype": _genotype, "loss-landscape": _landscape}[args.picture]
    try:
        written = figures.write(draw(args), (args.to or (args.folder or Path()) / "plots") / args.picture)
    except (ValueError, OSError) as error:
        raise told(error) from error
    for path in written:
        print(path)
    return 0


def _curves(args: argparse.Namespace) -> "Figure":
    from lamanas_core.plots import curves
    from lamanas_core.train.run_folder import read_curves

    return curves.draw(read_curves(args.folder))


def _genotype(args: argparse.Namespace) -> "Figure":
    from lamanas_core.plots import genotype as cells

    model = _model(args.folder)
    return cells.draw(model.learner.network.genotype(model.parameters.alpha))


def _landscape(args: argparse.Namespace) -> "Figure":
    from lamanas_core.measure.landscape import loss_landscape, support_set
    from lamanas_core.plots import landscape
    from lamanas_core.train.run_folder import kept_phi
    from lamanas_core.train.trained_classes import split_of_run, trained_digests

    model = _model(args.folder)
    if not model.parameters.phi:
        raise ValueError("this model's loss is cross-entropy: there is no learned loss to draw")
    if args.folder is None and args.epochs is not None:
        raise ValueError("--epochs needs the folder of a run")
    kept = {} if args.folder is None else kept_phi(args.folder, args.epochs)
    phis = {f"after {epoch} meta-epochs": phi for epoch, phi in kept.items()} or {"as trained": model.parameters.phi}
    network, split = model.config.network, None
    if args.folder is not None and args.data is not None:
        split = split_of_run(args.folder, args.data, network.image, trained_digests(model.card))
    asked = network.ways if network.head == "linear" else WAYS
    support, labels, ways = support_set(network.image, args.data, split, asked, SHOTS, args.seed)
    return landscape.draw(loss_landscape(model.learner, model.parameters, phis, support, labels, ways))


def _model(folder: Path | None) -> "MetaModel":
    from lamanas_core.meta_model import MetaModel, shipped
    from lamanas_core.train.loop import model_so_far

    return MetaModel.from_bytes(*shipped()) if folder is None else model_so_far(folder)
