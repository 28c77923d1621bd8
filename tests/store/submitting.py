"""Submits a small episode as the app does."""

import asyncio
from dataclasses import asdict
from typing import Any

import numpy as np

from app.settings import Settings
from app.store import keys
from app.store.claims import Claim, Claims
from app.store.clients import Store
from app.store.records import EpisodeRecord
from lamanas_core.image_spec import ImageSpec

# 1 MiB of images that cannot be compressed.
LARGE = np.random.default_rng(0).integers(0, 256, (64, 1, 128, 128), np.uint8)
# Cards of meta-models of each kind, with what the store reads of them.
DRAWINGS: dict[str, Any] = {"config": {"image": asdict(ImageSpec())}, "metrics": {}}
PHOTOS: dict[str, Any] = {"config": {"image": asdict(ImageSpec(channels=3, normalise_polarity=False))}, "metrics": {}}
SUPPORT = (np.arange(4 * 28 * 28) % 251).astype(np.uint8).reshape(4, 1, 28, 28)


async def create(store: Store, **changed: Any) -> tuple[EpisodeRecord, bool]:
    """Creates an episode with two classes of two images each."""
    given: dict[str, Any] = {
        "owner": "owner1",
        "name": "test",
        "classes": ["a", "b"],
        "shots": [2, 2],
        "support": SUPPORT,
        "labels": [0, 0, 1, 1],
        "steps": 3,
        "seed": 0,
        "model_version": "0123456789abcdef",
        "model_kind": "drawings",
        "model_reason": "there is only a model for drawings",
    }
    given |= changed
    # An episode needs its model; where a test has not registered it, any will do.
    model = keys.model(given["model_version"])
    if not await store.episodes._redis.exists(model):
        await store.episodes._redis.hset(model, "created_at", 0)
    return await store.episodes.create(**given)


async def submit(settings: Settings, **changed: Any) -> EpisodeRecord:
    store = await Store.open(settings)
    try:
        return (await create(store, **changed))[0]
    finally:
        await store.close()


def committed(claims: Claims, claim: Claim, progress: dict[str, Any], result: dict[str, Any], artifact: bytes) -> bool:
    """Stores and commits a classifier as a worker does; False if the claim is no longer valid."""
    return claims.commit_episode(claim, progress, result, claims.store_classifier(claim, artifact))


def get(settings: Settings, id: str) -> EpisodeRecord:
    """The current record. Raises NotFound, Gone."""

    async def read() -> EpisodeRecord:
        store = await Store.open(settings)
        try:
            return await store.episodes.get(id)
        finally:
            await store.close()

    return asyncio.run(read())
