"""The metrics that a real app exports, which rules and panels may ask for."""

import re

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from app.main import create_app
from app.settings import Settings
from app.store.clients import SyncStore
from app.store.records import WorkerRecord

Exported = dict[str, dict[str, set[str]]]


@pytest.fixture
def exported(settings: Settings, sync_store: SyncStore) -> Exported:
    """The labels of each metric and the values that they have so far."""
    for queue in ("adapt", "train"):
        sync_store.workers.heartbeat(WorkerRecord.now(queue, f"{queue}-1", "cpu"))
    with TestClient(create_app(settings)) as client:
        text = "".join(client.get(path).text for path in ("/metrics", "/metrics/installation"))
    found: Exported = {}
    # Also those that have no sample yet.
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        for part in ("_bucket", "_sum", "_count") if kind == "histogram" else ("",):
            found[name + part] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            for label, value in sample.labels.items():
                if sample.name in found:
                    found[sample.name].setdefault(label, set()).add(value)
    return found
