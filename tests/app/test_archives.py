"""An archive is read by the rule for folders, in whatever encoding its names are; what is wrong is named."""

import io
import json
import zipfile
import zlib
from collections import Counter
from typing import Any

import pytest

from app.http.problems import Problem
from app.images import archive, zip_names
from app.images.files import SentFiles
from app.images.zip_names import UnknownEncodingError, encoding_of
from tests.conftest import ROOT
from tests.test_layout import expected

CASES: list[dict[str, Any]] = json.loads((ROOT / "tests" / "layouts.json").read_text("utf-8"))
PNG = b"\x89PNG\r\n\x1a\n"


def zipped(*names: str, data: bytes = b"data") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, b"" if name.endswith("/") else data)
    return buffer.getvalue()


def encoded(names: list[str], encoding: str) -> bytes:
    """A zip file whose names are in this encoding, without the flag that says so."""
    places = {f"{'x' * len(name.encode(encoding))}{number:04}/1.png": name for number, name in enumerate(names)}
    data = zipped(*places)
    for place, name in places.items():
        stem = place.removesuffix("/1.png")
        data = data.replace(stem.encode(), name.encode(encoding) + stem[-4:].encode())
    return data


def read(data: bytes) -> SentFiles:
    return archive.read(bytearray(data), max_images=100, max_bytes=10_000)


def paths(found: SentFiles) -> list[str]:
    return [file.where.removeprefix("archive: ") for file in found.files]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_an_archive_is_read_by_the_rule_for_folders(case: dict[str, Any]) -> None:
    found = read(zipped(*case["paths"]))
    classes: dict[str | None, list[str]] = {}
    for label, path in zip(found.labels, paths(found), strict=True):
        classes.setdefault(label, []).append(path)
    without = {None: case["unlabelled"]} if "unlabelled" in case else {}
    assert classes == case["classes"] | without
    assert list(classes) == [*case["classes"], *without]
    if (notes := expected(case)["adapt"]) is not None:
        assert list(found.notes) == notes


@pytest.mark.parametrize(
    ("data", "image"),
    [
        (zipped("alpha/1.png", "../loose.png"), "archive: ../loose.png"),
        (zipped("alpha/1.png", "alpha\\1.png"), "archive: alpha/1.png"),
        (b"no archive", None),
    ],
)
def test_the_file_that_is_wrong_is_named(data: bytes, image: str | None) -> None:
    with pytest.raises(Problem) as refused:
        read(data)
    assert refused.value.more["field"] == "archive"
    assert refused.value.more.get("image") == image
    assert str(refused.value.detail).startswith(image or "archive: ")


@pytest.mark.parametrize("name", ["a/" * 101 + "1.png", "a/" + "b" * 4096])
def test_names_that_no_system_has_are_refused(name: str) -> None:
    with pytest.raises(Problem, match="longer than 4096 characters, or more than 100 folders deep"):
        read(zipped("a/1.png", name))
    assert len(read(zipped("a/1.png", "b/" * 100 + "1.png")).files) == 2


def test_images_without_a_label_come_last_and_count() -> None:
    data = zipped("_unlabelled/1.png", "a/1.png", "b/1.png")
    assert read(data).labels == ["a", "b", None]
    with pytest.raises(Problem, match="archive: 3 images, at most 2 are accepted"):
        archive.read(data, max_images=2, max_bytes=10_000)
    with pytest.raises(Problem, match="expand to more than"):
        archive.read(data, max_images=3, max_bytes=11)


def test_backslashes_separate() -> None:
    found = read(zipped("symbols\\ring\\1.png", "symbols\\cross\\1.png", "symbols\\Thumbs.db"))
    assert list(zip(found.labels, paths(found), strict=True)) == [
        ("ring", "symbols/ring/1.png"),
        ("cross", "symbols/cross/1.png"),
    ]
    assert found.notes == ()


def test_files_that_are_no_images_are_not_even_inflated() -> None:
    data = bytearray(zipped("a/1.png", "b/1.png", "b/notes.txt", "README"))
    at = data.index(b"b/notes.txt") - 30
    data[at + 6] |= 1  # encrypted, and larger than its archive
    found = read(bytes(data))
    assert paths(found) == ["a/1.png", "b/1.png"]
    assert found.notes == ("2 added, 2 skipped: b/notes.txt, README",)


