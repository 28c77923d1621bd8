"""What is accepted is acknowledged only once a replica has it, where there is one."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from app.store import jobs, keys, replication
from app.store.clients import Store
from app.store.errors import Gone, NotFound, NotReplicatedError
from app.store.jobs import Jobs
from app.store.replication import Replication
from tests.chaos.waiting import until
from tests.conftest import PrivateRedis
from tests.replicated import Replicated, replicated
from tests.store.submitting import create
from tests.store.test_async_store import with_store


@pytest.fixture
def redis(short_folder: Path) -> Iterator[Replicated]:
    with replicated(short_folder) as running:
        yield running


@pytest.fixture
def cut(redis: Replicated, monkeypatch: pytest.MonkeyPatch) -> Replicated:
    """With a replica that gets nothing, which the primary does not know yet."""
    redis.link.broken.set()
    monkeypatch.setattr(replication, "CONFIRM_S", 0.2)
    return redis


def repair(redis: Replicated) -> None:
    redis.link.broken.clear()
    redis.servers[0].client.execute_command("CLIENT", "KILL", "TYPE", "replica")
    until(lambda: redis.has_replica(0), "the replica has caught up again")


def objects(redis: Replicated) -> int:
    return len(list(redis.settings.objects_dir.glob("support/*")))


async def an_episode(store: Store) -> str:
    return (await create(store))[0].id


async def a_run(store: Store) -> str:
    return (await store.trainings.create(owner="o", dataset="d", options={})).id


@pytest.mark.parametrize("accept", [an_episode, a_run])
def test_what_no_replica_confirms_is_not_accepted(accept: Callable[[Store], Awaitable[str]], cut: Replicated) -> None:
    async def body(store: Store) -> None:
        with pytest.raises(NotReplicatedError, match="no replica has confirmed"):
            await accept(store)

    with_store(cut.settings, body)


def test_an_episode_that_nobody_was_told_of_is_deleted(cut: Replicated) -> None:
    async def body(store: Store) -> None:
        with pytest.raises(NotReplicatedError):
            await create(store)

    with_store(cut.settings, body)  # closing it waits for what it does in the background
    assert cut.servers[0].client.zcard(keys.index("episode")) == 0
    assert cut.servers[0].client.zcard(keys.queued("episode")) == 0


def test_an_episode_with_an_idempotency_key_is_kept_for_whoever_tries_again(cut: Replicated) -> None:
    async def body(store: Store) -> None:
        for _ in range(2):  # the second time, it exists, and is not confirmed either
            with pytest.raises(NotReplicatedError):
                await create(store, idempotency_key="k")
        repair(cut)
        record, created = await create(store, idempotency_key="k")
        assert not created
        assert [record.id] == [each.id for each in (await store.episodes.page(None, 10))[0]]

    with_store(cut.settings, body)


@pytest.mark.parametrize("idempotency_key", [None, "k"])
def test_a_run_that_nobody_was_told_of_is_kept_only_for_whoever_tries_again(
    idempotency_key: str | None, cut: Replicated
) -> None:
    async def body(store: Store) -> None:
        with pytest.raises(NotReplicatedError):
            await store.trainings.create(owner="o", dataset="d", options={}, idempotency_key=idempotency_key)

    with_store(cut.settings, body)
    kept = 0 if idempotency_key is None else 1
    for each in (keys.index("training"), keys.queued("training")):
        assert cut.servers[0].client.zcard(each) == kept
    assert len(cut.servers[0].client.keys(keys.record("training", "*"))) == kept


@pytest.mark.parametrize(("accept", "kind"), [(an_episode, "episodes"), (a_run, "trainings")])
def test_a_job_is_withdrawn_again_until_a_replica_knows(
    accept: Callable[[Store], Awaitable[str]], kind: str, cut: Replicated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failover before that, it would be there again."""
    monkeypatch.setattr(jobs, "WITHDRAW_S", 0)
    tries = itertools.count(1)
    confirm = Replication.confirm

    async def body(store: Store) -> None:
        tried_often = asyncio.Event()

        async def counted(self: Replication, replicas: int) -> None:
            if next(tries) == 4:
                tried_often.set()
            await confirm(self, replicas)

        monkeypatch.setattr(Replication, "confirm", counted)
        with pytest.raises(NotReplicatedError):
            await accept(store)
        created: Jobs[Any] = getattr(store, kind)
        withdrawn = asyncio.gather(*created._withdrawals)
        tried: asyncio.Future[Any] = asyncio.ensure_future(tried_often.wait())
        await asyncio.wait({tried, withdrawn}, return_when=asyncio.FIRST_COMPLETED)
        assert not withdrawn.done()
        await asyncio.to_thread(repair, cut)
        await withdrawn

    with_store(cut.settings, body)
    for server in cut.servers:
        assert server.client.zcard(keys.index("episode")) == server.client.zcard(keys.index("training")) == 0


def test_a_deleted_episode_keeps_its_images_until_a_replica_knows_that_it_is_deleted(redis: Replicated) -> None:
    """After a failover, it would be there again."""

    async def body(store: Store) -> None:
        first, second = await an_episode(store), await an_episode(store)
        redis.link.broken.set()
        with pytest.raises(NotReplicatedError):
            await store.episodes.delete(first)
        with pytest.raises(Gone):
            await store.episodes.get(first)
        repair(redis)
        await store.episodes.delete(second)

    with_store(redis.settings, body)
    assert objects(redis) == 1


def test_an_episode_that_a_failover_has_lost_is_not_accepted(
    settings: Settings, redis_server: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failover(self: Replication, replicas: int) -> None:
        redis_server.client.flushall()

    monkeypatch.setattr(Replication, "confirm", failover)

    async def body(store: Store) -> None:
        with pytest.raises(NotReplicatedError, match="was lost in a failover"):
            await create(store)
        with pytest.raises(NotFound):
            await store.episodes.get(keys.new_id())

    with_store(settings, body)


def test_nothing_is_waited_for_where_there_is_no_replica(settings: Settings, redis_server: PrivateRedis) -> None:
    with_store(settings, an_episode)
    assert not redis_server.client.exists(keys.REPLICATED)
    required = settings.model_copy(update={"redis_sentinels": "127.0.0.1:1"})

    async def body(store: Store) -> None:
        with pytest.raises(NotReplicatedError):
            await Replication(store._redis, required=required.sentinels is not None).confirm(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replication, "CONFIRM_S", 0.05)
        with_store(settings, body)


def test_those_that_wait_at_the_same_time_share_the_rounds(redis: Replicated) -> None:
    async def body(store: Store) -> None:
        redis.servers[0].client.config_resetstat()
        await asyncio.gather(*(store._replication.confirm(1) for _ in range(50)))
        assert redis.servers[0].client.info("commandstats")["cmdstat_wait"]["calls"] <= 2

    with_store(redis.settings, body)
