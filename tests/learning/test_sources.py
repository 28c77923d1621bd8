"""Data sets that are generated or downloaded."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lamanas_core.data.sources import omniglot
from lamanas_core.data.sources.glyphs import write_folders
from lamanas_core.torchvision_modules import imported


@pytest.mark.parametrize("colour", [False, True])
def test_glyphs_are_dark_strokes_on_a_pale_background_in_grey_or_colour(colour: bool, tmp_path: Path) -> None:
    write_folders(tmp_path, classes=3, images=2, seed=0, colour=colour)
    files = sorted(tmp_path.glob("*/*.png"))
    assert len(files) == 6
    for file in files:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        ground = np.median(pixels.reshape(-1, 3), axis=0)
        assert ground.min() >= 165
        assert pixels.min() < 120
        grey = (pixels.max(2) == pixels.min(2)).all()
        assert grey != colour


def test_torchvision_is_imported_with_any_build_of_torch() -> None:
    assert imported("torchvision.datasets").Omniglot


def test_a_download_writes_both_parts_to_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision writes both parts to its own subfolder; a part that already exists is kept."""

    class Omniglot:
        def __init__(self, folder: str, *, background: bool, download: bool) -> None:
            assert download
            part = Path(folder) / "omniglot-py" / ("images_background" if background else "images_evaluation")
            part.mkdir(parents=True)
            (part / "new").touch()

    monkeypatch.setattr(omniglot, "imported", lambda name: SimpleNamespace(Omniglot=Omniglot))
    (tmp_path / "images_evaluation").mkdir()
    assert omniglot.download(tmp_path) == tmp_path
    assert [path.name for path in (tmp_path / "images_background").iterdir()] == ["new"]
    assert list((tmp_path / "images_evaluation").iterdir()) == []
    assert omniglot.is_omniglot(tmp_path)
