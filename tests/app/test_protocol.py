"""What HTTP asks of every route, whatever it does: HEAD, empty answers, redirects, other sites, connections."""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event
from urllib.parse import urljoin

import httpx
import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from app.images import base64_text
from app.main import create_app
from app.settings import Settings
from app.store.clients import SyncStore
from tests.app.playing import Worker, b64, png
from tests.app.test_episodes import as_json, create_episode
from tests.app.test_session import OURS
from tests.conftest import test_settings
from tests.waiting import PATIENCE_S

GET_PATHS = ["/", "/docs", "/static/main.js", "/openapi.json", "/examples", "/healthz", "/episodes", "/models"]


def test_an_empty_answer_has_no_content_type(client: TestClient, token: Callable[..., str]) -> None:
    deleted = client.delete(f"/episodes/{create_episode(client)['id']}")
    client.post("/session", headers={"Authorization": f"Bearer {token('predict')}"})
    for answer in (deleted, client.delete("/session", headers=OURS)):
        assert answer.status_code == 204
        assert "content-type" not in answer.headers


@pytest.mark.parametrize("path", [*GET_PATHS, "/readyz", "/nowhere", "/train"])
def test_head_has_the_headers_of_get(path: str, client: TestClient) -> None:
    wanted, answer = client.get(path), client.head(path)
    assert (answer.status_code, answer.content) == (wanted.status_code, b"")
    for name in ("content-type", "content-length", "cache-control"):
        assert answer.headers.get(name) == wanted.headers.get(name)


def test_head_of_a_route_without_get_is_not_allowed(client: TestClient) -> None:
    answer = client.head("/train/x/cancel")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert client.put("/models").headers["allow"] == "GET, HEAD"


def test_head_of_events_ends_at_once(client: TestClient, live: str) -> None:
    id = create_episode(client)["id"]  # never adapted: its stream has no end
    headers = {"Authorization": client.headers["Authorization"]}
    answer = httpx.head(f"{live}/episodes/{id}/events", headers=headers, timeout=20)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")


def test_head_is_counted_by_its_route(client: TestClient) -> None:
    client.head("/models")
    counted = 'lamanas_http_requests_total{method="HEAD",route="/models",status="200"} 1.0'
    assert counted in client.get("/metrics").text


@pytest.mark.parametrize("path", ["/episodes/", "/healthz/", "/docs/", "/models/?x=1", "/train/a%3Ab%25/"])
def test_a_trailing_slash_redirects_to_the_same_place_without_it(path: str, client: TestClient) -> None:
    answer = client.get(path, follow_redirects=False)
    assert answer.status_code == 307
    shown = f"https://proxy.example/lamanas{path}"  # what the browser asked a proxy for
    assert urljoin(shown, answer.headers["location"]) == shown.replace("/?", "?").removesuffix("/")


def test_a_trailing_slash_of_an_unknown_path_is_no_redirect(client: TestClient) -> None:
    for path in ("/nowhere/", "/episodes//"):
        assert client.get(path, follow_redirects=False).status_code == 404


def test_a_new_record_is_found_relative_to_the_request(admin: TestClient, worker: Worker) -> None:
    answer = admin.post("/episodes", **as_json())
    id = answer.json()["id"]
    assert urljoin("https://proxy.example/lamanas/episodes", answer.headers["location"]).endswith(
        f"/lamanas/episodes/{id}"
    )
    worker.adapt(id)
    corrected = admin.post(f"/episodes/{id}/support", json={"remove": [0]})
    shown = urljoin(f"https://proxy.example/lamanas/episodes/{id}/support", corrected.headers["location"])
    assert shown == f"https://proxy.example/lamanas/episodes/{corrected.json()['id']}"
    run = admin.post("/train", json={"dataset": "symbols"})
    shown = urljoin("https://proxy.example/lamanas/train", run.headers["location"])
    assert shown == f"https://proxy.example/lamanas/train/{run.json()['id']}"


# ---------------------------------------------------------------------- base64


WRAPPED = re.sub(r"(.{76})", r"\1\r\n", b64(png(0) + b" " * 100))


@pytest.mark.parametrize(
    "text",
    [
        f"data:image/png;base64,{b64(png(0))}",
        f"DATA:image/png;charset=utf-8;BASE64,{b64(png(0))}",
        f"data:;base64,\n\t{WRAPPED}",
        "data:image/png;base64," + b64(png(0)).replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
        WRAPPED,
        b64(png(0)) + "\n",
    ],
)
def test_data_urls_and_wrapped_base64_are_read(text: str, client: TestClient, worker: Worker) -> None:
    id = create_episode(client, json={"support": [{"label": "a", "image": text}, {"label": "b", "image": b64(png(1))}]})
    worker.adapt(id["id"])
    body = {"episode_id": id["id"], "images": [text]}
    assert client.post("/predict", json=body).json()["predictions"][0]["label"] == "a"
    asked = client.get("/predict", params={"episode_id": id["id"], "image": text})
    assert asked.json()["predictions"][0]["label"] == "a", asked.text


