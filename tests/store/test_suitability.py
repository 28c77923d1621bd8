"""The checks of a Redis server that the operator has set up."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis

from app.queue import ask_for_shipped, celery_app
from app.settings import Settings
from app.store import suitability
from app.store.clients import SyncStore
from app.store.suitability import UNSEEN
from tests.chaos.waiting import until
from tests.conftest import ROOT, PrivateRedis, free_port
from tests.replicated import SENTINEL_PASSWORD, documented, node, replicated, sentinelled
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


def test_a_server_of_a_cluster_cannot_be_used(short_folder: Path) -> None:
    # Others of the cluster would connect to a port that is higher by 10000.
    port = next(port for port in iter(free_port, None) if port < 55_000)
    lines = ("cluster-enabled yes", "appendonly yes", "appendfsync always")
    server = node(short_folder / "server", *lines, port=port)
    try:
        server.start()
        assert findings(f"redis://127.0.0.1:{server.port}") == {"unusable": ["it is part of a cluster"]}
    finally:
        server.kill()


def test_the_server_of_docker_compose_has_no_findings(short_folder: Path) -> None:
    command = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["redis"]["command"]
    assert command[:2] == ["redis-server", "/secrets/redis.conf"]
    options = {name.removeprefix("--"): value for name, value in zip(command[2::2], command[3::2], strict=True)}
    options.pop("dir")
    options["hash-max-ziplist-value"] = options.pop("hash-max-listpack-value")  # the name that Redis 6 knows as well
    server = node(short_folder / "server", *(f'{name} "{value}"' for name, value in options.items()))
    try:
        server.start()
        assert findings(f"redis://127.0.0.1:{server.port}") == {}
    finally:
        server.kill()


def findings(url: str, sentinels: str | None = None) -> dict[str, list[str]]:
    """What is found, by its state."""
    settings = Settings(_env_file=None, redis_url=url, redis_sentinels=sentinels)  # type: ignore[call-arg]
    found: dict[str, list[str]] = {}
    for each in suitability.examine(settings).findings:
        found.setdefault(each.state, []).append(each.found)
    return found


def test_a_server_with_a_replica_may_keep_nothing_on_its_disk(short_folder: Path) -> None:
    with replicated(short_folder) as redis:
        server = redis.servers[0]
        url = f"redis://127.0.0.1:{server.port}"
        assert findings(url) == {}
        server.client.config_set("appendonly", "no")
        server.client.config_set("min-replicas-to-write", "0")
        lost, cut_off = findings(url)["warning"]
        assert lost.startswith("appendonly is no: accepted episodes are lost when it stops together with its replica")
        assert cut_off.startswith("min-replicas-to-write is 0")


def test_sentinels_that_do_not_tell_the_primary_are_told(short_folder: Path) -> None:
    with sentinelled(short_folder) as redis:
        url, sentinels = str(redis.settings.redis_url), str(redis.settings.redis_sentinels)
        assert findings(url, sentinels) == {"unseen": ["appendfsync, which should be always, cannot be seen"]}
        (few,) = findings(url, sentinels.rpartition(",")[0])["warning"]
        assert few.startswith("LAMANAS_REDIS_SENTINELS names only 2")
        other = Settings(_env_file=None, redis_url="redis://other", redis_sentinels=sentinels)  # type: ignore[call-arg]
        unknown = list(suitability.sentinels(other))
        assert [each.found.partition(" has ")[2] for each in unknown] == ["no primary of the name other"] * 3
        assert unknown[0].fix == "name one that it has in REDIS_URL: mymaster"
        (wrong_password,) = {each.found.partition("primary: ")[2] for each in told_by(url, sentinels, "wrong")}
        assert "invalid username-password" in wrong_password
        redis.sentinels[0].kill()
        (gone,) = findings(url, sentinels)["warning"]
        assert gone.startswith(f"the sentinel at 127.0.0.1:{redis.sentinels[0].port} does not tell the primary")
        redis.servers[1].kill()
        until(lambda: redis.servers[0].client.info("replication")["connected_slaves"] == 0, "the replica is gone")
        assert (
            "it has no replica: no episode is accepted until one can replace it" in findings(url, sentinels)["warning"]
        )


def told_by(url: str, sentinels: str, password: str) -> list[suitability.Finding]:
    changed = sentinels.replace(SENTINEL_PASSWORD, password)
    settings = Settings(_env_file=None, redis_url=url, redis_sentinels=changed)  # type: ignore[call-arg]
    return list(suitability.sentinels(settings))


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("maxmemory_policy", {"unseen": ["maxmemory-policy, which must be noeviction, cannot be seen"]}),
        ("aof_enabled", {"unseen": ["whether it writes to a disk (appendonly) cannot be seen"]}),
        ("used_memory", {"unusable": ["INFO does not say used_memory"]}),
        ("role", {}),
        ("redis_version", {}),
    ],
)
def test_what_a_managed_server_does_not_show_is_told(
    field: str, expected: dict[str, list[str]], redis_server: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    full: Any = redis_server.client.info()
    shown = {name: value for name, value in full.items() if name != field}
    monkeypatch.setattr(Redis, "info", lambda self: shown)
    assert findings(redis_server.settings.store_url) == expected


def test_a_server_tells_its_name_and_version(redis_server: PrivateRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    info: Any = redis_server.client.info()
    info.pop("valkey_version", None)
    monkeypatch.setattr(Redis, "info", lambda self: info)
    assert suitability.examine(redis_server.settings).version == f"Redis {info['redis_version']}"
    info["valkey_version"] = "9.1.2"
    assert suitability.examine(redis_server.settings).version == "Valkey 9.1.2"
