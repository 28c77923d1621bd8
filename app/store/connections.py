"""The only place that connects to Redis: to the server at REDIS_URL, or to the primary that the sentinels name.

Sentinels are asked for each new connection, so that after a failover all connections lead to the new primary: those to
the old one break, or are closed when it answers that it is a replica."""

from typing import Any

import redis.asyncio as asynchronous
import redis.asyncio.sentinel as asynchronous_sentinel
from redis import Redis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from app.settings import Sentinels, Settings
from app.store.deadline import LimitedRedis

# How long an attempt to connect may take, and how long an answer.
CONNECT_S, ANSWER_S = 2, 5
# The same of a sentinel, after which the next one is asked: a request waits meanwhile.
SENTINEL_S = 0.5


class _BlockingSentinelPool(asynchronous_sentinel.SentinelConnectionPool, asynchronous.BlockingConnectionPool):
    pass


def blocking(settings: Settings, answer_s: float = ANSWER_S) -> Redis:
    """A client that connects when it is first used, and tries nothing again: its caller knows how long it may wait."""
    options: dict[str, Any] = {
        "socket_timeout": answer_s,
        "socket_connect_timeout": CONNECT_S,
        "retry": Retry(NoBackoff(), 0),
    }
    if settings.sentinels is None:
        return Redis.from_url(settings.store_url, **options)
    known = Sentinel(settings.sentinels.addresses, sentinel_kwargs=sentinel_options(settings))  # type: ignore[no-untyped-call]
    return Redis.from_pool(SentinelConnectionPool(settings.primary, known, **(options | primary_options(settings))))  # type: ignore[no-untyped-call]


def limited(settings: Settings, *, connections: int, wait_s: float | None) -> asynchronous.Redis:
    """A client for the event loop, with at most so many connections. It connects when it is first used, and tries again
    until the limit in deadline.py. ``wait_s``: how long a command waits for a connection; None: not at all."""
    options: dict[str, Any] = {
        "socket_timeout": ANSWER_S,
        "socket_connect_timeout": CONNECT_S,
        "retry": AsyncRetry(ExponentialBackoff(base=0.1, cap=1.0), 5),
        "max_connections": connections,
    }
    waiting = {} if wait_s is None else {"timeout": wait_s}
    if settings.sentinels is None:
        kind = asynchronous.ConnectionPool if wait_s is None else asynchronous.BlockingConnectionPool
        return LimitedRedis.from_pool(kind.from_url(settings.store_url, **options, **waiting))
    known = asynchronous_sentinel.Sentinel(  # type: ignore[no-untyped-call]
        settings.sentinels.addresses,
        sentinel_kwargs=sentinel_options(settings) | {"retry": AsyncRetry(NoBackoff(), 0)},
    )
    of_kind = asynchronous_sentinel.SentinelConnectionPool if wait_s is None else _BlockingSentinelPool
    pool = of_kind(settings.primary, known, **(options | waiting | primary_options(settings)))  # type: ignore[no-untyped-call]
    return LimitedRedis.from_pool(pool)


def primary_options(settings: Settings) -> dict[str, Any]:
    """What the URL says about the connection to a primary that sentinels name, except where it is."""
    named: dict[str, Any] = parse_url(settings.store_url)  # type: ignore[no-untyped-call]
    secured = {"ssl": True} if "connection_class" in named else {}
    return {name: value for name, value in named.items() if name not in ("host", "port", "connection_class")} | secured


def sentinel_options(settings: Settings) -> dict[str, Any]:
    """How to connect to the sentinels: with TLS where the primary has it. A sentinel that does not answer is not tried
    again, but the next one is."""
    named = {name: value for name, value in primary_options(settings).items() if name.startswith("ssl")}
    found = settings.sentinels or Sentinels(())
    return named | {
        "username": found.username,
        "password": found.password,
        "socket_timeout": SENTINEL_S,
        "socket_connect_timeout": SENTINEL_S,
        "retry": Retry(NoBackoff(), 0),
    }
