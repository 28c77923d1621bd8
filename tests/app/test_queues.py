"""What an operator is told of queues and workers."""

from fastapi.testclient import TestClient

from tests.app.playing import Worker
from tests.app.test_episodes import made
from tests.app.test_training import started


def test_queues_list_waiting_and_running_jobs_and_workers(admin: TestClient, worker: Worker) -> None:
    idle = {"waiting": 0, "running": 0, "workers": []}
    assert admin.get("/queues").json() == {"queues": [{"name": name} | idle for name in ("adapt", "train")]}
    worker.arrive()
    first = made(admin)["id"]
    made(admin)
    started(admin)
    claim = worker.claim(first)
    adapt, train = admin.get("/queues").json()["queues"]
    played = {"name": "played", "device": "cpu", "started_at": "1970-01-01T00:00:00Z"}
    assert adapt == {"name": "adapt", "waiting": 1, "running": 1, "workers": [played]}
    assert train == {"name": "train", "waiting": 1, "running": 0, "workers": []}
    worker.finish(claim)
    assert admin.get("/queues").json()["queues"][0]["running"] == 0
