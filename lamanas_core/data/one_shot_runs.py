"""Lake's one-shot runs: Omniglot's own benchmark, each a task of one image a class within an alphabet."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lamanas_core import images
from lamanas_core.data.episodes import Episode
from lamanas_core.data.splits import DatasetError
from lamanas_core.image_files import ImageError
from lamanas_core.image_spec import MAX_PIXELS, ImageSpec
from lamanas_core.layout import is_litter

NAME = "one_shot_runs"
# Of each test image of a run the training image of the same character: their paths, with a space between.
LABELS = "class_labels.txt"


def load_runs(path: Path, spec: ImageSpec) -> list[Episode]:
    """The runs in ``path``, a folder or zip file named ``one_shot_runs``, in the order of their names.

    The support set of a run is its folder ``training``, one image a class; the queries are its test images, labelled
    by ``class_labels.txt``. Images are uint8 (n, c, h, w) in the format ``spec``. Raises DatasetError.
    """
    folder, file = path / NAME, path / f"{NAME}.zip"
    if not folder.is_dir() and not file.is_file():
        raise DatasetError(f"{path} contains neither {NAME} nor {NAME}.zip")
    try:
        root: Path | zipfile.Path = folder if folder.is_dir() else zipfile.Path(file)
    except zipfile.BadZipFile as error:
        raise DatasetError(f"{file}: {error}") from error
    names = sorted(run.name for run in root.iterdir())
    found = [_run(root, name, spec) for name in names if (root / name / LABELS).is_file()]
    if not found:
        raise DatasetError(f"{root} contains no folders with a {LABELS}")
    return found


def _run(root: Path | zipfile.Path, name: str, spec: ImageSpec) -> Episode:
    files = (file.name for file in (root / name / "training").iterdir())
    training = sorted(f"{name}/training/{file}" for file in files if file.endswith(".png") and not is_litter(file))
    lines = (root / name / LABELS).read_text("utf-8").splitlines()
    pairs = [line.split() for line in lines if line.strip()]
    if not pairs or any(len(pair) != 2 or pair[1] not in training for pair in pairs):
        raise DatasetError(f"{root / name / LABELS}: each line must have a test image and its training image")
    return Episode(
        support=_images(root, training, spec),
        support_labels=torch.arange(len(training)),
        queries=_images(root, [tested for tested, _ in pairs], spec),
        query_labels=torch.tensor([training.index(truth) for _, truth in pairs]),
        ways=len(training),
    )


def _images(root: Path | zipfile.Path, names: list[str], spec: ImageSpec) -> Tensor:
    arrays = []
    for name in names:
        try:
            arrays.append(images.load((root / name).read_bytes(), spec, max_pixels=MAX_PIXELS))
        except (ImageError, OSError) as error:
            raise DatasetError(f"{root / name}: {error}") from error
    return torch.from_numpy(np.stack(arrays))
