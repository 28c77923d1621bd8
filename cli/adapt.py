"""``lamanas adapt``: adapt a classifier to a folder of labelled images."""

import argparse
import sys
from pathlib import Path
from typing import Any

from cli import remote, show
from cli.predictions import image_files
from lamanas_client import Client, Edge, Episode, Genotype
from lamanas_core.layout import natural

DESCRIPTION = """Send a folder with a folder of images for each class (or a zip of one) and adapt a classifier to it.

Images in a folder named _unlabelled among them have no label; the classifier learns from them as well.

Without --watch it returns once the images are stored; `lamanas predict` waits for the classifier if necessary.

example: lamanas adapt glyphs --watch"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "adapt",
        help="adapt a classifier to a folder of labelled images",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="a folder with a folder of images for each class, or a zip of one"
    )
    parser.add_argument(
        "--unlabelled",
        type=Path,
        nargs="+",
        default=[],
        metavar="IMAGE",
        help="image files without a label, or folders of them, besides those in a folder named _unlabelled",
    )
    parser.add_argument("--watch", action="store_true", help="show each step, then the result")
    parser.add_argument("--steps", type=int, metavar="K", help="gradient steps (default: the model's own)")
    parser.add_argument("--seed", type=int, default=0, help="another seed adapts a little differently (default: 0)")
    parser.add_argument(
        "--model",
        default="auto",
        help="the meta-model to adapt: drawings, photos, a version, or auto, by the images (default: auto)",
    )
    show.add_json(parser)


def run(args: argparse.Namespace) -> int:
    unlabelled = image_files(args.unlabelled)
    with remote.service() as client:
        name = args.folder.resolve().stem
        options = {"steps": args.steps, "seed": args.seed, "name": name, "model": args.model}
        episode = client.create_episode(args.folder, unlabelled=unlabelled, **options)
        show.print_notes(episode.warnings)
        if args.watch:
            episode = watch(client, episode.id)
    if args.json:
        show.print_json(episode)
    elif args.watch:
        print_episode(episode)
        print(f"\nuse it:  lamanas predict {episode.id} IMAGE...")
    else:
        without = f", {episode.unlabelled} without a label" if episode.unlabelled else ""
        images = sum(episode.shots.values())
        print(f"episode {episode.id}: {len(episode.classes)} classes, {images} images{without}, stored")
        print(f"use it:  lamanas predict {episode.id} IMAGE...")
    return 0


def watch(client: Client, id: str) -> Episode:
    """Shows a bar for each step until the episode is finished. Raises LamanasError."""
    shown = None
    try:
        for news in client.watch_episode(id):
            progress = news.progress if isinstance(news, Episode) else news
            if progress == shown:
                continue
            shown = progress
            known = f"loss {progress.loss[-1]:.4f}" if progress.loss else "waiting"
            show.print_bar(progress.step, progress.steps, known)
    except KeyboardInterrupt:
        print(f"\nthe adaptation continues: lamanas episodes show {id}", file=sys.stderr)
        raise
    return client.wait(id)


def print_episode(episode: Episode) -> None:
    """Prints the episode for people."""
    kept = episode.parameters
    took = "" if episode.adapt_seconds is None else f" in {episode.adapt_seconds:.1f} s"
    fields: list[tuple[str, object]] = [
        ("episode", episode.id),
        ("name", episode.name or "-"),
        ("state", episode.state + took),
        ("classes", ", ".join(f"{name} ({episode.shots[name]})" for name in natural(episode.shots))),
        *([("unlabelled", _unlabelled(episode))] if episode.unlabelled else []),
        ("new images", f"about {show.percent(episode.leave_one_out_accuracy)} classified correctly (estimate)"),
        ("parameters", "-" if kept is None else f"{kept.kept:,} of {kept.total:,} kept"),
        ("model", " ".join(filter(None, (episode.model_version, _why(episode))))),
        ("expires", show.moment(episode.expires_at)),
    ]
    fields += [("warning", words) for words in episode.warnings]
    fields += [
        ("doubtful", f"image {one.image}, labelled {one.label}, is {one.times:,.0f} times as likely {one.likelier}")
        for one in episode.suspects
    ]
    fields += [("error", episode.error)] if episode.error else []
    show.print_fields(fields)
    if episode.genotype is not None:
        print()
        print_genotype(episode.genotype)


def _unlabelled(episode: Episode) -> str:
    belonging = episode.unlabelled_belonging
    unknown = belonging is None or episode.model_kind == "photos"  # of photos it is often wrong
    told = "" if unknown else f", of which about {show.percent(belonging)} seem to belong to the classes"
    return f"{episode.unlabelled} images without a label{told}"


def _why(episode: Episode) -> str:
    """The kind of the episode's model and the reason for it; empty if an older service does not tell."""
    return f"for {episode.model_kind}: {episode.model_reason}" if episode.model_kind else ""


def print_genotype(genotype: Genotype) -> None:
    """Prints a line for each edge of the adapted architecture."""
    rows = [
        (cell, f"node{number}", edge.source, f"{edge.weight:.2f}", _operations(edge))
        for cell, nodes in (("normal", genotype.normal), ("reduction", genotype.reduction))
        for number, node in enumerate(nodes)
        for edge in node.inputs
    ]
    show.print_table(("cell", "node", "input", "weight", "operations"), rows)


def _operations(edge: Edge) -> str:
    return ", ".join(f"{operation.name} {operation.weight:.2f}" for operation in edge.operations)
