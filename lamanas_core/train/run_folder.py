"""What a run leaves in its folder beside checkpoint and model: its split, its curves, φ as it was at some epochs."""

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
    """The classes of each split as the run in ``folder`` wrote them down; None where there is no such file, or where
    it is of a data set called otherwise than ``data``."""
    path = folder / SPLIT
    if not path.is_file():
        return None
    document = json.loads(path.read_text("utf-8"))
    if data is not None and data.resolve().name != document["data"]:
        return None
    return {part: list(document[part]) for part in SPLITS}


def write_split(folder: Path, data: Path, splits: Mapping[Split, ImageClasses]) -> None:
    """The names of the classes of each split, for every later start and for evaluation."""
    document = {"data": data.resolve().name} | {part: list(classes.names) for part, classes in splits.items()}
    write_whole(folder / SPLIT, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())


@dataclass
class Curves:
    """One JSON line an epoch in ``curves.jsonl``, and the same for TensorBoard where its package is installed.

    ``epoch``: where the run goes on; what an interrupted process wrote of later epochs is dropped.
    """

    folder: Path
    epoch: int
    _board: Any = field(init=False)

    def __post_init__(self) -> None:
        kept = [json.dumps(row) + "\n" for row in read_curves(self.folder) if row["epoch"] <= self.epoch]
        write_whole(self.folder / CURVES, "".join(kept).encode())
        self._board = _summary_writer(self.folder / "tensorboard", self.epoch)

    def add(self, row: Mapping[str, Any]) -> None:
        """``row`` has ``epoch`` and numbers by name, or None for what was not measured in this epoch."""
        with (self.folder / CURVES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(row)) + "\n")
        if self._board is not None:
            for name, value in row.items():
                if name != "epoch" and isinstance(value, float):
                    self._board.add_scalar(name, value, row["epoch"])
            self._board.flush()

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def read_curves(folder: Path) -> list[dict[str, Any]]:
    """The rows so far; a last line that a kill cut short is left out."""
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
    """φ after this many meta-epochs, for pictures of how the loss came about."""
    checkpoint.write(folder / PHI / f"{epoch:06d}.safetensors", phi, {})


def kept_phi(folder: Path, epochs: Sequence[int] | None = None) -> dict[int, dict[str, Tensor]]:
    """φ as ``keep_phi`` left it, by meta-epoch: all in order, or those after ``epochs`` in that order.

    Raises ValueError, which names what there is, where one of ``epochs`` was not kept.
    """
    found = {int(path.stem): path for path in sorted((folder / PHI).glob("*.safetensors"))}
    chosen = list(found) if epochs is None else list(epochs)
    missing = [epoch for epoch in chosen if epoch not in found]
    if missing:
        raise ValueError(
            f"{folder} kept no loss after meta-epoch {', '.join(map(str, missing))}; "
            f"it has {', '.join(map(str, found)) or 'none'}"
        )
    return {epoch: checkpoint.read(found[epoch])[0] for epoch in chosen}
