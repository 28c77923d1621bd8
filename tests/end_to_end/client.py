"""What a client of the API does, with httpx."""

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

Labelled = Sequence[tuple[str, bytes]]
WAIT = {"Prefer": "wait=60"}


def base64_of(file: bytes) -> str:
    return base64.b64encode(file).decode()


def support_json(support: Labelled, **options: Any) -> dict[str, Any]:
    return {"support": [{"label": label, "image": base64_of(file)} for label, file in support], **options}


def adapt(client: httpx.Client, support: Labelled, **options: Any) -> dict[str, Any]:
    """The finished episode."""
    return finished(client.post("/episodes", json=support_json(support, **options), headers=WAIT))


def finished(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 201, answer.text
    episode: dict[str, Any] = answer.json()
    assert episode["state"] == "ready"
    return episode


def predict(client: httpx.Client, episode_id: str, files: Sequence[bytes]) -> list[dict[str, Any]]:
    answer = client.post("/predict", json={"episode_id": episode_id, "images": [base64_of(file) for file in files]})
    assert answer.status_code == 200, answer.text
    predictions: list[dict[str, Any]] = answer.json()["predictions"]
    return predictions


def events(client: httpx.Client, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and data of server-sent events until the stream ends."""
    with client.stream("GET", path) as answer:
        assert answer.status_code == 200
        name = ""
        for line in answer.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)