def test_plus_signs_that_a_url_turns_into_spaces_are_read(client: TestClient, worker: Worker) -> None:
    id = create_episode(client)["id"]
    worker.adapt(id)
    image = next(text for seed in range(50) if "+" in (text := b64(png(1, seed) + b"\xfb\xef\xbe")))
    assert client.get(f"/predict?episode_id={id}&image={image}").status_code == 200


@pytest.mark.parametrize("text", ["data:image/png,abcd", "data:image/png;base64", "data:image/png;base64,?", "ab cd!"])
def test_what_is_no_base64_is_refused(text: str, client: TestClient) -> None:
    answer = client.post(
        "/predict",
        content=json.dumps({"episode_id": "x", "images": [text]}),
        headers={"Content-Type": "application/json"},
    )
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-base64")


def test_long_base64_does_not_block_other_requests(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, entered, go_on = base64_text.decode, Event(), Event()

    def waits(text: str) -> bytes:
        entered.set()
        assert go_on.wait(PATIENCE_S)
        return decode(text)

    monkeypatch.setattr(base64_text, "decode", waits)
    long = b64(bytes(2**16))
    for path, body in (
        ("/episodes", {"support": [{"label": "a", "image": long}, {"label": "b", "image": long}]}),
        ("/predict", {"episode_id": "x", "images": [long]}),
    ):
        entered.clear()
        go_on.clear()
        with ThreadPoolExecutor(2) as pool:
            answer = pool.submit(client.post, path, json=body)
            try:
                assert entered.wait(PATIENCE_S)
                assert pool.submit(client.get, "/healthz").result(timeout=10).status_code == 200
            finally:
                go_on.set()
            assert answer.result(PATIENCE_S).status_code in (404, 422)


# ---------------------------------------------------------------------- other sites, proxies and connections

ELSEWHERE = {"Origin": "https://elsewhere.example"}


@pytest.fixture
def serving(settings: Settings, sync_store: SyncStore) -> Iterator[Callable[..., TestClient]]:
    """Opens an app with these settings."""
    with ExitStack() as opened:
        yield lambda **values: opened.enter_context(
            TestClient(create_app(Settings.model_validate(settings.model_dump() | values)))
        )


def test_other_sites_have_no_access_by_default(client: TestClient) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    preflight, answer = (
        client.options("/predict", headers=ELSEWHERE | asked),
        client.get("/episodes", headers=ELSEWHERE),
    )
    for each in (preflight, answer):
        assert not [name for name in each.headers if name.startswith("access-control")]


def test_sites_that_are_named_have_access_by_token(
    serving: Callable[..., TestClient], token: Callable[..., str]
) -> None:
    client = serving(cors_origins="https://other.example, https://elsewhere.example")
    asked = {
        "Access-Control-Request-Method": "DELETE",
        "Access-Control-Request-Headers": "authorization, content-type, idempotency-key, if-none-match, prefer",
    }
    preflight = client.options("/episodes/x", headers=ELSEWHERE | asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://elsewhere.example"
    assert "DELETE" in preflight.headers["access-control-allow-methods"]
    headers = ELSEWHERE | {"Authorization": f"Bearer {token('episodes')}"}
    answer = client.post("/episodes", **as_json(), headers=headers)
    assert answer.headers["access-control-allow-origin"] == "https://elsewhere.example"
    shown = answer.headers["access-control-expose-headers"].lower()
    assert all(name in shown for name in ("location", "retry-after", "etag", "x-request-id", "idempotency-replayed"))
    # Errors can be read as well, those of the outermost limits included.
    for refused in (client.get("/episodes", headers=ELSEWHERE), client.get(f"/{'x' * 7000}", headers=ELSEWHERE)):
        assert refused.status_code in (401, 414)
        assert refused.headers["access-control-allow-origin"] == "https://elsewhere.example"


def test_no_other_site_has_access_by_cookie(serving: Callable[..., TestClient]) -> None:
    client = serving(cors_origins="*")
    answer = client.get("/healthz", headers=ELSEWHERE)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-requested-with"}
    assert client.options("/session", headers=ELSEWHERE | asked).status_code == 400


@pytest.mark.parametrize(
    "origins", ["elsewhere.example", "https://elsewhere.example/page", "ftp://x", "https://", "a,*"]
)
def test_what_is_no_origin_is_refused_at_startup(origins: str, settings: Settings) -> None:
    with pytest.raises(ValidationError, match=r"https://app\.example\.org"):
        test_settings(settings.data_dir, cors_origins=origins)


@pytest.mark.parametrize(
    "headers",
    [{"X-Forwarded-Proto": "https"}, {"X-Forwarded-Proto": "https, http"}, {"Origin": "https://here.example"}],
)
def test_the_cookie_is_secure_behind_a_proxy_with_tls(
    headers: dict[str, str], anonymous: TestClient, token: Callable[..., str]
) -> None:
    sent = headers | {"Authorization": f"Bearer {token('predict')}"}
    answer = anonymous.post("/session", headers=sent)
    assert "secure" in answer.headers["set-cookie"].lower().split("; ")
