"""Clients find the primary again after a failover, also where no sentinel tells it."""

from contextlib import suppress
from pathlib import Path

from redis._parsers import _AsyncHiredisParser
from redis.exceptions import ReadOnlyError

from app.store.clients import Store, SyncStore
from app.store.errors import UnknownModel
from cli import private_redis
from tests.conftest import PrivateRedis
from tests.conftest import test_settings as settings_in
from tests.replicated import sentinelled
from tests.store.submitting import create
from tests.store.test_async_store import with_store


def test_replies_are_read_by_hiredis(redis_server: PrivateRedis) -> None:
    """The redis package reads them in Python where it is not installed, which takes several times as long."""

    async def body(store: Store) -> None:
        assert isinstance((await store._redis.connection_pool.get_connection())._parser, _AsyncHiredisParser)

    with_store(redis_server.settings, body)


def test_a_server_that_has_become_a_replica_is_left_for_the_one_that_has_its_address_now(
    redis_server: PrivateRedis, short_folder: Path
) -> None:
    """It keeps its connections, as the server of a managed Redis may."""
    (short_folder / "other").mkdir()
    other = PrivateRedis(settings_in(short_folder / "other"), private_redis.start(settings_in(short_folder / "other")))
    other.client.ping()
    one, two = SyncStore.open(redis_server.settings), SyncStore.open(redis_server.settings)

    async def body(store: Store) -> None:
        await create(store)
        for blocking in (one, two):
            blocking.ping()
        redis_server.client.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]
        other.settings.redis_socket.rename(redis_server.settings.redis_socket)
        with suppress(ReadOnlyError):  # it tries nothing again by itself
            one.workers.drain("one", 60)
        one.workers.drain("one", 60)
        with suppress(ReadOnlyError):
            two.workers.announce("adapt", "two")
        two.workers.announce("adapt", "two")
        with suppress(ReadOnlyError, UnknownModel):  # before Redis 7, a script is not tried again
            await create(store)
        record, _ = await create(store)
        assert await store.episodes.get(record.id) == record

    try:
        with_store(redis_server.settings, body)
    finally:
        one.close()
        two.close()
        other.stop()


def test_sentinels_that_are_gone_are_passed_over(short_folder: Path) -> None:
    with sentinelled(short_folder) as redis:
        for sentinel in redis.sentinels[:2]:
            sentinel.kill()
        blocking = SyncStore.open(redis.settings)
        blocking.ping()
        blocking.close()

        async def body(store: Store) -> None:
            await store.ping()

        with_store(redis.settings, body)
