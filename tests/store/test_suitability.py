"""The checks of a Redis server that the operator has set up."""

import asyncio
import re

import pytest

from app.queue import ask_for_shipped, celery_app
from app.settings import Settings
from app.store import suitability
from app.store.clients import SyncStore
from app.store.suitability import UNSEEN
from tests.conftest import PrivateRedis
from tests.replicated import documented
from tests.store.submitting import DRAWINGS, submit


def told(server: PrivateRedis, url: str | None = None, **settings: int) -> str:
    """All findings, with their fixes and states."""
    chosen = Settings(_env_file=None, redis_url=url or server.settings.store_url, **settings)  # type: ignore[call-arg, arg-type]
    found = suitability.examine(chosen).findings
    assert all(each.fix for each in found)
    return "\n".join(f"{each.state} {each.found}: {each.fix}" for each in found)


def test_a_server_that_is_set_up_as_documented_has_no_findings(redis_server: PrivateRedis) -> None:
    assert told(redis_server) == ""
    assert redis_server.client.dbsize() == 0  # what was tried out is gone


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("maxmemory-policy", "allkeys-lru", r"lossy maxmemory-policy is allkeys-lru: .*noeviction"),
        ("maxmemory", "100mb", r"warning maxmemory is 100 MB, but .* 512 MB: .*1024mb.*"),
        (
            "appendonly",
            "no",
            r"lossy appendonly is no, and it has no replica: .*appendonly yes.*",
        ),
        ("appendfsync", "everysec", r"warning appendfsync is everysec: .*appendfsync always"),
    ],
)
def test_each_setting_that_may_lose_data_is_told(
    option: str, value: str, words: str, redis_server: PrivateRedis
) -> None:
    redis_server.client.config_set(option, value)
    assert re.fullmatch(words, told(redis_server))


def test_a_memory_that_is_large_enough_is_not_told(redis_server: PrivateRedis) -> None:
    redis_server.client.config_set("maxmemory", 512 * 2**20)
    assert told(redis_server) == ""
    assert "maxmemory" in told(redis_server, max_store_bytes=512 * 2**20 + 1)


def test_a_server_that_cannot_work_is_told(redis_server: PrivateRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    version = redis_server.client.info("server")["redis_version"]
    monkeypatch.setattr(suitability, "OLDEST_VERSION", (99, 1))
    assert told(redis_server) == f"unusable version {version} is too old: install Redis 99.1 or later, or Valkey"
    monkeypatch.undo()
    redis_server.client.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]
    assert "unusable it is a replica" in told(redis_server)


def user(server: PrivateRedis, *rules: str) -> str:
    """A URL with a new user who has these rights."""
    server.client.execute_command("ACL", "SETUSER", "someone", "on", ">secret", *rules)  # type: ignore[no-untyped-call]
    return server.settings.store_url.replace("unix://", "unix://someone:secret@")


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (["~*", "&*", "+@all", "-eval", "-evalsha"], "may not use eval, evalsha: allow"),
        (["~*", "&*", "+@all", "-@dangerous"], "may not use info: allow"),
        (["~*", "&*", "+@all", "-brpop", "-zrevrangebyscore"], "may not use zrevrangebyscore, brpop: allow"),
        (["~lam:*", "&*", "+@all"], "may not use the key lamanas.adapt, the key lamanas.train, the key _kombu"),
        (["~*", "resetchannels", "+@all"], "may not use publish, subscribe: allow"),
        (["~*", "&*", "+ping"], "may not use info, time, eval"),
    ],
)
def test_rights_that_are_missing_are_named(rules: list[str], words: str, redis_server: PrivateRedis) -> None:
    found = told(redis_server, user(redis_server, *rules))
    assert found.startswith("unusable the user of REDIS_URL ")
    assert words in found


def test_the_documented_rights_are_sufficient(redis_server: PrivateRedis) -> None:
    url = user(redis_server, *documented("redis.md", "ACL SETUSER lamanas on >PASSWORD ").split())
    assert told(redis_server, url) == f"unseen appendfsync, which should be always, cannot be seen: {UNSEEN}"
    settings = Settings(_env_file=None, redis_url=url, data_dir=redis_server.settings.data_dir)  # type: ignore[call-arg]
    store = SyncStore.open(settings)
    store.models.register("v1", b"weights", DRAWINGS)
    assert store.claims.claim("episode", asyncio.run(submit(settings)).id, "one") is not None
    ask_for_shipped(celery_app(settings))
    store.close()
