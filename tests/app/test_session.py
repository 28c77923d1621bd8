"""Sessions by cookie, and protection against requests from other sites."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from app.http.auth import SESSION_COOKIE
from app.store.clients import SyncStore
from tests.app.playing import Worker
from tests.app.test_episodes import as_json, create_episode

OURS = {"X-Requested-With": "lamanas"}


@pytest.fixture
def signed_in(anonymous: TestClient, token: Callable[..., str]) -> TestClient:
    answer = anonymous.post("/session", headers={"Authorization": f"Bearer {token('episodes', 'predict')}"})
    limits = {"images": 1000, "classes": 50, "shots": 50, "bytes": 96 * 2**20}
    assert answer.json() == {"name": "test", "scopes": ["episodes", "predict"], "limits": limits}
    return anonymous


def test_the_cookie_is_not_accessible_to_scripts_and_other_sites(
    anonymous: TestClient, token: Callable[..., str]
) -> None:
    headers = {"Authorization": f"Bearer {token('predict')}"}
    attributes = anonymous.post("/session", headers=headers).headers["set-cookie"].lower().split("; ")
    assert {"httponly", "samesite=strict", "path=/"} <= set(attributes)
    assert "secure" not in attributes
    encrypted = anonymous.post("https://testserver/session", headers=headers).headers["set-cookie"].lower()
    assert "secure" in encrypted.split("; ")


def test_the_cookie_alone_allows_reading(signed_in: TestClient) -> None:
    assert signed_in.get("/session").json()["name"] == "test"
    assert signed_in.get("/episodes").status_code == 200


@pytest.mark.parametrize("header", [{}, {"X-Requested-With": "XMLHttpRequest"}])
def test_the_cookie_alone_does_not_allow_changes(header: dict[str, str], signed_in: TestClient) -> None:
    for method, path in (("POST", "/episodes"), ("POST", "/predict"), ("DELETE", "/session"), ("POST", "/session")):
        answer = signed_in.request(method, path, headers=header)
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems/missing-header")
    assert signed_in.get("/episodes").json()["episodes"] == []


def test_the_cookie_with_the_header_allows_what_its_scopes_allow(signed_in: TestClient, worker: Worker) -> None:
    signed_in.headers.update(OURS)
    id = create_episode(signed_in)["id"]
    worker.adapt(id)
    assert "event: ready" in signed_in.get(f"/episodes/{id}/events").text
    assert signed_in.get(f"/episodes/{id}/model.onnx").status_code == 200
    assert signed_in.get("/train").status_code == 403


def test_a_session_cannot_be_created_from_a_cookie(signed_in: TestClient) -> None:
    answer = signed_in.post("/session", headers=OURS)
    assert (answer.status_code, answer.json()["type"]) == (401, "/problems/missing-token")


def test_the_header_takes_precedence_over_the_cookie(signed_in: TestClient, token: Callable[..., str]) -> None:
    assert signed_in.get("/session", headers={"Authorization": f"Bearer {token('admin')}"}).json()["scopes"] == [
        "admin"
    ]
    assert signed_in.get("/session", headers={"Authorization": "Bearer lam_wrong"}).status_code == 401
    assert signed_in.post("/episodes", **as_json(), headers={"Authorization": f"Bearer {token('admin')}"}).is_success


def test_signing_out_deletes_the_cookie(signed_in: TestClient) -> None:
    assert signed_in.delete("/session", headers=OURS).status_code == 204
    assert SESSION_COOKIE not in signed_in.cookies
    assert signed_in.get("/session").status_code == 401


def test_revoking_a_key_ends_its_session(anonymous: TestClient, sync_store: SyncStore) -> None:
    key, token = sync_store.api_keys.create("laptop", ["predict"])
    anonymous.post("/session", headers={"Authorization": f"Bearer {token}"})
    assert anonymous.get("/session").status_code == 200
    sync_store.api_keys.revoke(key.id)
    assert anonymous.get("/session").status_code == 401
