"""Commands against the real app, with a worker that the test simulates."""

import errno
import os
import shutil
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.store import keys
from app.store.clients import SyncStore
from cli import remote
from cli.main import main
from lamanas_client import operations
from tests.app import playing
from tests.app.playing import CARD, Worker, classifier, png
from tests.cli.remote.conftest import Lamanas
from tests.conftest import PrivateRedis
from tests.store.observing import drop_classifier
from tests.waiting import changes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for kind, label in enumerate(("alpha", "beta")):
        (tmp_path / "letters" / label).mkdir(parents=True)
        for seed in range(2):
            (tmp_path / "letters" / label / f"{seed}.png").write_bytes(png(kind, seed))
    return tmp_path / "letters"


def test_adapt_predict_export_and_delete(signed_in: Lamanas, worker: Worker, folder: Path, tmp_path: Path) -> None:
    id = signed_in.json("adapt", folder)["id"]
    worker.adapt(id)
    table = signed_in("predict", id, folder / "beta" / "0.png", folder / "alpha" / "1.png").splitlines()
    assert [line.split()[1] for line in table[1:]] == ["beta", "alpha"]
    [found] = signed_in.json("predict", id, folder / "beta" / "1.png")
    assert (found["image"], found["label"]) == (str(folder / "beta" / "1.png"), "beta")
    assert sum(found["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    signed_in("export", id, "-o", tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == classifier(("alpha", "beta"))
    asked = signed_in.json("predict", id, folder)
    paths = [f"{label}/{number}.png" for label in ("alpha", "beta") for number in range(2)]
    assert [row["image"] for row in asked] == [str(folder / path) for path in paths]
    assert signed_in.json("classify", tmp_path / "model.onnx", folder) == asked
    assert [one["id"] for one in signed_in.json("episodes")] == [id]
    shown = signed_in("episodes", "show", id)
    assert "alpha (2), beta (2)" in shown
    fields = [line.split(maxsplit=1) for line in shown.splitlines()]
    assert ["warning", "unlike what the model knows"] in fields
    assert ["new", "images  about 75.0 % classified correctly (estimate)"] in fields
    assert ["doubtful", "image 0, labelled alpha, is 40 times as likely beta"] in fields
    assert signed_in.json("episodes", "show", id)["name"] == "letters"
    assert signed_in.json("episodes", "delete", id) == {"deleted": [id]}
    assert signed_in("episodes").splitlines()[1:] == []


@pytest.mark.parametrize(("logit", "label"), [(0.0, "beta"), (3.0, "none of these? (beta)")])
def test_an_image_of_no_class_is_told_with_the_most_similar_class(
    logit: float, label: str, signed_in: Lamanas, worker: Worker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playing, "classifier", partial(playing.classifier, novelty_logit=logit))
    id = signed_in.json("adapt", folder)["id"]
    worker.adapt(id)
    image = folder / "beta" / "0.png"
    (_, row) = signed_in("predict", id, image).splitlines()
    assert row.removeprefix(f"{image}  ").startswith(f"{label}  ")


def test_watching_prints_each_step_and_then_the_genotype(
    signed_in: Lamanas, worker: Worker, folder: Path, server: PrivateRedis
) -> None:
    queue = keys.queued("episode")

    def work() -> None:
        with changes(server.client, keys.CHANGES) as changed:
            changed.until(lambda: bool(server.client.zcard(queue)), "an episode")
            ids: Any = server.client.zrange(queue, 0, -1)
            worker.adapt(ids[0].decode())

    thread = threading.Thread(target=work)
    thread.start()
    shown = signed_in("adapt", folder, "--watch")
    assert "0123456789abcdef for drawings: there is only a model for drawings" in shown
    thread.join()
    assert signed_in.error.splitlines()[-1] == f"[{'#' * 30}] 3/3  loss 0.1000"
    table = [line.split() for line in shown.splitlines()]
    assert ["normal", "node0", "input0", "1.00", "skip", "1.00"] in table
    assert ["reduction", "node0", "input1", "1.00", "skip", "1.00"] in table
    assert ["state", "ready", "in", "0.5", "s"] in table


def test_predict_waits_for_an_evicted_classifier_to_be_restored(
    signed_in: Lamanas, worker: Worker, folder: Path, server: PrivateRedis
) -> None:
    id = signed_in.json("adapt", folder)["id"]
    worker.adapt(id)
    drop_classifier(server.client, id)

    def work() -> None:
        with changes(server.client, keys.CHANGES) as changed:
            changed.until(lambda: bool(server.client.zcard(keys.queued("episode"))), "the episode again")
        worker.adapt(id)

    thread = threading.Thread(target=work)
    thread.start()
    signed_in("export", id, "-o", folder / "model.onnx")
    thread.join()
    assert (folder / "model.onnx").read_bytes() == classifier(("alpha", "beta"))


def test_predict_waits_longer_than_the_service_delays_its_answer(
    lamanas: Lamanas,
    live: str,
    token: Callable[..., str],
    worker: Worker,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remote.keep(remote.Login(live, token("episodes", tenant="shop")))
    id = lamanas.json("adapt", folder)["id"]
    remote.keep(remote.Login(live, token("predict", tenant="shop")))
    monkeypatch.setattr(operations, "WAIT_S", 0)
    pauses = []

    def work(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            worker.adapt(id)

    monkeypatch.setattr("cli.predict.sleep", work)
    [found] = lamanas.json("predict", id, folder / "beta" / "1.png")
    assert found["label"] == "beta"
    assert pauses == [1.0, 1.0]  # the pause that the service requests


def test_an_exported_file_is_complete_or_unchanged(
    signed_in: Lamanas, worker: Worker, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = signed_in.json("adapt", folder)["id"]
    worker.adapt(id)
    target = tmp_path / "exported" / "model.onnx"
    target.parent.mkdir()
    target.write_bytes(b"before")

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        signed_in("export", id, "-o", target, fails=True)
    assert "No space left on device" in signed_in.error
    assert target.read_bytes() == b"before"
    link = tmp_path / "link.onnx"
    link.symlink_to(target)
    signed_in("export", id, "-o", link)
    assert link.is_symlink()
    assert target.read_bytes() == classifier(("alpha", "beta"))
    assert [path.name for path in target.parent.iterdir()] == ["model.onnx"]


def test_an_unwritable_export_path_is_reported_before_waiting(signed_in: Lamanas, folder: Path, tmp_path: Path) -> None:
    id = signed_in.json("adapt", folder)["id"]  # never adapted
    for target, words in (
        (tmp_path / "nowhere" / "model.onnx", f"{tmp_path}/nowhere is not a writable folder"),
        (tmp_path, f"{tmp_path} exists and is not a file"),
    ):
        signed_in("export", id, "-o", target, fails=True)
        assert words in signed_in.error


def test_control_characters_in_a_name_do_not_reach_the_terminal(signed_in: Lamanas, folder: Path) -> None:
    hostile = folder.rename(folder.with_name("\x1b[2J\nname"))
    id = signed_in.json("adapt", hostile)["id"]
    for shown in (signed_in("episodes"), signed_in("episodes", "show", id)):
        assert "\ufffd[2J\ufffdname" in shown
        assert "\x1b" not in shown


def test_how_a_folder_or_zip_was_read_is_told(signed_in: Lamanas, folder: Path, tmp_path: Path) -> None:
    (folder / "plan.pdf").write_bytes(b"")
    signed_in("adapt", folder)
    assert signed_in.error == "note: 4 added, 1 skipped: plan.pdf\n"
    shutil.make_archive(str(tmp_path / "packed"), "zip", folder.parent, folder.name)
    id = signed_in.json("adapt", tmp_path / "packed.zip")["id"]
    assert signed_in.error == f"note: 4 added, 1 skipped: {folder.name}/plan.pdf\n"
    assert f"4 added, 1 skipped: {folder.name}/plan.pdf" in signed_in("episodes", "show", id)


def test_images_without_a_label_are_sent_from_the_folder_and_beside_it(
    signed_in: Lamanas, worker: Worker, folder: Path, tmp_path: Path
) -> None:
    for path in (folder / "_unlabelled" / "1.png", tmp_path / "more" / "deep" / "2.png", tmp_path / "3.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(1, 5))
    said = signed_in("adapt", folder, "--unlabelled", tmp_path / "more", tmp_path / "3.png")
    assert ": 2 classes, 4 images, 3 without a label, stored\n" in said
    [id] = [one["id"] for one in signed_in.json("episodes")]
    fields = [line.split(maxsplit=1) for line in signed_in("episodes", "show", id).splitlines()]
    assert ["unlabelled", "3 images without a label"] in fields
    worker.adapt(id)
    fields = [line.split(maxsplit=1) for line in signed_in("episodes", "show", id).splitlines()]
    assert ["unlabelled", "3 images without a label, of which about 25.0 % seem to belong to the classes"] in fields
    assert signed_in.json("episodes", "show", id)["unlabelled"] == 3
    signed_in("adapt", folder, "--unlabelled", tmp_path / "config", fails=True)
    assert signed_in.error == f"lamanas adapt: {tmp_path / 'config'} has no images\n"


def test_classes_are_shown_in_natural_order_and_unicode_as_it_is(signed_in: Lamanas, folder: Path) -> None:
    for name in ("10", "9", "👩\u200d🚀", "a\u202fb"):
        shutil.copytree(folder / "alpha", folder / name)
    id = signed_in.json("adapt", folder)["id"]
    shown = signed_in("episodes", "show", id)
    assert "9 (2), 10 (2), alpha (2), a\u202fb (2), beta (2), 👩\u200d🚀 (2)" in shown


def test_a_failed_episode_is_reported_with_exit_status_1(signed_in: Lamanas, worker: Worker, folder: Path) -> None:
    id = signed_in.json("adapt", folder)["id"]
    worker.fail(id, "out of memory")
    signed_in("export", id, "-o", folder / "model.onnx", fails=True)
    assert signed_in.error == f"lamanas export: episode {id} failed: out of memory\n"
    assert "out of memory" in signed_in("episodes", "show", id)


def test_errors_are_reported_in_one_line(signed_in: Lamanas, folder: Path) -> None:
    for command, words in (
        ("adapt {folder}/alpha", "has no folders of images: put the images of each class into a folder"),
        ("adapt {folder}/nowhere", "{folder}/nowhere: No such file or directory"),
        ("adapt {folder}/alpha/0.png", "not a readable zip file"),
        ("adapt {folder} --steps 99", "99 is too many, model"),
        ("adapt {folder} --model photos", "model: there is no model for photos"),
        ("predict nobody {folder}/alpha/0.png", "there is no episode nobody"),
        ("episodes show nobody", "there is no episode nobody"),
        ("models activate nobody", "there is no model version nobody"),
        ("train cancel nobody", "there is no training nobody"),
        ("train watch", "there is no run yet"),
    ):
        signed_in(*command.format(folder=folder).split(), fails=True)
        assert words.format(folder=folder) in signed_in.error
        assert signed_in.error.count("\n") == 1


def test_versions_are_listed_and_switched(signed_in: Lamanas, sync_store: SyncStore) -> None:
    sync_store.models.register("fedcba9876543210", b"weights", CARD)
    assert "0123456789abcdef  drawings  active" in signed_in("models")
    answer = signed_in("models", "activate", "fedcba9876543210")
    assert "new episodes of drawings are adapted from fedcba9876543210" in answer
    assert {one["version"]: one["active"] for one in signed_in.json("models")} == {
        "0123456789abcdef": False,
        "fedcba9876543210": True,
    }


def test_a_training_is_started_watched_to_its_end_and_cancelled(signed_in: Lamanas, sync_store: SyncStore) -> None:
    run = signed_in.json("train", "start", "symbols", "--preset", "tiny", "--meta-epochs", "2", "--no-residual")
    assert run["options"] == {"preset": "tiny", "meta_epochs": 2, "residual": False, "seed": 0}
    claim = sync_store.claims.claim("training", run["id"], "played")
    assert claim is not None
    progress = {"epoch": 2, "epochs": 2, "loss": 0.5, "losses": [0.7, 0.5], "validation_accuracy": 0.9}
    sync_store.claims.report_progress(claim, progress | {"eta_seconds": 0.0}, epoch=2)
    assert sync_store.claims.commit_training(claim, "fedcba9876543210", b"weights", CARD)
    assert "use it:  lamanas models activate fedcba9876543210" in signed_in("train", "watch")
    assert signed_in.error == f"[{'#' * 30}] 2/2  loss 0.5000  val 0.9000     0.0 min left\n"
    other = signed_in.json("train", "--ways", "3", "start", "symbols", "--shots", "2")
    assert other["options"] == {"preset": "serving", "ways": 3, "shots": 2, "seed": 0}
    assert signed_in.json("train", "cancel", other["id"])["state"] == "cancelled"
    signed_in("train", "watch", other["id"], fails=True)


def test_local_training_needs_a_run_folder(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--data", "somewhere"])
    assert ended.value.code == 2
    assert "the following arguments are required: --run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("--run mine --device cpu start symbols", "--run, --device"),
        ("--start shipped --no-rotations start symbols", "--rotations, --start"),
        ("--ways 3 watch", "--ways"),
        ("--data symbols --no-residual cancel 01k8d9w3v4q2x6y7z8a9b0c1d2", "--data, --residual"),
    ],
)
def test_options_that_the_service_would_ignore_are_refused(
    command: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", *command.split()])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f"trains on a service, which does not support {named}\n")
