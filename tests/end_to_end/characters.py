"""Real Omniglot characters as the files that a client would send."""

import random
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

TEST_SPLIT = ROOT / "lamanas_core" / "data" / "vinyals" / "test.txt"
DRAWINGS = 20


@dataclass(frozen=True)
class Task:
    """Files of one few-shot task; class names in the order of the support set."""

    support: list[tuple[str, bytes]]
    queries: list[tuple[str, bytes]]

    @property
    def classes(self) -> list[str]:
        return list(dict.fromkeys(label for label, _ in self.support))


def draw_task(omniglot: Path, ways: int, shots: int, queries: int, seed: int) -> Task:
    """``ways`` test characters with ``shots`` + ``queries`` different drawings each, chosen by ``seed``."""
    rng = random.Random(seed)
    task = Task([], [])
    for name in rng.sample(TEST_SPLIT.read_text("utf-8").splitlines(), ways):
        files = rng.sample(_drawings(omniglot, name), shots + queries)
        label = name.partition("/")[2].replace("/", " ")
        task.support.extend((label, file) for file in files[:shots])
        task.queries.extend((label, file) for file in files[shots:])
    return task


def _drawings(omniglot: Path, name: str) -> list[bytes]:
    """All PNG files of the character ``images_<part>/<alphabet>/character<NN>``, from the folder or the zip."""
    part = name.partition("/")[0]
    if (omniglot / part).is_dir():
        files = [path.read_bytes() for path in sorted((omniglot / name).glob("*.png"))]
    else:
        with zipfile.ZipFile(omniglot / f"{part}.zip") as archive:
            inside = sorted(entry for entry in archive.namelist() if entry.startswith(f"{name}/"))
            files = [archive.read(entry) for entry in inside if entry.endswith(".png")]
    assert len(files) == DRAWINGS, f"{name} has {len(files)} drawings"
    return files
