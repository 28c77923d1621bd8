"""The clients against the real app, whose worker the test plays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.store.clients import SyncStore
from lamanas_client import Client, Episode, ProblemError, Progress
from tests.app.playing import CARD, Worker, classifier, png
from tests.client.asking import Asking

SUPPORT = {name: [png(kind, seed) for seed in range(2)] for kind, name in enumerate(("alpha", "beta"))}


@pytest.fixture
def ask_blocking(live: str, token: Callable[..., str]) -> Callable[..., Any]:
    """Where one client is enough: both have the same methods from the same place."""
    admin = token("admin")
    return lambda method, *args, **kwargs: Asking(Client).ask(live, method, *args, key=admin, **kwargs)


@pytest.fixture
def ask(asking: Asking, live: str, token: Callable[..., str]) -> Callable[..., Any]:
    admin = token("admin")
    return lambda method, *args, **kwargs: asking.ask(live, method, *args, key=admin, **kwargs)


def test_an_episode_from_its_images_to_its_end(ask: Callable[..., Any], worker: Worker, tmp_path: Path) -> None:
    for label, images in SUPPORT.items():
        (tmp_path / label).mkdir()
        for number, image in enumerate(images):
            (tmp_path / label / f"{number}.png").write_bytes(image)
    accepted = ask("create_episode", tmp_path, name="letters", steps=3)
    assert (accepted.state, accepted.classes, accepted.name) == ("queued", ("alpha", "beta"), "letters")
    worker.adapt(accepted.id)
    episode = ask("wait", accepted.id)
    assert ask("watch_episode", accepted.id) == [episode]
    assert (episode.state, episode.genotype.normal[0].inputs[0].operations[0].name) == ("ready", "skip")
    assert ask("get_episode", accepted.id) == episode
    assert ask("list_episodes") == [episode]
    predictions = ask("predict", accepted.id, [png(1), png(0), tmp_path / "beta" / "0.png"])
    assert [prediction.label for prediction in predictions] == ["beta", "alpha", "beta"]
    assert ask("download", accepted.id) == classifier(("alpha", "beta"))
    for _ in range(2):
        assert ask("delete_episode", accepted.id) is None
    with pytest.raises(ProblemError, match="expired or was deleted") as refused:
        ask("get_episode", accepted.id)
    assert refused.value.kind == "gone"


def test_a_finished_episode_is_corrected_with_and_without_new_images(
    ask_blocking: Callable[..., Any], worker: Worker
) -> None:
    parent = ask_blocking("create_episode", SUPPORT, model="drawings")
    assert (parent.model_kind, parent.model_reason) == ("drawings", "the request asks for drawings")
    worker.adapt(parent.id)
    fewer = ask_blocking("correct_episode", parent.id, remove=[0], relabel={1: "gamma"})
    assert (fewer.parent, fewer.shots) == (parent.id, {"beta": 2, "gamma": 1})
    more = ask_blocking(
        "correct_episode", parent.id, remove=[0], relabel={1: "beta"}, add={"gamma": [png(2), png(2, 1)]}
    )
    assert (more.parent, more.shots) == (parent.id, {"beta": 3, "gamma": 2})


def test_progress_comes_while_it_is_made(live: str, token: Callable[..., str], worker: Worker) -> None:
    with Client(live, token("episodes")) as client:
        id = client.create_episode(SUPPORT).id
        news = client.watch_episode(id)
        assert next(news) == Progress(step=0, steps=3, loss=(), ahead=0)
        claim = worker.claim(id)
        assert next(news) == Progress(step=0, steps=3, loss=())
        worker.step(claim, [0.5])
        assert next(news) == Progress(step=1, steps=3, loss=(0.5,))
        worker.finish(claim)
        *_, last = news
    assert isinstance(last, Episode)
    assert last.state == "ready"


def test_a_refused_image_is_named_by_its_file(ask_blocking: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "no image.png").write_text("hello")
    with pytest.raises(ProblemError, match=r"\(alpha/no image\.png\)") as refused:
        ask_blocking("create_episode", SUPPORT | {"alpha": [png(0), tmp_path / "no image.png"]})
    assert refused.value.image == "images[1] (alpha/no image.png)"


def test_who_one_is_and_may_do(live: str, token: Callable[..., str]) -> None:
    asking = Asking(Client)
    mine = token("predict")
    assert asking.ask(live, "session", key=mine).scopes == ("predict",)
    with pytest.raises(ProblemError, match="needs a token with the scope 'episodes'"):
        asking.ask(live, "list_episodes", key=mine)
    with pytest.raises(ProblemError) as refused:
        asking.ask(live, "session", key="wrong")
    assert refused.value.kind == "invalid-token"


def test_versions_and_training(ask_blocking: Callable[..., Any], sync_store: SyncStore) -> None:
    sync_store.models.register("fedcba9876543210", b"weights", CARD)
    assert ask_blocking("activate_model", "fedcba9876543210").active
    assert {model.version: model.active for model in ask_blocking("list_models")} == {
        "0123456789abcdef": False,
        "fedcba9876543210": True,
    }
    run = ask_blocking("start_training", "symbols", meta_epochs=3, preset="tiny")
    assert (run.state, run.options) == ("queued", {"preset": "tiny", "meta_epochs": 3, "seed": 0})
    assert ask_blocking("cancel_training", run.id).state == "cancelled"
    assert [news.state for news in ask_blocking("watch_training", run.id)] == ["cancelled"]
    assert ask_blocking("resume_training", run.id).state == "queued"
    assert ask_blocking("list_trainings") == [ask_blocking("get_training", run.id)]
