"""Metrics: of each app process, which add up, and of the installation, which are the same from any of them."""

import subprocess
import sys
from functools import partial
from itertools import takewhile
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from app.main import create_app
from app.settings import SHARED, Settings
from app.store import keys
from app.store.claims import MAX_ATTEMPTS
from app.store.clients import SyncStore
from app.store.objects import Objects
from tests.app import playing
from tests.app.playing import Worker, png
from tests.app.test_episodes import create_episode
from tests.app.test_predict import predict
from tests.chaos.waiting import until
from tests.conftest import ROOT, PrivateRedis

INSTALLATION = "/metrics/installation"


def samples(client: TestClient, path: str = INSTALLATION) -> dict[tuple[str, ...], float]:
    """The value of each sample by its name and the values of its labels, sorted by the names of the labels."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(client.get(path).text)
        for sample in family.samples
    }


def test_the_app_exposes_the_measurements_of_workers(client: TestClient, sync_store: SyncStore, worker: Worker) -> None:
    worker.send_heartbeat()
    add = sync_store.workers.add_measurements
    add({"queue_wait": [0.004, 0.2], "adapt_step": [0.03] * 3 + [1000.0], "adapt": [0.5]})
    add({"queue_wait": [7.0], "adapt_step": [], "adapt": [0.7]})
    exposed = samples(client)
    assert exposed["lamanas_queue_wait_seconds_bucket", "0.005"] == 1
    assert exposed["lamanas_queue_wait_seconds_bucket", "10.0"] == 3
    assert exposed[("lamanas_queue_wait_seconds_count",)] == 3
    assert exposed[("lamanas_queue_wait_seconds_sum",)] == pytest.approx(7.204)
    assert exposed["lamanas_adapt_step_seconds_bucket", "0.05"] == 3
    assert exposed["lamanas_adapt_step_seconds_bucket", "300.0"] == 3
    assert exposed["lamanas_adapt_step_seconds_bucket", "+Inf"] == 4
    assert exposed[("lamanas_adapt_seconds_sum",)] == pytest.approx(1.2)
    assert 0 <= exposed["lamanas_worker_heartbeat_age_seconds", "adapt"] < 5


def test_the_app_exposes_the_progress_of_a_training_run(admin: TestClient, sync_store: SyncStore) -> None:
    assert str(samples(admin)[("lamanas_training_epoch",)]) == "nan"
    id = admin.post("/train", json={"dataset": "symbols"}).json()["id"]
    claim = sync_store.claims.claim("training", id, "played")
    assert claim is not None
    progress = {"epoch": 2, "epochs": 3, "loss": 0.5, "validation_accuracy": 0.9}
    sync_store.claims.report_progress(claim, progress, epoch=2)
    exposed = samples(admin)
    names = ("epoch", "epochs", "loss", "validation_accuracy")
    assert [exposed[(f"lamanas_training_{name}",)] for name in names] == [2, 3, 0.5, 0.9]
    assert exposed["lamanas_running", "train"] == 1
    assert id not in admin.get("/metrics/installation").text


def names(text: str) -> set[str]:
    return {family.name for family in text_string_to_metric_families(text)}


def test_app_processes_add_up_and_the_installation_is_the_same_from_each(
    settings: Settings, client: TestClient, worker: Worker
) -> None:
    id = create_episode(client)["id"]
    worker.adapt(id)
    with TestClient(create_app(settings), headers=dict(client.headers)) as other:
        for app, images in ((client, 2), (other, 3)):
            assert predict(app, id, *[png(0)] * images).status_code == 200
        classified = ("lamanas_predictions_total", "0123456789abcdef", "unjudged")
        assert [samples(app, "/metrics")[classified] for app in (client, other)] == [2, 3]
        one, same = (samples(app) for app in (client, other))
        for moving in ("lamanas_store_bytes", "lamanas_worker_heartbeat_age_seconds"):
            one, same = ({name: value for name, value in each.items() if name[0] != moving} for each in (one, same))
        # (The four of a training run that does not exist are no numbers.)
        assert {name for name in one if one[name] != same[name]} == {
            (f"lamanas_training_{each}",) for each in ("epoch", "epochs", "loss", "validation_accuracy")
        }
        assert not names(client.get("/metrics").text) & names(client.get(INSTALLATION).text)


def test_what_became_of_jobs_is_counted(admin: TestClient, sync_store: SyncStore, worker: Worker) -> None:
    counted = samples(admin)
    assert counted["lamanas_jobs_ended_total", "episode", "failed"] == 0  # from the start, so that the first is seen
    worker.adapt(create_episode(admin)["id"])
    worker.fail(create_episode(admin)["id"], "no")
    id = create_episode(admin)["id"]
    for _ in range(MAX_ATTEMPTS):
        assert sync_store.claims.retry(worker.claim(id), "error")
    handed_back = create_episode(admin)["id"]
    assert sync_store.claims.hand_back(worker.claim(handed_back))
    counted = samples(admin)
    outcomes = ("done", "failed", "cancelled")
    assert [counted["lamanas_jobs_ended_total", "episode", outcome] for outcome in outcomes] == [1, 2, 0]
    assert counted["lamanas_retries_total", "episode", "error"] == MAX_ATTEMPTS - 1
    assert counted["lamanas_retries_total", "episode", "worker-lost"] == 0


def test_what_became_of_training_runs_is_counted(admin: TestClient, sync_store: SyncStore) -> None:
    ids = [admin.post("/train", json={"dataset": "symbols"}).json()["id"] for _ in range(4)]
    assert admin.post(f"/train/{ids[0]}/cancel").status_code == 202
    running = [sync_store.claims.claim("training", id, "played") for id in ids[1:]]
    cancelled, finished, failed = (claim for claim in running if claim is not None)
    assert admin.post(f"/train/{cancelled.id}/cancel").status_code == 202
    assert sync_store.claims.cancelled(cancelled)
    assert sync_store.claims.commit_training(finished, "fedcba9876543210", b"weights", playing.CARD)
    assert sync_store.claims.fail(failed, "no")
    counted = samples(admin)
    outcomes = ("done", "failed", "cancelled")
    assert [counted["lamanas_jobs_ended_total", "training", outcome] for outcome in outcomes] == [1, 1, 2]


def test_lost_workers_are_counted(
    admin: TestClient, sync_store: SyncStore, worker: Worker, server: PrivateRedis
) -> None:
    def lose(kind: keys.Kind, id: str) -> None:
        assert sync_store.claims.claim(kind, id, "played")
        server.client.zadd(keys.leases(kind), {id: 0})
        sync_store.reconciliation.due(kind)

    id = create_episode(admin)["id"]
    for _ in range(MAX_ATTEMPTS):
        lose("episode", id)
    cancelled = admin.post("/train", json={"dataset": "symbols"}).json()["id"]
    server.client.hset(keys.record("training", cancelled), "cancel", 1)
    lose("training", cancelled)
    counted = samples(admin)
    assert counted["lamanas_retries_total", "episode", "worker-lost"] == MAX_ATTEMPTS - 1
    assert counted["lamanas_jobs_ended_total", "episode", "failed"] == 1
    assert counted["lamanas_jobs_ended_total", "training", "cancelled"] == 1
    assert counted["lamanas_retries_total", "training", "worker-lost"] == 0


def test_classifiers_that_are_dropped_or_lost_and_adapted_again_are_counted(
    settings: Settings, sync_store: SyncStore, client: TestClient, worker: Worker
) -> None:
    dropped, lost = create_episode(client)["id"], create_episode(client)["id"]
    worker.adapt(dropped)
    claim = worker.claim(lost)
    sync_store.claims._max_object_bytes = 1  # nothing fits
    worker.finish(claim)
    sync_store.claims._max_object_bytes = settings.max_object_bytes
    counted = samples(client)
    assert counted[("lamanas_classifiers_dropped_total",)] == 1
    assert counted["lamanas_object_bytes", "classifiers"] > 0  # that of the last one
    Objects.open(settings).delete([each.name for found in Objects.open(settings).all() for each in found])
    for id in (dropped, lost, lost):  # asked twice, it is enqueued once
        assert predict(client, id, png(0)).status_code == 409
    counted = samples(client)
    assert counted["lamanas_readaptations_total", "dropped"] == 1
    assert counted["lamanas_readaptations_total", "lost"] == 1


def test_bytes_are_exposed_with_their_bounds(settings: Settings, client: TestClient, server: PrivateRedis) -> None:
    create_episode(client)
    exposed = samples(client)
    assert exposed["lamanas_object_bytes", "support"] == sum(
        path.stat().st_size for path in settings.objects_dir.glob("support/*")
    )
    assert exposed["lamanas_object_bytes", "classifiers"] == 0
    assert exposed[("lamanas_object_limit_bytes",)] == settings.max_object_bytes
    assert exposed[("lamanas_store_bytes",)] == pytest.approx(server.client.info("memory")["used_memory"], rel=0.2)
    assert exposed[("lamanas_store_limit_bytes",)] == settings.max_store_bytes
    assert exposed[("lamanas_queue_limit",)] == settings.max_queue


def test_how_long_the_oldest_job_waits_is_exposed(admin: TestClient, server: PrivateRedis, worker: Worker) -> None:
    oldest = ("lamanas_oldest_waiting_seconds", "adapt")
    assert samples(admin)[oldest] == 0
    old, other = create_episode(admin)["id"], create_episode(admin)["id"]
    record, queued_at = keys.record("episode", old), "queued_at"
    server.client.hset(record, queued_at, int(server.client.hget(record, queued_at) or 0) - 100_000)
    assert 100 <= samples(admin)[oldest] < 200
    for id in (old, other):
        worker.claim(id)
    assert samples(admin)[oldest] == 0
    run = keys.record("training", admin.post("/train", json={"dataset": "symbols"}).json()["id"])
    server.client.hset(run, "created_at", int(server.client.hget(run, "created_at") or 0) - 100_000)
    assert 100 <= samples(admin)["lamanas_oldest_waiting_seconds", "train"] < 200


@pytest.mark.parametrize(("logit", "outcome"), [(17.0, "unknown"), (0.0, "known")])
def test_unknown_images_are_counted_by_model(
    logit: float, outcome: str, client: TestClient, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playing, "classifier", partial(playing.classifier, novelty_logit=logit))
    id = create_episode(client)["id"]
    worker.adapt(id)
    assert predict(client, id, png(0), png(1)).status_code == 200
    counted = samples(client, "/metrics")
    found = {each: counted["lamanas_predictions_total", "0123456789abcdef", each] for each in ("known", "unknown")}
    assert found == {"known": 0, "unknown": 0} | {outcome: 2}


def test_the_time_that_images_wait_for_a_decoding_process_is_measured(client: TestClient) -> None:
    waits = ("lamanas_decoding_wait_seconds_count",)
    before = samples(client, "/metrics")[waits]
    create_episode(client)
    assert samples(client, "/metrics")[waits] > before == 0


def test_open_streams_and_bytes_in_flight_are_exposed(
    live: str, settings: Settings, client: TestClient, worker: Worker
) -> None:
    id = create_episode(client)["id"]
    with httpx.Client(base_url=live, headers=dict(client.headers)) as http:

        def value(name: str) -> float:
            return {
                sample.name: sample.value
                for family in text_string_to_metric_families(http.get("/metrics").text)
                for sample in family.samples
            }[name]

        assert value("lamanas_open_streams") == 0
        with http.stream("GET", f"/episodes/{id}/events") as stream:
            until(lambda: value("lamanas_open_streams") == 1, "the stream is counted")
            worker.adapt(id)
            stream.read()
        until(lambda: value("lamanas_open_streams") == 0, "the ended stream is not counted")
        assert value("lamanas_in_flight_limit_bytes") == settings.max_bytes_in_flight
        assert value("lamanas_in_flight_bytes") == 0


# Says what it exposes, then goes on until it is killed.
PROCESS = """
import sys
from app.telemetry.metrics import Metrics
metrics = Metrics()
metrics.open_streams.inc(int(sys.argv[1]))
metrics.bytes_in_flight.set(100 * int(sys.argv[1]))
metrics.predictions.labels("model", "known").inc()
print(metrics.exposition().decode() + "end", flush=True)
sys.stdin.read()
"""


def test_processes_that_share_metrics_forget_what_a_killed_one_had_open(tmp_path: Path) -> None:
    """Its counts stay: they did happen."""

    def start(streams: int) -> tuple[subprocess.Popen[str], list[float]]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(streams)],
            env={SHARED: str(tmp_path), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        text = "".join(takewhile(lambda line: line != "end\n", process.stdout))
        found = {
            sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples
        }
        exposed = ("lamanas_open_streams", "lamanas_in_flight_bytes", "lamanas_predictions_total")
        return process, [found[name] for name in exposed]

    first, seen = start(5)
    assert seen == [5, 500, 1]
    second, seen = start(2)
    assert seen == [7, 500, 2]
    first.kill()
    first.communicate()
    third, seen = start(1)
    assert seen == [3, 200, 3]
    for process in (second, third):
        process.kill()
        process.communicate()