def test_a_file_without_suffix_is_an_image_if_it_begins_as_one() -> None:
    assert paths(read(zipped("a/1", "b/1", data=PNG))) == ["a/1", "b/1"]
    assert read(zipped("a/1", "b/1")).files == []


@pytest.mark.parametrize(
    ("names", "encoding"),
    [
        (["Größe", "Straße"], "cp437"),
        (["café"], "cp437"),
        (["été", "Ångström"], "cp437"),
        (["Árbol", "niño"], "cp850"),
        (["façade", "Größe"], "cp1252"),
        (["łódź", "pięć"], "cp852"),
        (["кот", "собака"], "cp866"),
        (["Круг"], "cp866"),
        (["кошка", "дом"], "cp1251"),
        (["γάτα", "σκύλος"], "cp737"),
        (["חתול", "כלב"], "cp862"),
        (["犬", "猫"], "cp932"),
        (["猫"], "cp932"),
        (["表", "ソ"], "cp932"),
        (["ひらがな", "カタカナ"], "cp932"),
        (["圆形", "方形"], "gbk"),
        (["漢字", "圓形"], "big5"),
        (["고양이", "개"], "cp949"),
        # In cp949 these are an Ångström sign, which is another character in NFC.
        (["ลูกสุนัข", "แมว"], "cp874"),
        (["ВОЎК"], "cp1251"),
        (["10 µm", "5µl", "2_µm"], "cp437"),
        (["20°C", "30 °C", "90°"], "cp437"),
        (["±5", "1 cm²"], "cp437"),
        (["m³"], "cp850"),
        (["20°C"], "cp1252"),
        (["10 æbler", "Søren"], "cp1252"),
        (["známý"], "cp1252"),
    ],
)
def test_the_code_page_of_names_is_recognised(names: list[str], encoding: str) -> None:
    assert encoding_of([f"{name}/1.png".encode(encoding) for name in names]) == encoding


def test_names_in_the_extra_field_for_unicode_paths_are_read() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, stated in (("__/1.png", "円/1.png"), ("___/1.png", "三角形/1.png"), ("b/1.png", None)):
            info = zipfile.ZipInfo(name)
            if stated is not None:
                text = b"\x01" + zlib.crc32(name.encode()).to_bytes(4, "little") + stated.encode()
                info.extra = (0x7075).to_bytes(2, "little") + len(text).to_bytes(2, "little") + text
            file.writestr(info, b"data")
    found = read(buffer.getvalue())
    assert found.labels == ["円", "三角形", "b"]
    assert found.notes == ()
    # The name was changed by a program that left the field as it was.
    changed = read(buffer.getvalue().replace(b"___/1.png", b"aaa/1.png"))
    assert changed.labels == ["円", "aaa", "b"]


def test_the_encoding_of_a_megabyte_of_names_is_soon_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each code page is judged by a part of them: to look at every character of all takes seconds."""
    judged: Counter[str] = Counter()
    for page, plausible in zip_names.CODE_PAGES.items():

        def counting(text: str, page: str = page, plausible: zip_names.Plausible = plausible) -> bool:
            judged[page] += len(text)
            return plausible(text)

        monkeypatch.setitem(zip_names.CODE_PAGES, page, counting)
    names = [f"{number} {'кошка ' * 500}".encode("cp866") for number in range(300)]
    assert encoding_of(names) == "cp866"
    assert 1000 < judged["cp866"] <= max(judged.values()) <= 50_000


def test_a_guessed_encoding_is_told() -> None:
    found = read(encoded(["кот", "собака"], "cp866"))
    assert [label and label[:-4] for label in found.labels] == ["кот", "собака"]
    assert found.notes == ("the names say no encoding and were read as cp866",)


def test_utf_8_needs_no_flag() -> None:
    names = ["Gro\u0308ße", "犬", "кот", "👨\u200d👩\u200d👧"]
    found = read(encoded(names, "utf-8"))
    assert [label and label[:-4] for label in found.labels] == ["Größe", *names[1:]]
    assert found.notes == ()


@pytest.mark.parametrize("name", [b"\xff\xfe\x81", bytes(range(128, 256))])
def test_names_in_no_known_encoding_are_refused(name: bytes) -> None:
    with pytest.raises(UnknownEncodingError, match="pack it with UTF-8 names"):
        encoding_of([b"a/1.png", name + b"/1.png"])
