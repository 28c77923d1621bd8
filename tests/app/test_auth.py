"""Access to every route of the OpenAPI document: without a key, with an unknown one, and with keys of each scope and
of another tenant."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from app.store.clients import SyncStore
from app.store.records import Scope
from tests.app.playing import Worker, b64, png
from tests.app.test_episodes import as_json, create_episode
from tests.app.test_predict import IMAGE

OPEN: frozenset[str] = frozenset()
ANY: frozenset[str] = frozenset({"episodes", "predict", "metrics", "admin"})
EPISODES: frozenset[str] = frozenset({"episodes", "admin"})
PREDICT: frozenset[str] = frozenset({"predict", "admin"})
ADMIN: frozenset[str] = frozenset({"admin"})


@dataclass(frozen=True)
class Access:
    """The scopes that give access to a route (none: it is public), and whether it concerns a single episode."""

    scopes: frozenset[str]
    private: bool = False


ROUTES = {
    "POST /episodes": Access(EPISODES),
    "GET /episodes": Access(EPISODES),
    "GET /episodes/{id}": Access(EPISODES, private=True),
    "GET /episodes/{id}/events": Access(EPISODES, private=True),
    "GET /episodes/{id}/model.onnx": Access(EPISODES, private=True),
    "GET /episodes/{id}/support": Access(EPISODES, private=True),
    "GET /episodes/{id}/thumbnail.png": Access(EPISODES, private=True),
    "POST /episodes/{id}/support": Access(EPISODES, private=True),
    "DELETE /episodes/{id}": Access(EPISODES, private=True),
    "GET /predict": Access(PREDICT, private=True),
    "POST /predict": Access(PREDICT, private=True),
    "POST /train": Access(ADMIN),
    "GET /train": Access(ADMIN),
    "GET /train/{id}": Access(ADMIN),
    "GET /train/{id}/events": Access(ADMIN),
    "POST /train/{id}/cancel": Access(ADMIN),
    "POST /train/{id}/resume": Access(ADMIN),
    "GET /models": Access(ANY),
    "POST /session": Access(ANY),
    "GET /session": Access(ANY),
    "DELETE /session": Access(ANY),
    "GET /examples": Access(OPEN),
    "POST /models/{version}/activate": Access(ADMIN),
    "GET /queues": Access(ADMIN),
    "GET /healthz": Access(OPEN),
    "GET /readyz": Access(OPEN),
    "GET /metrics": Access(OPEN),
    "GET /metrics/installation": Access(OPEN),
}
CLOSED = [route for route, access in ROUTES.items() if access.scopes]
PRIVATE = [route for route, access in ROUTES.items() if access.private]
SCOPES: tuple[Scope, ...] = ("episodes", "predict", "metrics", "admin")


def call(client: TestClient, route: str, token: str | None, id: str = "0" * 26) -> Any:
    method, path = route.split()
    request: dict[str, Any] = {}
    if route == "POST /episodes":
        request = as_json()
    elif route == "POST /episodes/{id}/support":
        request = {"json": {"remove": [0]}}
    elif route == "GET /predict":
        request = {"params": {"episode_id": id, "image": IMAGE}}
    elif route == "POST /predict":
        request = {"json": {"episode_id": id, "images": [b64(png(0))]}}
    elif route == "POST /train":
        request = {"json": {"dataset": "symbols"}}
    headers = {"Authorization": token} if token else {}
    return client.request(method, path.format(id=id, version="0" * 16), headers=headers, **request)


def test_every_route_is_in_the_table(settings: Settings) -> None:
    paths = create_app(settings).openapi()["paths"]
    described = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert described == set(ROUTES)


@pytest.mark.parametrize("route", CLOSED)
def test_a_missing_or_unknown_token_is_401(route: str, anonymous: TestClient, sync_store: SyncStore) -> None:
    key, revoked = sync_store.api_keys.create("old", SCOPES)
    sync_store.api_keys.revoke(key.id)
    for sent in (None, "", "Basic YTpi", f"Basic {revoked}"):
        answer = call(anonymous, route, sent)
        assert (answer.status_code, answer.json()["type"]) == (401, "/problems/missing-token")
        assert answer.headers["www-authenticate"] == 'Bearer realm="lamanas"'
    for sent in ("Bearer lam_wrong", f"Bearer {revoked}", f"Bearer {revoked[:-1]}"):
        answer = call(anonymous, route, sent)
        assert (answer.status_code, answer.json()["type"]) == (401, "/problems/invalid-token")
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("route", CLOSED)
@pytest.mark.parametrize("scope", SCOPES)
def test_a_scope_grants_access_only_to_its_routes(
    scope: Scope, route: str, anonymous: TestClient, token: Callable[..., str]
) -> None:
    answer = call(anonymous, route, f"Bearer {token(scope)}")
    if scope in ROUTES[route].scopes:
        assert answer.status_code in (200, 202, 204, 404)
    else:
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems/missing-scope")
        assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("route", [route for route, access in ROUTES.items() if not access.scopes])
def test_public_routes_need_no_token(route: str, anonymous: TestClient) -> None:
    assert call(anonymous, route, None).status_code in (200, 503)


@pytest.mark.parametrize("route", PRIVATE)
def test_an_episode_of_another_tenant_is_404_except_for_an_admin(
    route: str, client: TestClient, worker: Worker, token: Callable[..., str]
) -> None:
    id = create_episode(client)["id"]
    worker.adapt(id)
    other, admin = token("episodes", "predict"), token("admin")
    mine = str(client.headers["Authorization"])
    refused = call(client, route, f"Bearer {other}", id)
    assert (refused.status_code, refused.json()["detail"]) == (404, f"there is no episode {id}")
    for allowed in (mine, f"Bearer {admin}"):
        id = id if route != "DELETE /episodes/{id}" else create_episode(client)["id"]
        assert call(client, route, allowed, id).status_code in (200, 202, 204)


def test_a_key_lists_its_own_episodes_and_an_admin_lists_all(client: TestClient, token: Callable[..., str]) -> None:
    id = create_episode(client)["id"]
    other, admin = (f"Bearer {token(scope)}" for scope in ("episodes", "admin"))
    assert call(client, "GET /episodes", other).json()["episodes"] == []
    assert [episode["id"] for episode in call(client, "GET /episodes", admin).json()["episodes"]] == [id]


def test_keys_of_one_tenant_share_its_episodes(
    anonymous: TestClient, worker: Worker, token: Callable[..., str]
) -> None:
    anonymous.headers["Authorization"] = f"Bearer {token('episodes', tenant='shop')}"
    id = create_episode(anonymous)["id"]
    worker.adapt(id)
    camera, stranger = (f"Bearer {token('predict', tenant=tenant)}" for tenant in ("shop", "shopping"))
    assert call(anonymous, "GET /predict", camera, id).status_code == 200
    assert call(anonymous, "POST /predict", camera, id).status_code == 200
    assert call(anonymous, "GET /episodes/{id}", camera, id).status_code == 403
    assert call(anonymous, "GET /predict", stranger, id).status_code == 404


def test_an_unauthenticated_request_is_refused_before_its_body_is_read(anonymous: TestClient) -> None:
    answer = anonymous.post("/episodes", content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code == 401
