"""Photos through the real app, real workers and a real Redis, with the photo model that ships with the package."""

import io

import httpx
import numpy as np
import pytest
from PIL import Image

from lamanas_core import images
from lamanas_core.artifact import Classifier
from tests.end_to_end.client import adapt, predict

CLASSES, SHOTS = 4, 5


def photo(label: int, rng: np.random.Generator, size: tuple[int, int] = (1600, 1200)) -> bytes:
    """A JPEG of smooth colours: those of its class, and others."""
    own = np.random.default_rng(label).uniform(0, 255, (4, 4, 3))
    mixed = 0.85 * own + 0.15 * rng.uniform(0, 255, (4, 4, 3))
    buffer = io.BytesIO()
    Image.fromarray(mixed.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def episode(client: httpx.Client) -> dict[str, object]:
    rng = np.random.default_rng(0)
    return adapt(client, [(f"thing {label}", photo(label, rng)) for label in range(CLASSES) for _ in range(SHOTS)])


def test_photos_are_adapted_to_and_told_apart_with_no_further_word(
    client: httpx.Client, episode: dict[str, object]
) -> None:
    assert episode["model_kind"] == "photos"
    assert episode["warnings"] == []
    rng = np.random.default_rng(1)
    queries = [photo(label, rng) for label in range(CLASSES) for _ in range(2)]
    predictions = predict(client, str(episode["id"]), queries)
    expected = [f"thing {label}" for label in range(CLASSES) for _ in range(2)]
    assert [found["label"] for found in predictions] == expected
    assert all(0 <= found["novelty"] <= 1 for found in predictions)


def test_the_downloaded_classifier_needs_no_backbone_and_gives_the_answers_of_the_service(
    client: httpx.Client, episode: dict[str, object]
) -> None:
    answer = client.get(f"/episodes/{episode['id']}/model.onnx")
    assert answer.status_code == 200
    assert len(answer.content) < 6_000_000
    classifier = Classifier.from_bytes(answer.content)
    query = photo(2, np.random.default_rng(5))
    found = classifier.answers(images.load(query, classifier.image, max_pixels=10**8)[None])
    told = predict(client, str(episode["id"]), [query])[0]
    assert classifier.classes[int(found.probabilities[0].argmax())] == told["label"]
    assert np.abs(found.probabilities[0] - [told["probabilities"][name] for name in classifier.classes]).max() < 1e-4


def test_drawings_still_get_the_model_for_drawings(client: httpx.Client) -> None:
    rng = np.random.default_rng(0)
    drawings = []
    for label in range(2):
        for _ in range(2):
            paper = np.full((60, 60), 255, np.uint8)
            start = 10 + int(rng.integers(0, 5))
            if label:
                paper[start : start + 4, 10:50] = 0
            else:
                paper[10:50, start : start + 4] = 0
            buffer = io.BytesIO()
            Image.fromarray(paper).save(buffer, "PNG")
            drawings.append((f"line {label}", buffer.getvalue()))
    assert adapt(client, drawings)["model_kind"] == "drawings"
