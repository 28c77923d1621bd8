"""How the meta-model of a new episode is chosen, and the reason that its client gets."""

import asyncio
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.images import judging
from app.images.files import ImageFile
from app.images.judging import Decoded, decode_support
from app.images.pool import Decoder
from app.routes import episodes
from app.store import keys
from app.store.clients import SyncStore
from lamanas_core.config import PRESETS
from lamanas_core.image_kinds import JUDGED
from lamanas_core.image_spec import ImageKind, ImageSpec
from lamanas_core.images import UInt8Array, load
from tests.app.playing import CARD, SPEC, Worker, b64, png, support
from tests.conftest import PrivateRedis

DRAWINGS, PHOTOS, OTHER = "0123456789abcdef", "fedcba9876543210", "00000000aaaaaaaa"
COLOUR = PRESETS["rgb84"].network.image
DOMAIN = {"domain": {"name": "drawings of a test", "ink": [0.0, 1.0]}}


def card(spec: ImageSpec, **more: Any) -> dict[str, Any]:
    return CARD | {"config": CARD["config"] | {"image": asdict(spec)}} | more


@pytest.fixture
def photos(sync_store: SyncStore) -> None:
    """An active model for photos, beside the one for drawings."""
    sync_store.models.register(PHOTOS, b"weights", card(COLOUR))


@pytest.fixture
def warning(sync_store: SyncStore, client: TestClient) -> None:
    """An active model for drawings whose card says what it was trained on."""
    sync_store.models.register(OTHER, b"weights", card(SPEC, **DOMAIN))
    sync_store.models._redis.hset(keys.ACTIVE_MODELS, "drawings", OTHER)


