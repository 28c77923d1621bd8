"""Real characters that no training has seen, through the real app, real workers and a real Redis."""

import base64
import io
import zipfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageOps

from lamanas_core import images
from lamanas_core.artifact import Classifier
from tests.end_to_end.characters import Task, draw_task
from tests.end_to_end.client import WAIT, adapt, events, finished, predict, support_json

Episode = dict[str, Any]


@pytest.fixture(scope="module")
def task(omniglot: Path) -> Task:
    return draw_task(omniglot, ways=20, shots=5, queries=2, seed=0)


@pytest.fixture(scope="module")
def episode(client: httpx.Client, task: Task) -> Episode:
    return adapt(client, task.support)


@pytest.fixture(scope="module")
def small_task(omniglot: Path) -> Task:
    return draw_task(omniglot, ways=3, shots=2, queries=2, seed=1)


@pytest.fixture(scope="module")
def small_episode(client: httpx.Client, small_task: Task) -> Episode:
    return adapt(client, small_task.support, seed=7)


def files(task: Task) -> list[bytes]:
    return [file for _, file in task.queries]


def test_held_out_characters_sent_as_files_are_told_right(client: httpx.Client, task: Task, episode: Episode) -> None:
    predictions = predict(client, episode["id"], files(task))
    right = [found["label"] == label for found, (label, _) in zip(predictions, task.queries, strict=True)]
    assert len(right) == 40
    assert sum(right) / len(right) >= 0.9


def test_characters_of_no_class_are_more_novel_than_those_of_a_class(
    client: httpx.Client, omniglot: Path, task: Task, episode: Episode
) -> None:
    others = draw_task(omniglot, ways=20, shots=1, queries=2, seed=2)
    strange = [file for label, file in others.queries if label not in task.classes]
    assert len(strange) >= 20
    of_a_class, of_none = (
        [prediction["novelty"] for prediction in predict(client, episode["id"], asked)]
        for asked in (files(task), strange)
    )
    assert all(0 <= novelty <= 1 for novelty in of_a_class + of_none)
    ordered = [known < novel for known in of_a_class for novel in of_none]
    assert sum(ordered) / len(ordered) >= 0.9


def test_the_episode_tells_what_was_learned(task: Task, episode: Episode) -> None:
    assert episode["classes"] == task.classes
    assert set(episode["shots"].values()) == {5}
    assert episode["progress"]["step"] == episode["steps"] == len(episode["progress"]["loss"])
    assert 0 < episode["parameters"]["kept"] <= episode["parameters"]["total"]
    assert episode["support_accuracy"] >= 0.95
    assert episode["leave_one_out_accuracy"] >= 0.9
    assert all(node["inputs"] for cell in episode["genotype"].values() for node in cell)


def test_json_form_fields_and_zip_make_the_same_classifier(
    client: httpx.Client, small_task: Task, small_episode: Episode
) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        for number, (label, file) in enumerate(small_task.support):
            zipped.writestr(f"{label}/{number}.png", file)
    parts = [("images", (f"{n}.png", file)) for n, (_, file) in enumerate(small_task.support)]
    labels = {"labels": [label for label, _ in small_task.support], "seed": "7"}
    by_form = finished(client.post("/episodes", data=labels, files=parts, headers=WAIT))
    zip_part = {"archive": ("characters.zip", archive.getvalue())}
    by_zip = finished(client.post("/episodes", data={"seed": "7"}, files=zip_part, headers=WAIT))
    expected = predict(client, small_episode["id"], files(small_task))
    for other in (by_form, by_zip):
        assert other["classes"] == small_episode["classes"] == small_task.classes
        assert predict(client, other["id"], files(small_task)) == expected


def test_the_same_support_and_seed_predict_the_same(
    client: httpx.Client, small_task: Task, small_episode: Episode
) -> None:
    again = adapt(client, small_task.support, seed=7)
    assert again["id"] != small_episode["id"]
    assert predict(client, again["id"], files(small_task)) == predict(client, small_episode["id"], files(small_task))


def test_get_predicts_what_post_predicts(client: httpx.Client, task: Task, episode: Episode) -> None:
    file = files(task)[0]
    image = base64.urlsafe_b64encode(file).decode().rstrip("=")
    answer = client.get("/predict", params={"episode_id": episode["id"], "image": image})
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"] == predict(client, episode["id"], [file])


def test_a_prediction_in_a_batch_is_the_one_alone(client: httpx.Client, task: Task, episode: Episode) -> None:
    some = files(task)[:4]
    assert predict(client, episode["id"], some) == [
        prediction for file in some for prediction in predict(client, episode["id"], [file])
    ]


def test_a_white_on_black_twin_is_predicted_the_same(client: httpx.Client, task: Task, episode: Episode) -> None:
    for file in files(task)[:4]:
        twin = io.BytesIO()
        with Image.open(io.BytesIO(file)) as image:
            ImageOps.invert(image.convert("L")).save(twin, format="PNG")
        ordinary, inverted = predict(client, episode["id"], [file, twin.getvalue()])
        assert inverted == ordinary


def test_the_downloaded_model_gives_the_probabilities_of_the_api(
    client: httpx.Client, task: Task, episode: Episode
) -> None:
    answer = client.get(f"/episodes/{episode['id']}/model.onnx")
    assert answer.status_code == 200
    classifier = Classifier.from_bytes(answer.content)
    assert list(classifier.classes) == task.classes
    assert classifier.model_version == episode["model_version"]
    prepared = np.stack([images.load(file, classifier.image, max_pixels=100_000) for file in files(task)])
    told = predict(client, episode["id"], files(task))
    expected = [[prediction["probabilities"][name] for name in classifier.classes] for prediction in told]
    np.testing.assert_allclose(classifier.probabilities(prepared), expected, rtol=0, atol=1e-5)


def test_events_tell_the_steps_and_end_with_ready(client: httpx.Client, task: Task) -> None:
    # The one before keeps the only worker busy, so that the second is followed from its first step on.
    steps = 6
    for _ in range(2):
        accepted = client.post("/episodes", json=support_json(task.support[:50:5], steps=steps))
        assert accepted.status_code == 202
    *changes, (name, episode) = list(events(client, f"{accepted.headers['location']}/events"))
    assert {change for change, _ in changes} == {"progress"}
    told = [progress["step"] for _, progress in changes]
    # No step is told twice, beside step 0, once as queued and once as adapting; a slow reader may miss some.
    assert [step for step in told if step] == sorted({step for step in told if step})
    assert told[0] == 0
    assert any(0 < step < steps for step in told)
    assert all(len(progress["loss"]) == progress["step"] <= progress["steps"] == steps for _, progress in changes)
    assert name == "ready"
    assert (episode["state"], episode["progress"]["step"]) == ("ready", steps)
    losses = episode["progress"]["loss"]
    assert len(losses) == steps
    assert all(progress["loss"] == losses[: progress["step"]] for _, progress in changes)
