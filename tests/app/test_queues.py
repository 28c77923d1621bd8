"""The state of queues and workers that an operator can read."""

from fastapi.testclient import TestClient

from app.store.clients import SyncStore
from tests.app.playing import Worker
from tests.app.test_episodes import create_episode
from tests.app.test_training import started


def test_queues_list_waiting_and_running_jobs_and_workers(
    admin: TestClient, worker: Worker, sync_store: SyncStore
) -> None:
    idle = {"waiting": 0, "running": 0, "workers": [], "starting": 0}
    assert admin.get("/queues").json() == {"queues": [{"name": name} | idle for name in ("adapt", "train")]}
    sync_store.workers.announce("train", "late")
    sync_store.workers.announce("adapt", "played")
    assert [queue["starting"] for queue in admin.get("/queues").json()["queues"]] == [1, 1]
    worker.send_heartbeat()
    first = create_episode(admin)["id"]
    create_episode(admin)
    started(admin)
    claim = worker.claim(first)
    adapt, train = admin.get("/queues").json()["queues"]
    played = {"name": "played", "device": "cpu", "started_at": "1970-01-01T00:00:00Z"}
    assert adapt == {"name": "adapt", "waiting": 1, "running": 1, "workers": [played], "starting": 0}
    assert train == {"name": "train", "waiting": 1, "running": 0, "workers": [], "starting": 1}
    worker.finish(claim)
    assert admin.get("/queues").json()["queues"][0]["running"] == 0
