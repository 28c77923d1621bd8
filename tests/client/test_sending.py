"""What a client sends for what it is given."""

import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.schemas import responses
from lamanas_client import types
from tests.client.asking import EPISODE, Asking, Told

SHARED = [name for name, value in vars(types).items() if isinstance(value, type) and issubclass(value, types.Answer)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path in ("b/2.png", "a/1.png", "a/0.png", "a/.DS_Store", "a/Thumbs.db", ".git/config", "README.md"):
        (tmp_path / "task" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "task" / path).write_bytes(path.encode())
    return tmp_path / "task"


def created(asking: Asking, support: object, **options: Any) -> str:
    told = Told(httpx.Response(202, json=EPISODE))
    asking.ask(told, "create_episode", support, **options)
    return told.asked[0].content.decode(errors="replace")


def test_a_folder_is_sent_class_by_class_without_what_systems_leave_behind(asking: Asking, folder: Path) -> None:
    sent = created(asking, folder, name="letters", seed=7)
    names = [line.partition('filename="')[2].rstrip('"\r') for line in sent.split("\n") if "filename=" in line]
    assert names == ["a/0.png", "a/1.png", "b/2.png"]
    labels = [part.split("\r\n\r\n")[1].strip() for part in sent.split("--") if 'name="labels"' in part]
    assert labels == ["a", "a", "b"]
    assert "DS_Store" not in sent
    assert "README" not in sent
    for option in ('name="name"\r\n\r\nletters\r\n', 'name="seed"\r\n\r\n7\r\n'):
        assert option in sent
    assert 'name="steps"' not in sent


def test_what_is_not_sent_of_a_folder_is_told(asking: Asking, folder: Path) -> None:
    for method, arguments in (("create_episode", (folder,)), ("correct_episode", ("x",))):
        told = Told(httpx.Response(202, json=EPISODE | {"warnings": ["look like photos"]}))
        options: dict[str, Any] = {} if method == "create_episode" else {"add": folder}
        episode = asking.ask(told, method, *arguments, **options)
        assert episode.warnings == ("3 added, 1 skipped: README.md", "look like photos")


def test_splits_and_a_wrapping_folder_are_no_classes(asking: Asking, tmp_path: Path) -> None:
    for path in ("train/a/1.png", "test/a/2.png", "train/b/1.png"):
        (tmp_path / "task" / "symbols" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "task" / "symbols" / path).write_bytes(path.encode())
    sent = created(asking, tmp_path / "task")
    assert [part.split("\r\n\r\n")[1].strip() for part in sent.split("--") if 'name="labels"' in part] == [
        "a",
        "a",
        "b",
    ]
    assert 'filename="symbols/train/a/1.png"' in sent


def test_a_mapping_may_hold_paths_and_bytes(asking: Asking, folder: Path) -> None:
    sent = created(asking, {"a": [folder / "a" / "0.png", b"in memory"], "b": [str(folder / "b" / "2.png")]}, steps=2)
    assert sent.index("a/0.png") < sent.index("in memory") < sent.index("b/2.png")
    assert 'name="steps"\r\n\r\n2\r\n' in sent


def test_images_without_a_label_are_sent_from_the_folder_and_beside_it(asking: Asking, folder: Path) -> None:
    (folder / "_unlabelled").mkdir()
    (folder / "_unlabelled" / "3.png").write_bytes(b"three")
    (folder / "4.png").write_bytes(b"four")
    sent = created(asking, {"a": [b"zero"], "b": [b"one"]}, unlabelled=[b"two", folder / "4.png"])
    parts = [part for part in sent.split("--") if 'name="unlabelled"' in part]
    assert [part.split("\r\n\r\n")[1].strip() for part in parts] == ["two", "four"]
    assert 'filename="4.png"' in parts[1]
    sent = created(asking, folder, unlabelled=[b"two"])
    parts = [part for part in sent.split("--") if 'name="unlabelled"' in part]
    assert [part.split("\r\n\r\n")[1].strip() for part in parts] == ["three", "two"]
    assert 'filename="_unlabelled/3.png"' in parts[0]
    assert sent.count('name="labels"') == 3
    with pytest.raises(ValueError, match="unlabelled: a list of images"):
        asking.ask(Told(), "create_episode", folder, unlabelled="a/0.png")


def test_a_correction_adds_images_without_a_label_alone_or_beside_others(asking: Asking) -> None:
    for options, labels in (({}, 0), ({"add": {"a": [b"zero"]}}, 1)):
        told = Told(httpx.Response(202, json=EPISODE))
        arguments: dict[str, Any] = options | {"remove": [3], "relabel": {5: "b"}, "unlabelled": [b"two"]}
        asking.ask(told, "correct_episode", "x", **arguments)
        sent = told.asked[0].content.decode()
        assert 'name="unlabelled"; filename="image"' in sent
        assert ('name="remove"\r\n\r\n3' in sent, 'name="relabel"\r\n\r\n5=b' in sent) == (True, True)
        assert (sent.count('name="labels"'), sent.count('name="images"')) == (labels, labels)


def test_a_zip_is_sent_as_it_is(asking: Asking, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "task.zip", "w") as archive:
        archive.writestr("a/0.png", "zero")
    sent = created(asking, tmp_path / "task.zip")
    assert 'name="archive"; filename="task.zip"' in sent
    assert 'name="images"' not in sent


def test_what_is_no_support_set_is_refused_before_anything_is_sent(asking: Asking, folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "loose").mkdir()
    (folder / "loose" / "1.png").write_bytes(b"")
    for support, words in (
        (folder / "empty", "has no folders of images"),
        (folder / "loose", r"has no folders of images: put .*; images outside class folders were skipped: 1\.png"),
        ({"a": "a/0.png"}, "class 'a': a list of images"),
        ({"a": [], "b": []}, "no images"),
    ):
        with pytest.raises(ValueError, match=words):
            asking.ask(Told(), "create_episode", support)
    with pytest.raises(FileNotFoundError):
        asking.ask(Told(), "create_episode", folder / "nowhere")
    with pytest.raises(ValueError, match="images: a list of images"):
        asking.ask(Told(), "predict", "x", "a/0.png")


def test_many_images_go_in_several_requests_and_come_back_in_order(asking: Asking) -> None:
    asked: list[httpx.Request] = []

    def predict(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        count = request.content.count(b'name="images"')
        first = request.content.partition(b'filename="image"')[2].split(b"\r\n\r\n")[1][:4].decode()
        return httpx.Response(200, json={"predictions": [_predicted(f"{int(first) + n}") for n in range(count)]})

    answers = asking.ask(predict, "predict", "x", [f"{n:04}".encode() for n in range(450)])
    assert [int(answer.label) for answer in answers] == list(range(450))
    assert len(asked) == 3
    assert asked[0].url.params["wait"] == "60"
    asked.clear()
    large = [f"{n:04}".encode() + bytes(3 * 2**20) for n in range(3)]
    assert [int(answer.label) for answer in asking.ask(predict, "predict", "x", large)] == [0, 1, 2]
    assert len(asked) == 3
    assert asking.ask(Told(), "predict", "x", []) == []


def _predicted(label: str) -> dict[str, object]:
    return {"label": label, "probability": 1.0, "probabilities": {label: 1.0}}


def test_pages_are_followed_until_there_are_enough(asking: Asking) -> None:
    def page(*ids: str, cursor: str | None) -> httpx.Response:
        return httpx.Response(200, json={"episodes": [EPISODE | {"id": id} for id in ids], "next_cursor": cursor})

    told = Told(page("c", "b", cursor="b"), page("a", cursor=None))
    assert [episode.id for episode in asking.ask(told, "list_episodes", 150)] == ["c", "b", "a"]
    assert [dict(request.url.params) for request in told.asked] == [
        {"limit": "100"},
        {"limit": "100", "cursor": "b"},
    ]


def test_an_id_is_never_taken_for_a_path(asking: Asking) -> None:
    told = Told(httpx.Response(204))
    asking.ask(told, "delete_episode", "../models?x")
    assert told.asked[0].url.raw_path == b"/episodes/..%2Fmodels%3Fx"


@pytest.mark.parametrize("name", [name for name in SHARED if hasattr(responses, name)])
def test_what_the_client_reads_is_what_the_service_tells(name: str) -> None:
    assert getattr(types, name).model_fields.keys() <= getattr(responses, name).model_fields.keys()
