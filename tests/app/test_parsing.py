"""The parsers of requests raise only problems, for any input."""

import asyncio
import base64
import io
import re
import zipfile
from collections.abc import AsyncIterator
from unicodedata import normalize
from unittest.mock import patch

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.http.problems import Problem
from app.http.sse import preferred_wait
from app.images import archive, base64_text
from app.images.forms import Part, read_parts
from lamanas_core import layout

Entries = dict[str, bytes]


def zip_of(entries: Entries) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in entries.items():
            zipped.writestr(name, data)
    return buffer.getvalue()


def unzipped(data: bytes, max_images: int = 100, max_bytes: int = 100_000) -> list[tuple[str, str, bytes]] | None:
    try:
        found = archive.read(data, max_images=max_images, max_bytes=max_bytes)
        return [(each.label, each.file.where, bytes(each.file.data)) for each in found.labelled]
    except Problem:
        return None


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_refused_as_an_archive(data: bytes) -> None:
    assert unzipped(data) is None


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_archive_is_read_or_refused(data: st.DataObject) -> None:
    whole = bytearray(zip_of({"a/1.png": b"one" * 50, "a/2.png": b"two", "b/1.png": bytes(300)}))
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    found = unzipped(bytes(whole))
    assert found is None or all(label and path for label, path, _ in found)


NAME = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)


@given(st.dictionaries(st.tuples(NAME, NAME), st.binary(max_size=200), max_size=8))
@settings(max_examples=100, deadline=None)
def test_an_archive_is_read_in_order(content: dict[tuple[str, str], bytes]) -> None:
    assume(not {label.lower() for label, _ in content} & layout.SPLIT_NAMES.keys())
    data = zip_of({f"{label}/{name}.png": data for (label, name), data in content.items()})
    expected = [
        (normalize("NFC", label), f"archive: {label}/{name}.png", data) for (label, name), data in content.items()
    ]
    assert unzipped(data) == expected


@given(st.integers(1, 2000), st.integers(1, 2000))
@settings(max_examples=50, deadline=None)
def test_the_limit_applies_to_the_expanded_size(one: int, other: int) -> None:
    found = unzipped(zip_of({"a/1.png": bytes(one), "a/2.png": bytes(other)}), max_bytes=2000)
    assert (found is None) == (one + other > 2000)


def parts_of(body: bytes, chunk: int, max_parts: int = 20) -> list[Part] | None:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), chunk):
            yield body[start : start + chunk]

    try:
        return asyncio.run(read_parts("multipart/form-data; boundary=x", chunks(), max_parts=max_parts))
    except Problem:
        return None


def form_of(fields: list[tuple[str, bytes]]) -> bytes:
    head = b'--x\r\nContent-Disposition: form-data; name="%s"; filename="f"\r\n\r\n%s\r\n'
    return b"".join(head % (name.encode(), data) for name, data in fields) + b"--x--\r\n"


@given(st.binary(max_size=300), st.integers(1, 50))
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_refused_as_a_form(body: bytes, chunk: int) -> None:
    assert parts_of(body, chunk) is None


@given(
    st.lists(st.tuples(NAME, st.binary(max_size=60).filter(lambda data: b"--x" not in data)), min_size=1, max_size=9),
    st.integers(1, 200),
)
@settings(max_examples=200, deadline=None)
def test_a_form_is_read_completely_for_any_size_of_chunks(fields: list[tuple[str, bytes]], chunk: int) -> None:
    parts = parts_of(form_of(fields), chunk)
    assert parts is not None
    assert [(part.name, bytes(part.data)) for part in parts] == fields


@given(st.data(), st.integers(1, 100))
@settings(max_examples=200, deadline=None)
def test_a_damaged_form_is_read_or_refused(data: st.DataObject, chunk: int) -> None:
    whole = bytearray(form_of([("images", b"one"), ("labels", b"two")]))
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    parts = parts_of(bytes(whole), chunk)
    assert parts is None or len(parts) <= 20


def test_a_form_with_too_many_parts_is_refused() -> None:
    assert parts_of(form_of([("a", b"")] * 20), 100) is not None
    assert parts_of(form_of([("a", b"")] * 21), 100) is None


@given(st.text(max_size=40))
def test_any_preference_gives_at_most_sixty_seconds(text: str) -> None:
    assert 0 <= preferred_wait(text) <= 60


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [("wait=5", 5), ("respond-async, wait=10", 10), ('Wait = "7"', 7), ("wait=999", 60), ("wait=-1", 0), (None, 0)],
)
def test_preferences_are_parsed_as_in_rfc_7240(prefer: str | None, seconds: int) -> None:
    assert preferred_wait(prefer) == seconds


@given(st.binary(max_size=60), st.sampled_from([4, 8, 2**20]), st.booleans(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_base64_is_read_piece_by_piece_as_in_one(data: bytes, piece: int, padded: bool, wrapped: bool) -> None:
    text = (base64.urlsafe_b64encode if padded else base64.b64encode)(data).decode()
    text = text if padded else text.rstrip("=")
    text = "\n".join(text[at : at + 6] for at in range(0, len(text), 6)) if wrapped else text
    with patch.object(base64_text, "PIECE", piece):
        assert base64_text.decode(text) == data


@given(st.text(alphabet="Az09+/-_= \n!é", max_size=24), st.sampled_from([4, 2**20]))
@settings(max_examples=300, deadline=None)
def test_what_is_no_base64_is_refused_in_pieces_as_in_one(text: str, piece: int) -> None:
    digits = "".join(text.split())
    valid = re.fullmatch(r"[A-Za-z0-9+/_-]*={0,2}", digits) and len(digits.rstrip("=")) % 4 != 1
    with patch.object(base64_text, "PIECE", piece):
        if valid:
            base64_text.decode(text)
        else:
            with pytest.raises(ValueError, match="not base64"):
                base64_text.decode(text)
