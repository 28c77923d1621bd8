"""``lamanas data`` writes data sets without a network connection."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.main import main


def glyphs(folder: Path, *options: str) -> int:
    return main(["data", "glyphs", "--to", str(folder), *options])


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def test_the_requested_numbers_of_classes_and_images_are_written(tmp_path: Path) -> None:
    assert glyphs(tmp_path / "new", "--classes", "3", "--images", "2") == 0
    assert {path.parent.name for path in (tmp_path / "new").rglob("*.png")} == {"glyph000", "glyph001", "glyph002"}
    drawn = files(tmp_path / "new")
    assert len(set(drawn.values())) == len(drawn) == 6
    with Image.open(tmp_path / "new" / "glyph000" / "00.png") as image:
        assert (image.format, image.size) == ("PNG", (105, 105))


def test_the_glyphs_depend_only_on_the_seed(tmp_path: Path) -> None:
    for folder, seed in (("one", "1"), ("again", "1"), ("other", "2")):
        assert glyphs(tmp_path / folder, "--classes", "2", "--images", "1", "--seed", seed) == 0
    one, again, other = (files(tmp_path / folder) for folder in ("one", "again", "other"))
    assert one == again
    assert one.keys() == other.keys()
    assert not set(one.values()) & set(other.values())


def test_a_folder_that_is_not_empty_is_not_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert glyphs(tmp_path) == 1
    assert f"{tmp_path} is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("option", "value"), [("--classes", "0"), ("--images", "-1"), ("--classes", "many"), ("--seed", "-1")]
)
def test_an_impossible_number_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    with pytest.raises(SystemExit):
        glyphs(tmp_path / "new", option, value)
    assert option in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_an_existing_file_at_the_path_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert glyphs(tmp_path / "file") == 1
    assert f"cannot write to {tmp_path / 'file'}" in capsys.readouterr().err


def test_noise_is_written_to_twenty_folders(tmp_path: Path) -> None:
    for folder in ("noise", "again"):
        assert main(["data", "noise", "--to", str(tmp_path / folder)]) == 0
    written = files(tmp_path / "noise")
    assert written == files(tmp_path / "again")
    assert Counter(path.split("/")[0] for path in written) == {f"{label:02d}": 12 for label in range(20)}
    images = [np.asarray(Image.open(path), dtype=float).ravel() for path in sorted((tmp_path / "noise").rglob("*.png"))]
    related = np.corrcoef(images)
    # Of 784 independent values, even in one class: a standard error of 0.036.
    assert np.abs(related - np.eye(240)).max() < 0.2


def test_digits_are_written_to_one_folder_each(tmp_path: Path) -> None:
    assert main(["data", "digits", "--to", str(tmp_path / "digits")]) == 0
    drawn = files(tmp_path / "digits")
    assert len(drawn) == 1797
    assert {name.split("/")[0] for name in drawn} == {str(digit) for digit in range(10)}
    with Image.open(next((tmp_path / "digits" / "1").glob("*.png"))) as image:
        assert (image.size, image.getpixel((0, 0))) == ((80, 80), 255)


def test_characters_are_drawn_in_each_typeface(tmp_path: Path) -> None:
    assert main(["data", "typefaces", "--to", str(tmp_path / "printed")]) == 0
    printed = files(tmp_path / "printed")
    assert len({name.split("/")[0] for name in printed}) == 62
    assert len(printed) == 62 * 21
    assert len(set(printed.values())) > 0.999 * len(printed)
    with Image.open(tmp_path / "printed" / "U+0049" / "DejaVuSans.png") as image:  # I: a bar in the middle
        assert (image.size, image.getpixel((0, 0)), image.getpixel((40, 40))) == ((80, 80), 255, 0)


@pytest.mark.parametrize(
    ("name", "module", "extra"), [("digits", "sklearn.datasets", "digits"), ("typefaces", "matplotlib", "plots")]
)
def test_data_from_a_package_needs_the_package(
    name: str,
    module: str,
    extra: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["data", name, "--to", str(tmp_path / name)]) == 1
    assert f"pip install 'lamanas[{extra}]'" in capsys.readouterr().err
    assert not (tmp_path / name).exists()
