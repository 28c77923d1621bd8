"""Jobs that are removed again because their client got an error, with a real Redis."""

import asyncio
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from app.settings import Settings
from app.store import episodes, errors, jobs, keys, trainings
from app.store.clients import Store
from app.store.jobs import Jobs
from app.store.keys import Kind
from app.store.registry import Call, run_async
from tests.conftest import PrivateRedis
from tests.store.submitting import create
from tests.store.test_async_store import with_store


async def an_episode(store: Store, idempotency_key: str | None) -> None:
    await create(store, idempotency_key=idempotency_key)


async def a_run(store: Store, idempotency_key: str | None) -> None:
    await store.trainings.create(owner="o", dataset="d", options={}, idempotency_key=idempotency_key)


@pytest.mark.parametrize("idempotency_key", [None, "k"])
@pytest.mark.parametrize(
    ("kind", "accept", "module"), [("episode", an_episode, episodes), ("training", a_run, trainings)]
)
def test_a_job_is_withdrawn_where_the_answer_to_its_creation_is_lost(
    kind: Kind,
    accept: Callable[[Store, str | None], Awaitable[None]],
    module: ModuleType,
    idempotency_key: str | None,
    redis_server: PrivateRedis,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And Redis is away for longer than the request may wait. With an idempotency key, the job is kept for whoever
    repeats the request."""
    monkeypatch.setattr(jobs, "WITHDRAW_S", 0)
    away, creations = [True], list[Call]()

    async def lost(client: Any, call: Call) -> Any:
        removes = call.script.name in ("delete_episode", "remove_training")
        if removes and away:
            away.pop()
            raise RedisConnectionError
        found = await run_async(client, call)
        if call.script.name == f"create_{kind}":
            creations.append(call)
            raise RedisConnectionError
        return found

    def stored() -> list[int]:
        files = [path for path in settings.objects_dir.glob("support/*") if path.is_file()]
        return [redis_server.client.zcard(each(kind)) for each in (keys.index, keys.queued)] + [len(files)]

    async def body(store: Store) -> None:
        monkeypatch.setattr(jobs, "run_async", lost)
        monkeypatch.setattr(module, "run_async", lost)
        with pytest.raises(RedisConnectionError):
            await accept(store, idempotency_key)
        created: Jobs[Any] = getattr(store, f"{kind}s")
        await asyncio.gather(*created._withdrawals)
        # The request to create it may arrive only now.
        await run_async(store.trainings._redis, creations[0])

    with_store(settings, body)
    kept = 0 if idempotency_key is None else 1
    assert stored() == [kept, kept, kept if kind == "episode" else 0]


@pytest.mark.parametrize(("kind", "accept"), [("episode", an_episode), ("training", a_run)])
def test_what_redis_refuses_needs_no_withdrawal(
    kind: Kind, accept: Callable[[Store, str | None], Awaitable[None]], redis_server: PrivateRedis, settings: Settings
) -> None:
    async def body(store: Store) -> None:
        await accept(store, None)  # so that the model is there
        redis_server.client.config_set("min-replicas-to-write", 1)
        with pytest.raises(errors.NotReplicatedError):
            await accept(store, None)
        created: Jobs[Any] = getattr(store, f"{kind}s")
        assert not created._withdrawals

    with_store(settings, body)
