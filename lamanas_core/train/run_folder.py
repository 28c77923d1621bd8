"""Files in a run's folder besides the checkpoint and the model: the split, the curves and snapshots of φ."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lamanas_core.data.folders import ImageClasses
from lamanas_core.data.splits import SPLITS, Split
from lamanas_core.files import write_whole
from lamanas_core.train import checkpoint

SPLIT = "split.json"
CURVES = "curves.jsonl"
PHI = "phi"


def read_split(folder: Path, *, data: Path | None = None) -> dict[Split, list[str]] | None:
    """The class names of each split, recorded by the run in ``folder``.

    None if nothing is recorded, or if the record is of a data set whose folder has another name than ``data``; see
    ``trained_classes.split_of_run`` for a renamed one.
    """
    path = folder / SPLIT
    if not path.is_file():
        return None
    document = json.loads(path.read_text("utf-8"))
    if data is not None and data.resolve().name != document["data"]:
        return None
    return {part: list(document[part]) for part in SPLITS}


def write_split(folder: Path, data: Path, splits: Mapping[Split, ImageClasses]) -> None:
    """Record the class names of each split, for resuming the run and for evaluation. Raises OSError."""
    document = {"data": data.resolve().name} | {part: list(classes.names) for part, classes in splits.items()}
    write_whole(folder / SPLIT, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())


@dataclass
class Curves:
    """Writes a JSON line per epoch to ``curves.jsonl``, and the same to TensorBoard if its package is installed.

    ``epoch``: the epoch of the checkpoint that the run resumes from, or 0; rows of later epochs are deleted.
    """

    folder: Path
    epoch: int
    _board: Any = field(init=False)

    def __post_init__(self) -> None:
        kept = [json.dumps(row) + "\n" for row in read_curves(self.folder) if row["epoch"] <= self.epoch]
        write_whole(self.folder / CURVES, "".join(kept).encode())
        self._board = _summary_writer(self.folder / "tensorboard", self.epoch)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append ``row``: the ``epoch``, and values by name, None for those that were not measured in this epoch."""
        with (self.folder / CURVES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(row)) + "\n")
        if self._board is not None:
            for name, value in row.items():
                if name != "epoch" and isinstance(value, float):
                    self._board.add_scalar(name, value, row["epoch"])
            self._board.flush()

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._board is not None:
            self._board.close()


def read_curves(folder: Path) -> list[dict[str, Any]]:
    """The rows of ``curves.jsonl`` in ``folder``; none without the file. An incomplete last line is ignored."""
    path = folder / CURVES
    lines = path.read_text("utf-8").split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]


def _summary_writer(folder: Path, epoch: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=epoch + 1)


def keep_phi(folder: Path, epoch: int, phi: Mapping[str, Tensor]) -> None:
    """Save a snapshot of φ after ``epoch`` meta-epochs, for plots of how the loss developed. Raises OSError."""
    checkpoint.write(folder / PHI / f"{epoch:06d}.safetensors", phi, {})


def kept_phi(folder: Path, epochs: Sequence[int] | None = None) -> dict[int, dict[str, Tensor]]:
    """The snapshots of φ in ``folder`` by meta-epoch: all in ascending order, or those of ``epochs`` in that order.

    Raises ValueError, which lists the available snapshots, if one of ``epochs`` is missing.
    """
    found = {int(path.stem): path for path in sorted((folder / PHI).glob("*.safetensors"))}
    chosen = list(found) if epochs is None else list(epochs)
    missing = [epoch for epoch in chosen if epoch not in found]
    if missing:
        raise ValueError(
            f"{folder} has no snapshot of the loss after meta-epoch {', '.join(map(str, missing))}; "
            f"available: {', '.join(map(str, found)) or 'none'}"
        )
    return {epoch: checkpoint.read(found[epoch])[0] for epoch in chosen}
