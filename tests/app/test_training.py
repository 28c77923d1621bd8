"""Training runs and model versions over HTTP."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.schemas.requests import TrainBody
from app.settings import Settings
from app.store.clients import SyncStore
from tests.app.playing import CARD
from tests.app.test_episodes import create_episode, read_event

ASKED = {"dataset": "symbols", "meta": "reptile", "loss": "lstm", "meta_epochs": 3, "ways": 5, "shots": 1, "seed": 4}


def started(client: TestClient, **requested: Any) -> Any:
    answer = client.post("/train", json=ASKED | requested)
    assert answer.status_code == 202, answer.text
    return answer


def test_a_run_is_queued_with_the_requested_options(admin: TestClient) -> None:
    answer = started(admin)
    run = answer.json()
    assert answer.headers["location"] == f"train/{run['id']}"
    assert (run["state"], run["dataset"], run["epoch"]) == ("queued", "symbols", 0)
    assert run["options"] == {"preset": "serving"} | {name: ASKED[name] for name in ASKED if name != "dataset"}
    assert admin.get(f"/train/{run['id']}").json() == run
    assert admin.get("/train").json() == {"trainings": [run], "next_cursor": None}


def test_a_repeated_request_starts_one_run(admin: TestClient) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first, again = (admin.post("/train", json=ASKED, headers=headers).json() for _ in range(2))
    assert first == again
    other = admin.post("/train", json=ASKED | {"seed": 5}, headers=headers)
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-key-reused")
    started(admin)
    assert len(admin.get("/train").json()["trainings"]) == 2


def test_a_run_reports_its_progress_and_registers_a_version(admin: TestClient, sync_store: SyncStore) -> None:
    id = started(admin).json()["id"]
    claim = sync_store.claims.claim("training", id, "played")
    assert claim is not None
    progress: dict[str, Any] = {"epoch": 2, "epochs": 3, "loss": 0.5, "losses": [0.7, 0.5], "validation_accuracy": 0.9}
    progress |= {"warnings": ["24 added, 1 skipped: notes.txt"], "warm_up_epochs": 1, "seconds": 25.0}
    sync_store.claims.report_progress(claim, progress | {"eta_seconds": 12.5}, epoch=2)
    run = admin.get(f"/train/{id}").json()
    assert run["state"] == "running"
    assert {name: run[name] for name in progress} == progress
    assert run["eta_seconds"] == 12.5
    assert sync_store.claims.commit_training(claim, "fedcba9876543210", b"weights", CARD)
    run = admin.get(f"/train/{id}").json()
    assert (run["state"], run["model_version"]) == ("finished", "fedcba9876543210")
    versions = {model["version"]: model for model in admin.get("/models").json()["models"]}
    assert versions["fedcba9876543210"]["card"] == CARD


def test_events_of_an_ended_run_are_its_final_event(admin: TestClient) -> None:
    id = started(admin).json()["id"]
    cancelled = admin.post(f"/train/{id}/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
    name, run = read_event(iter(admin.get(f"/train/{id}/events").text.splitlines()))
    assert (name, run["id"]) == ("cancelled", id)


def test_a_cancelled_run_can_be_resumed_repeatedly_and_a_finished_one_cannot(
    admin: TestClient, sync_store: SyncStore
) -> None:
    id = started(admin).json()["id"]
    admin.post(f"/train/{id}/cancel")
    first, again = (admin.post(f"/train/{id}/resume") for _ in range(2))
    assert (first.status_code, first.json()["state"]) == (202, "queued")
    assert (again.status_code, again.json()) == (202, first.json())
    claim = sync_store.claims.claim("training", id, "played")
    assert claim is not None
    assert sync_store.claims.commit_training(claim, "fedcba9876543210", b"weights", CARD)
    refused = admin.post(f"/train/{id}/resume")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/conflict")


@pytest.mark.parametrize(
    ("requested", "problem", "field"),
    [
        ({}, "invalid-request", "dataset"),
        ({"dataset": ".."}, "invalid-request", "dataset"),
        ({"dataset": "a/b"}, "invalid-request", "dataset"),
        ({"dataset": "/etc"}, "invalid-request", "dataset"),
        ({"dataset": "a", "meta": "sgd"}, "invalid-request", "meta"),
        ({"dataset": "a", "ways": 1}, "invalid-request", "ways"),
        ({"dataset": "a", "meta_epochs": "3"}, "invalid-request", "meta_epochs"),
        ({"dataset": "a", "epochs": 3}, "unknown-field", "epochs"),
    ],
)
def test_an_invalid_run_is_refused(requested: dict[str, Any], problem: str, field: str, admin: TestClient) -> None:
    answer = admin.post("/train", json=requested)
    assert (answer.status_code, answer.json()["type"]) == (422, f"/problems/{problem}")
    assert answer.json()["field"] == field
    assert admin.get("/train").json()["trainings"] == []


def test_an_unknown_data_set_is_refused_with_the_available_ones(
    admin: TestClient, settings: Settings, sync_store: SyncStore
) -> None:
    (settings.datasets_dir / "shapes").mkdir(parents=True)
    try:
        answer = admin.post("/train", json=ASKED)
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/unknown-dataset")
        started(admin, dataset="shapes")
        (settings.data_dir / "parts" / "a").mkdir(parents=True)
        (settings.data_dir / "parts" / "a" / "1.png").write_bytes(b"")
        assert "available: shapes" in answer.json()["detail"]
        sync_store.folders.put_dataset("parts", settings.data_dir / "parts", settings.data_dir)
        assert "available: parts, shapes" in admin.post("/train", json=ASKED).json()["detail"]
        started(admin, dataset="parts")
    finally:
        (settings.datasets_dir / "shapes").rmdir()
        settings.datasets_dir.rmdir()


@pytest.mark.parametrize(
    "path", ["GET /train/x", "GET /train/x/events", "POST /train/x/cancel", "POST /train/x/resume"]
)
def test_an_unknown_run_is_404(path: str, admin: TestClient) -> None:
    method, url = path.split()
    answer = admin.request(method, url)
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")


def test_an_activated_version_is_used_for_new_episodes(admin: TestClient, sync_store: SyncStore) -> None:
    old = create_episode(admin)["id"]
    newer = json.loads(json.dumps(CARD))
    newer["config"]["steps"] = 7
    sync_store.models.register("fedcba9876543210", b"weights", newer)
    assert [(m["version"], m["active"]) for m in admin.get("/models").json()["models"]] == [
        ("fedcba9876543210", False),
        ("0123456789abcdef", True),
    ]
    assert admin.post("/models/fedcba9876543210/activate").json()["active"] is True
    episode = create_episode(admin)
    assert (episode["model_version"], episode["steps"]) == ("fedcba9876543210", 7)
    assert admin.get(f"/episodes/{old}").json()["model_version"] == "0123456789abcdef"
    assert admin.post("/models/0123/activate").status_code == 404


def test_the_accepted_options_are_those_of_the_trainer() -> None:
    from lamanas_core.config import PRESETS, TrainingConfig

    properties = TrainBody.model_json_schema()["properties"]

    def values(name: str) -> list[str]:
        choices = properties[name].get("anyOf", [properties[name]])
        return [value for choice in choices for value in choice.get("enum", [])]

    assert sorted(values("preset")) == sorted(PRESETS)
    for name in ("preset", "meta", "loss", "proxy"):
        for value in values(name):
            assert getattr(TrainingConfig.from_request({name: value}), name) == value
    requested = TrainBody(dataset="a", residual=False, meta_epochs=3, ways=5, shots=2, seed=4)
    config = TrainingConfig.from_request(requested.model_dump(exclude={"dataset"}, exclude_none=True))
    assert (config.residual, config.meta_epochs, config.ways, config.shots, config.seed) == (False, 3, 5, 2, 4)
