"""Invalid requests: the status, problem type, message and location of each, and that nothing is stored."""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.settings import Settings
from app.store.clients import SyncStore
from tests.app.playing import b64, png, support
from tests.conftest import PrivateRedis
from tests.images.test_images import png_of_claimed_size

MULTIPART = {"content-type": "multipart/form-data; boundary=x"}
JSON = {"content-type": "application/json"}


def with_image(data: bytes) -> dict[str, Any]:
    """A request with this as its third image."""
    items = support()
    items[2]["image"] = b64(data)
    return {"json": {"support": items}}


def files(*labelled: tuple[str, bytes], labels: list[str] | None = None) -> dict[str, Any]:
    return {
        "files": [("images", (f"{number}.png", data)) for number, (_, data) in enumerate(labelled)],
        "data": {"labels": [label for label, _ in labelled] if labels is None else labels},
    }


def zipped(entries: dict[str, bytes] | list[tuple[zipfile.ZipInfo, bytes]]) -> dict[str, Any]:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items() if isinstance(entries, dict) else entries:
            archive.writestr(name, data)
    return archived(buffer.getvalue())


def archived(data: bytes) -> dict[str, Any]:
    return {"files": [("archive", ("a.zip", data))]}


GOOD = {"a/1.png": png(0), "b/1.png": png(1)}


def link() -> list[tuple[zipfile.ZipInfo, bytes]]:
    info = zipfile.ZipInfo("b/2.png")
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return [(zipfile.ZipInfo(name), data) for name, data in GOOD.items()] + [(info, b"/etc/passwd")]


def twice() -> list[tuple[zipfile.ZipInfo, bytes]]:
    return [(zipfile.ZipInfo(name), data) for name, data in (*GOOD.items(), ("a\\1.png", png(2)))]


def encrypted() -> bytes:
    data = bytearray(zipped(GOOD)["files"][0][1][1])
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    return bytes(data)


def million() -> bytes:
    """A zip file with many directory entries, built directly since zipfile is too slow."""
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0) + b"a/1.png"
    number = 200_000
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, number & 0xFFFF, number & 0xFFFF, len(entry) * number, 0, 0)
    return entry * number + end


@dataclass(frozen=True)
class Bad:
    name: str
    request: Callable[[], dict[str, Any]]
    status: int
    problem: str
    message: str
    where: dict[str, str] = field(default_factory=dict)


