"""A refused archive is refused with the file that is wrong, where it is one."""

import io
import zipfile

import pytest

from app.http.problems import Problem
from app.images import archive


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, b"data")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "image"),
    [
        (zipped("alpha/1.png", "loose.png"), "archive: loose.png"),
        (zipped("alpha/beta/1.png"), "archive: alpha/beta/1.png"),
        (b"no archive", None),
    ],
)
def test_the_file_that_is_wrong_is_named(data: bytes, image: str | None) -> None:
    with pytest.raises(Problem) as refused:
        list(archive.read(bytearray(data), max_images=10, max_bytes=1000))
    assert refused.value.more["field"] == "archive"
    assert refused.value.more.get("image") == image
    assert str(refused.value.detail).startswith(image or "archive: ")
