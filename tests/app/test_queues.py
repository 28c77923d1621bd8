"""The state of queues and workers that an operator can read."""

from fastapi.testclient import TestClient

from tests.app.playing import Worker
from tests.app.test_episodes import create_episode
from tests.app.test_training import started


def test_queues_list_waiting_and_running_jobs_and_workers(admin: TestClient, worker: Worker) -> None:
    idle = {"waiting": 0, "running": 0, "workers": []}
    assert admin.get("/queues").json() == {"queues": [{"name": name} | idle for name in ("adapt", "train")]}
    worker.send_heartbeat()
    first = create_episode(admin)["id"]
    create_episode(admin)
    started(admin)
    claim = worker.claim(first)
    adapt, train = admin.get("/queues").json()["queues"]
    played = {"name": "played", "device": "cpu", "started_at": "1970-01-01T00:00:00Z"}
    assert adapt == {"name": "adapt", "waiting": 1, "running": 1, "workers": [played]}
    assert train == {"name": "train", "waiting": 1, "running": 0, "workers": []}
    worker.finish(claim)
    assert admin.get("/queues").json()["queues"][0]["running"] == 0