TABLE = [
    Bad("not an image", lambda: with_image(b"hello"), 422, "invalid-image", "not a PNG", {"image": "support[2].image"}),
    Bad("empty image", lambda: with_image(b""), 422, "invalid-image", "empty", {"image": "support[2].image"}),
    Bad(
        "truncated image",
        lambda: with_image(png(0)[:60]),
        422,
        "invalid-image",
        "damaged",
        {"image": "support[2].image"},
    ),
    Bad("unknown format", lambda: with_image(b"P5 9 9 255 " + bytes(81)), 422, "invalid-image", "not a PNG"),
    Bad("too many pixels", lambda: with_image(png_of_claimed_size(7072, 7072)), 422, "invalid-image", "7072 x 7072"),
    Bad(
        "image named by its file",
        lambda: files(("a", png(0)), ("b", b"no")),
        422,
        "invalid-image",
        "1.png",
        {"image": "images[1] (1.png)"},
    ),
    Bad(
        "image named by its path in the zip",
        lambda: zipped(GOOD | {"b/2.png": b"no"}),
        422,
        "invalid-image",
        "b/2.png",
        {"image": "archive: b/2.png"},
    ),
    Bad("51 classes", lambda: {"json": {"support": support(51, 1)}}, 422, "too-many-classes", "51 classes, at most 50"),
    Bad(
        "51 images of one class",
        lambda: {"json": {"support": support(2, 51)}},
        422,
        "too-many-shots",
        "'class 0' has 51 images",
    ),
    Bad("1,001 images", lambda: {"json": {"support": support(20, 51)[:1001]}}, 422, "too-many-images", "1001 images"),
    Bad(
        "1,001 form files",
        lambda: files(*[("a", b"")] * 1001),
        422,
        "too-many-images",
        "1001 images",
        {"field": "images"},
    ),
    Bad("3,000 form files", lambda: files(*[("a", b"")] * 3000, labels=[]), 422, "invalid-request", "2100 parts"),
    Bad("one class", lambda: {"json": {"support": support(1, 5)}}, 422, "too-few-classes", "1 classes in 5 images"),
    Bad("no images", lambda: {"json": {"support": []}}, 422, "too-few-classes", "0 classes"),
    Bad(
        "labels mismatch",
        lambda: files(("a", png(0)), ("b", png(1)), labels=["a"]),
        422,
        "labels-mismatch",
        "2 images and 1 labels",
        {"field": "labels"},
    ),
    Bad(
        "empty label",
        lambda: {"json": {"support": [*support(), {"label": "  ", "image": b64(png(0))}]}},
        422,
        "empty-label",
        "support[4].image",
    ),
    Bad("empty label in a form", lambda: files(("a", png(0)), ("", png(1))), 422, "empty-label", "images[1] (1.png)"),
    Bad(
        "long label",
        lambda: {"json": {"support": [*support(), {"label": "x" * 201, "image": b64(png(0))}]}},
        422,
        "invalid-request",
        "201 characters",
    ),
    Bad(
        "control character in a label",
        lambda: {"json": {"support": [*support(), {"label": "a\0b", "image": b64(png(0))}]}},
        422,
        "invalid-request",
        "control characters",
    ),
    Bad(
        "name not UTF-8",
        lambda: {"content": part("name", b"\xff"), "headers": MULTIPART},
        422,
        "invalid-request",
        "UTF-8",
    ),
    Bad(
        "bad base64",
        lambda: {"json": {"support": [*support(), {"label": "a", "image": "!!!"}]}},
        422,
        "invalid-base64",
        "support[4].image",
        {"image": "support[4].image"},
    ),
    Bad(
        "base64 of impossible length",
        lambda: {"json": {"support": [*support(), {"label": "a", "image": "AAAAA"}]}},
        422,
        "invalid-base64",
        "support[4].image",
    ),
    Bad(
        "wrong type",
        lambda: {"json": {"support": [{"label": 1, "image": ""}]}},
        422,
        "invalid-request",
        "valid string",
        {"field": "support[0].label"},
    ),
    Bad(
        "missing image field",
        lambda: {"json": {"support": [{"label": "a"}]}},
        422,
        "invalid-request",
        "support[0].image",
    ),
    Bad("empty JSON object", lambda: {"json": {}}, 422, "invalid-request", "Field required", {"field": "support"}),
    Bad(
        "unknown field",
        lambda: {"json": {"support": support(), "step": 3}},
        422,
        "unknown-field",
        "step",
        {"field": "step"},
    ),
    Bad(
        "unknown nested field",
        lambda: {"json": {"support": [*support(), {"label": "a", "image": "", "url": "http://x"}]}},
        422,
        "unknown-field",
        "support[4].url",
        {"field": "support[4].url"},
    ),
    Bad(
        "unknown form field",
        lambda: files(("a", png(0)), ("b", png(1))) | {"data": {"labels": ["a", "b"], "step": "3"}},
        422,
        "unknown-field",
        "'step'",
        {"field": "step"},
    ),
    Bad("too many steps", lambda: {"json": {"support": support(), "steps": 21}}, 422, "invalid-request", "20"),
    Bad("negative steps", lambda: {"json": {"support": support(), "steps": -1}}, 422, "invalid-request", "steps"),
    Bad("steps as text", lambda: {"json": {"support": support(), "steps": "3"}}, 422, "invalid-request", "steps"),
    Bad("seed too large", lambda: {"json": {"support": support(), "seed": 2**32}}, 422, "invalid-request", "seed"),
    Bad(
        "steps in a form not a number",
        lambda: files(("a", png(0)), ("b", png(1))) | {"data": {"labels": ["a", "b"], "steps": "many"}},
        422,
        "invalid-request",
        "steps",
        {"field": "steps"},
    ),
    Bad(
        "archive and images",
        lambda: {"files": [("archive", b""), ("images", b"")]},
        422,
        "invalid-request",
        "not both",
        {"field": "archive"},
    ),
    Bad("two archives", lambda: {"files": [("archive", b""), ("archive", b"")]}, 422, "invalid-request", "2 times"),
    Bad("not JSON", lambda: {"content": b"{", "headers": JSON}, 400, "malformed-body", "EOF"),
    Bad("deep JSON", lambda: {"content": b"[" * 100_000, "headers": JSON}, 400, "malformed-body", "JSON"),
    Bad("JSON not UTF-8", lambda: {"content": b'{"name": "\xff"}', "headers": JSON}, 400, "malformed-body", "JSON"),
    Bad("not multipart", lambda: {"content": b"hello", "headers": MULTIPART}, 400, "malformed-body", "multipart"),
    Bad(
        "truncated multipart",
        lambda: {"content": part("labels", b"a")[:-6], "headers": MULTIPART},
        400,
        "malformed-body",
        "last boundary",
    ),
    Bad(
        "part without a name",
        lambda: {"content": b"--x\r\n\r\na\r\n--x--\r\n", "headers": MULTIPART},
        400,
        "malformed-body",
        "name",
    ),
    Bad(
        "multipart without a boundary",
        lambda: {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        400,
        "malformed-body",
        "boundary",
    ),
    Bad("no content type", lambda: {"content": b"{}"}, 415, "unsupported-media-type", "application/json"),
    Bad(
        "urlencoded",
        lambda: {"data": {"labels": "a"}},
        415,
        "unsupported-media-type",
        "application/x-www-form-urlencoded",
    ),
    Bad(
        "body too large",
        lambda: {"content": bytes(97 * 2**20), "headers": JSON},
        413,
        "body-too-large",
        "has 97 MB, at most 96 MB",
    ),
    Bad(
        "body too large, without Content-Length",
        lambda: {"content": (bytes(2**20) for _ in range(97)), "headers": JSON},
        413,
        "body-too-large",
        "has more than 96 MB, at most 96 MB are accepted: send fewer or smaller images",
    ),
    Bad("not a zip", lambda: archived(b"hello"), 422, "invalid-archive", "zip", {"field": "archive"}),
    Bad("truncated zip", lambda: archived(zipped(GOOD)["files"][0][1][1][:-30]), 422, "invalid-archive", "zip"),
    Bad("zip with a path outside", lambda: zipped(GOOD | {"../x.png": png(0)}), 422, "invalid-archive", "../x.png"),
    Bad("zip with '..' within a path", lambda: zipped(GOOD | {"a/../x.png": png(0)}), 422, "invalid-archive", "leaves"),
    Bad("zip with an absolute path", lambda: zipped(GOOD | {"/etc/x.png": png(0)}), 422, "invalid-archive", "absolute"),
    Bad("zip with a drive", lambda: zipped(GOOD | {"C:/x.png": png(0)}), 422, "invalid-archive", "absolute"),
    Bad("zip with backslashes", lambda: zipped(GOOD | {"a\\..\\x.png": png(0)}), 422, "invalid-archive", "leaves"),
    Bad("zip with a share", lambda: zipped(GOOD | {"\\\\host\\x.png": png(0)}), 422, "invalid-archive", "absolute"),
    Bad("zip with a control", lambda: zipped(GOOD | {"a/\x1b.png": png(0)}), 422, "invalid-archive", "characters"),
    Bad(
        "zip with reversed text", lambda: zipped(GOOD | {"a/\u202eg.png": png(0)}), 422, "invalid-archive", "characters"
    ),
    Bad("zip of one name twice", lambda: zipped(twice()), 422, "invalid-archive", "archive: a/1.png: it occurs twice"),
    Bad("zip with a link", lambda: zipped(link()), 422, "invalid-archive", "links are not followed"),
    Bad("zip without folders", lambda: zipped({"x.png": png(0)}), 422, "too-few-classes", "outside class folders"),
    Bad(
        "zip without images",
        lambda: zipped({"a/x.pdf": b"", "b/y.pdf": b""}),
        422,
        "too-few-classes",
        "a/x.pdf, b/y.pdf",
    ),
    Bad(
        "zip whose names are in no encoding",
        lambda: archived(
            zipped({"a/QQQ.png": png(0), "b/1.png": png(1)})["files"][0][1][1].replace(b"QQQ", b"\xff\xfe\x81")
        ),
        422,
        "invalid-archive",
        "neither UTF-8 nor",
    ),
    Bad("encrypted zip", lambda: archived(encrypted()), 422, "invalid-archive", "encrypted"),
    Bad("empty zip", lambda: zipped({}), 422, "too-few-classes", "0 images"),
    Bad(
        "zip of 1,001 images",
        lambda: zipped({f"a/{n}.png": b"" for n in range(1001)}),
        422,
        "too-many-images",
        "1001 images",
    ),
    Bad("zip of 200,000 entries", lambda: archived(million()), 422, "too-many-images", "1000 images"),
    Bad("zip bomb", lambda: zipped({"a/1.png": bytes(97 * 2**20)}), 413, "archive-too-large", "more than 96 MB"),
    Bad(
        "zip bomb in several files",
        lambda: zipped({f"a/{n}.png": bytes(2**20) for n in range(97)}),
        413,
        "archive-too-large",
        "0.11 MB expand to more than 96 MB, which is the most that is accepted: send fewer or smaller images",
        {"image": "archive: a/96.png"},
    ),
]


def part(name: str, data: bytes) -> bytes:
    return b'--x\r\ncontent-disposition: form-data; name="' + name.encode() + b'"\r\n\r\n' + data + b"\r\n--x--\r\n"


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name)
def test_an_invalid_request_is_refused_with_a_message_and_stores_nothing(
    bad: Bad, client: TestClient, sync_store: SyncStore, server: PrivateRedis
) -> None:
    before = set(server.client.keys("*"))
    answer = client.post("/episodes", **bad.request())
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (bad.status, f"/problems/{bad.problem}"), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == bad.status
    assert problem["title"]
    assert bad.message in problem["detail"]
    assert {name: problem.get(name) for name in bad.where} == bad.where
    assert set(server.client.keys("*")) == before


def test_requests_at_the_limits_are_accepted(client: TestClient, settings: Settings) -> None:
    assert client.post("/episodes", json={"support": support(50, 1)}).status_code == 202
    assert client.post("/episodes", json={"support": support(2, 50)}).status_code == 202
    assert client.post("/episodes", json={"support": support(20, 50)}).status_code == 202
    full = support(2, 1)
    assert client.post("/episodes", json={"support": full, "steps": 20, "seed": 2**32 - 1}).status_code == 202


def test_a_png_with_a_decompression_bomb_in_a_text_chunk_is_refused_or_harmless(client: TestClient) -> None:
    text = zlib.compress(bytes(64 * 2**20))
    body = b"comment\0\0" + text
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    whole = png(0)
    answer = client.post("/episodes", **with_image(whole[:33] + chunk + whole[33:]))
    assert answer.status_code in (202, 422)