def photo(seed: int) -> bytes:
    tones = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(tones).resize((120, 90), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def of_photos(shots: int = 2) -> list[dict[str, str]]:
    return [{"label": f"class {n % 2}", "image": b64(photo(n))} for n in range(2 * shots)]


def created(client: TestClient, images: list[dict[str, str]], **options: Any) -> dict[str, Any]:
    answer = client.post("/episodes", json={"support": images} | options)
    assert answer.status_code == 202, answer.text
    episode: dict[str, Any] = answer.json()
    return episode


def chosen(episode: dict[str, Any]) -> tuple[Any, ...]:
    return episode["model_version"], episode["model_kind"], episode["model_reason"]


@pytest.mark.usefixtures("photos")
def test_images_choose_the_model(client: TestClient, worker: Worker) -> None:
    drawn, taken = created(client, support()), created(client, of_photos(), model="auto")
    assert chosen(drawn) == (DRAWINGS, "drawings", "the images are strokes on a plain ground")
    assert chosen(taken) == (PHOTOS, "photos", "the images have half-tones throughout")
    assert drawn["warnings"] == taken["warnings"] == []
    assert worker.store.claims.support(worker.claim(drawn["id"]))[0].shape == (4, *SPEC.shape)
    assert worker.store.claims.support(worker.claim(taken["id"]))[0].shape == (4, *COLOUR.shape)
    assert chosen(client.get(f"/episodes/{taken['id']}").json()) == chosen(taken)


@pytest.mark.usefixtures("photos")
def test_a_request_can_choose_a_kind_or_a_version(client: TestClient, sync_store: SyncStore) -> None:
    sync_store.models.register(OTHER, b"weights", card(SPEC))
    drawn = created(client, of_photos(), model="drawings")
    assert chosen(drawn) == (DRAWINGS, "drawings", "the request asks for drawings")
    assert chosen(created(client, support(), model="photos"))[:2] == (PHOTOS, "photos")
    assert chosen(created(client, of_photos(), model=OTHER)) == (OTHER, "drawings", f"the request asks for {OTHER}")


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("archive", [False, True])
def test_forms_and_archives_choose_as_well(client: TestClient, archive: bool) -> None:
    files = [(f"{n % 2}", f"{n}.png", png(n % 2)) for n in range(4)]
    data: dict[str, Any] = {"model": "photos"}
    if archive:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as packed:
            for label, name, content in files:
                packed.writestr(f"{label}/{name}", content)
        sent: list[Any] = [("archive", ("a.zip", buffer.getvalue()))]
    else:
        sent = [("images", (name, content)) for _, name, content in files]
        data["labels"] = [label for label, _, _ in files]
    answer = client.post("/episodes", data=data, files=sent)
    assert chosen(answer.json()) == (PHOTOS, "photos", "the request asks for photos")


def test_without_a_model_for_photos_auto_means_drawings(client: TestClient, warning: None) -> None:
    episode = created(client, of_photos())
    assert chosen(episode) == (OTHER, "drawings", "there is only a model for drawings")
    (words,) = episode["warnings"]
    assert words == (
        "These look like photos: the images have half-tones throughout. The model was trained on drawings (drawings of "
        "a test), and tells photos apart hardly better than by chance. Send drawings, characters or symbols: dark "
        "strokes on a plain light ground, or the reverse."
    )
    assert created(client, support())["warnings"] == []


def test_photos_for_the_model_for_drawings_are_warned_of(
    client: TestClient, warning: None, photos: None, worker: Worker
) -> None:
    assert created(client, of_photos())["warnings"] == []
    episode = created(client, of_photos(), model="drawings")
    (words,) = episode["warnings"]
    assert words.endswith("hardly better than by chance. Create the episode with `model: photos`.")
    worker.adapt(episode["id"])
    answer = client.post(f"/episodes/{episode['id']}/support", json={"remove": [0]})
    assert chosen(answer.json()) == (OTHER, "drawings", "it is that of the episode that this one corrects")
    assert answer.json()["warnings"] == [words]


@pytest.mark.parametrize(
    ("asked", "status", "detail"),
    [
        (OTHER, 422, f"model: '{OTHER}' is neither auto"),
        ("drawings", 503, "the active meta-model was replaced and removed meanwhile"),
    ],
)
def test_a_model_that_is_removed_before_its_episode_is_stored_is_as_one_that_does_not_exist(
    asked: str,
    status: int,
    detail: str,
    client: TestClient,
    sync_store: SyncStore,
    server: PrivateRedis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def removed(*given: Any) -> Decoded:
        server.client.delete(keys.model(DRAWINGS), keys.model(OTHER))
        return await decode_support(*given)

    sync_store.models.register(OTHER, b"weights", card(SPEC))
    monkeypatch.setattr(episodes, "decode_support", removed)
    answer = client.post("/episodes", json={"support": support(), "model": asked})
    assert (answer.status_code, answer.json().get("field")) == (status, "model" if status == 422 else None)
    assert answer.json()["detail"].startswith(detail)


@pytest.mark.parametrize(
    ("asked", "detail"),
    [
        ("photos", "model: there is no model for photos"),
        ("0" * 16, "model: '0000000000000000' is neither auto, drawings or photos nor a version that GET /models"),
        ("", "model: '' is neither auto"),
    ],
)
def test_a_model_that_does_not_exist_is_422(client: TestClient, asked: str, detail: str) -> None:
    answer = client.post("/episodes", json={"support": support(), "model": asked})
    assert (answer.status_code, answer.json()["field"]) == (422, "model")
    assert answer.json()["detail"].startswith(detail)


class Recording(Decoder):
    """Records how many files are decoded for which specs."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, list[ImageSpec]]] = []

    async def arrays_for(self, key: str, files: Sequence[ImageFile], specs: Sequence[ImageSpec]) -> list[UInt8Array]:
        self.calls.append((len(files), list(specs)))
        return [np.zeros((len(files), *spec.shape), np.uint8) for spec in specs]


@pytest.mark.parametrize(
    ("most", "calls"),
    [
        (judging.SMALL, [(32, [JUDGED]), (40, [SPEC])]),
        (judging.SMALL + 32, [(32, [JUDGED, SPEC, COLOUR]), (8, [SPEC])]),
    ],
)
def test_small_files_are_judged_first_and_large_ones_are_not_decoded_twice(
    most: int, calls: list[tuple[int, list[ImageSpec]]]
) -> None:
    files = [ImageFile(bytes(most // 32), f"support[{n}]") for n in range(40)]
    decoder = Recording()
    specs: dict[ImageKind, ImageSpec] = {"drawings": SPEC, "photos": COLOUR}
    decoded = asyncio.run(decode_support(decoder, "key", files, [n // 20 for n in range(40)], specs))
    assert (decoded.kind, len(decoded.images), decoder.calls) == ("drawings", 40, calls)


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("small", [judging.SMALL, 0])
def test_images_beyond_the_judged_ones_keep_their_places(
    client: TestClient, worker: Worker, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    """Of each class one after the other is judged, up to 32; the others are decoded later."""
    monkeypatch.setattr(judging, "SMALL", small)
    images = [{"label": f"{n // 20}", "image": b64(png(n % 4, n))} for n in range(40)]
    episode = created(client, images)
    found, _ = worker.store.claims.support(worker.claim(episode["id"]))
    files = [png(n % 4, n) for n in range(40)]
    assert np.array_equal(found, [load(file, SPEC, max_pixels=1000) for file in files])


def test_an_episode_from_before_there_were_kinds_is_read(
    client: TestClient, server: PrivateRedis, sync_store: SyncStore
) -> None:
    id = created(client, support())["id"]
    name = keys.record("episode", id)
    spec = json.loads(server.client.hgetall(name)[b"spec"])
    for field in ("model_kind", "model_reason", "model_warning"):
        del spec[field]
    server.client.hset(name, "spec", json.dumps(spec))
    assert chosen(client.get(f"/episodes/{id}").json()) == (DRAWINGS, None, None)
