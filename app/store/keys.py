"""The names of everything we keep in Redis."""

import hashlib
import os
import time
from typing import Literal

Kind = Literal["episode", "training"]

PREFIX = "lam:"
CHANGES = PREFIX + "changes"  # pub/sub: "<kind>:<id>" after every change of a record, "key:<id>" of a key
EXPIRY = PREFIX + "expiry"  # zset: "<id> <owner>" by the time its episode expires
MODELS = PREFIX + "models"  # zset: versions by time of registration
ACTIVE_MODEL = PREFIX + "models:active"
KEYS = PREFIX + "keys"  # zset: key ids by time of making

QUEUE_OF: dict[Kind, Literal["adapt", "train"]] = {"episode": "adapt", "training": "train"}
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id() -> str:
    """26 characters: 48 bits of time and 80 of chance, so that ids sort by age and none can be guessed."""
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def record(kind: Kind, id: str) -> str:
    """hash: spec, progress, result (JSON); state, error, attempts, fence, worker, created_at, expires_at (ms)."""
    return f"{PREFIX}{kind}:{id}"


def index(kind: Kind, owner: str | None = None) -> str:
    """zset, all scores 0, of ids (which sort by age): all, or one owner's."""
    return f"{PREFIX}{kind}s" if owner is None else f"{PREFIX}{kind}s:{owner}"


def queued(kind: Kind) -> str:
    """zset: ids that wait for a worker, by the time their wake-up was last sent (ms)."""
    return f"{PREFIX}queued:{QUEUE_OF[kind]}"


def unfinished(owner: str) -> str:
    """set: ids of one owner's episodes, of which those that have ended are taken out when it is full."""
    return f"{PREFIX}unfinished:{owner}"


def bucket(key_id: str) -> str:
    """hash: tokens, at (ms); a key's requests are counted against it."""
    return f"{PREFIX}bucket:{key_id}"


def leases(kind: Kind) -> str:
    """zset: ids that a worker holds, by the time its lease ends (ms)."""
    return f"{PREFIX}leases:{QUEUE_OF[kind]}"


def broker_queue(kind: Kind) -> str:
    """Celery's queue, which is also the name of its list in Redis."""
    return f"lamanas.{QUEUE_OF[kind]}"


# What memory.py counts: hash of the bytes that each episode's support set takes, and their total; and zset of the ids
# whose classifier is there, by the time it was written (ms).
HELD = PREFIX + "held"
ARTIFACTS = PREFIX + "artifacts"


def support(id: str) -> str:
    return f"{PREFIX}support:{id}"


def artifact(id: str) -> str:
    return f"{PREFIX}artifact:{id}"


def tombstone(kind: Kind, id: str) -> str:
    return f"{PREFIX}tombstone:{kind}:{id}"


def idempotency(owner: str, key: str) -> str:
    return f"{PREFIX}idempotency:{owner}:{hashlib.sha256(key.encode()).hexdigest()}"


def model(version: str) -> str:
    """hash: weights, card (JSON), created_at (ms)."""
    return f"{PREFIX}model:{version}"


def key(id: str) -> str:
    return f"{PREFIX}key:{id}"


def token_digest(token: str) -> str:
    """The SHA-256 of a token, all that is kept of it. (Tokens are 256 bits of chance: nothing slower is needed.)"""
    return hashlib.sha256(token.encode()).hexdigest()


def key_by_token(token: str) -> str:
    """Names the key's id by a quarter of its token's digest. How long a look-up takes may tell about these 64 bits;
    the whole digest is in the key's record, to be compared in constant time."""
    return f"{PREFIX}key-by-token:{token_digest(token)[:16]}"


def worker(queue: str, name: str) -> str:
    return f"{PREFIX}worker:{queue}:{name}"


def draining(name: str) -> str:
    return f"{PREFIX}draining:{name}"
