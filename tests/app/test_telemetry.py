"""Logs and traces of a request in the app and, through the store, in the worker."""

import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.store.clients import SyncStore
from app.telemetry import logs, tracing
from tests.app.test_episodes import as_json, create_episode
from tests.conftest import ROOT


@pytest.fixture
def lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The log lines so far, parsed."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonLines("app"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.removeHandler(handler)
    root.setLevel(level)


Lines = Callable[[], list[dict[str, Any]]]


def test_a_request_logs_one_line_with_its_id_key_and_episode(client: TestClient, lines: Lines) -> None:
    id = create_episode(client)["id"]
    answer = client.get(f"/episodes/{id}", headers={"X-Request-ID": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    requests = [line for line in lines() if line["logger"] == "app.telemetry.requests"]
    first, second = requests
    assert (second["request_id"], second["episode"], second["status"], second["method"]) == ("mine-1", id, 200, "GET")
    assert {"time", "level", "process", "message", "seconds", "key"} <= second.keys()
    assert re.fullmatch(r"[0-9a-f]{16}", first["request_id"])


@pytest.mark.parametrize("given", ["", "two words", "x" * 65, "a\tb", '"', "é"])
def test_an_invalid_request_id_is_replaced(given: str, anonymous: TestClient) -> None:
    answer = anonymous.get("/healthz", headers={"X-Request-ID": given.encode("latin-1")})
    assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["x-request-id"])


def test_error_responses_have_the_id_and_logs_contain_no_tokens_or_images(client: TestClient, lines: Lines) -> None:
    image = as_json()["json"]["support"][0]["image"].rstrip("=").replace("+", "-").replace("/", "_")
    answer = client.get("/predict", params={"episode_id": "0" * 26, "image": image})
    assert answer.status_code == 404
    assert answer.headers["x-request-id"]
    logged = json.dumps([line for line in lines() if line["logger"].startswith("app")])
    assert image not in logged
    assert client.headers["Authorization"].removeprefix("Bearer ") not in logged


def test_monitoring_requests_are_not_logged(anonymous: TestClient, lines: Lines) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        anonymous.get(path)
    assert [line for line in lines() if line["logger"] == "app.telemetry.requests"] == []


def test_the_id_is_passed_to_the_worker_and_not_to_clients(client: TestClient, sync_store: SyncStore) -> None:
    answer = client.post("/episodes", **as_json(), headers={"X-Request-ID": "mine-2"})
    claim = sync_store.claims.claim("episode", answer.json()["id"], "played")
    assert claim is not None
    assert claim.record.request_id == "mine-2"
    assert "mine-2" not in answer.text


def test_an_exception_is_part_of_its_log_line(lines: Lines) -> None:
    with logs.with_fields(request_id="r", episode=None):
        try:
            raise ValueError("line one\nline two")
        except ValueError:
            logging.getLogger("x").exception("met")
    (line,) = lines()
    assert (line["request_id"], line["level"]) == ("r", "error")
    assert "line two" in line["error"]
    assert "episode" not in line


# ---------------------------------------------------------------------- traces

TRACED = """
import sys
from app.main import create_app
from app.telemetry import tracing
tracing.set_up("app")
with tracing.span("outer", "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01", n=1):
    print(tracing.current())
print([name for name in sys.modules if name.startswith("opentelemetry.exporter")][:1])
"""


def traced(**environment: str) -> list[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", TRACED],
        cwd=ROOT,
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.splitlines()


def test_without_its_variables_opentelemetry_is_not_imported() -> None:
    assert traced() == ["None", "[]"]


def test_with_its_variables_spans_are_sent_and_the_trace_is_continued() -> None:
    got = threading.Event()
    paths: list[str] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()
            got.set()

        def log_message(self, *_: object) -> None:
            """Logs nothing."""

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    current, loaded = traced(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{server.server_port}")
    assert got.wait(30)
    server.shutdown()
    thread.join()
    server.server_close()
    assert re.fullmatch(r"00-(ab){16}-[0-9a-f]{16}-01", current)
    assert not current.endswith("cd" * 8 + "-01")
    assert "opentelemetry" in loaded
    assert paths == ["/v1/traces"]


def test_a_span_without_tracing_does_nothing() -> None:
    with tracing.span("x"):
        assert tracing.current() is None
