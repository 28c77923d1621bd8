"""The names of everything that is kept in Redis: the only place that knows their prefix."""

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from typing import Literal

Kind = Literal["episode", "training"]

PREFIX = "lam:"
CHANGES = PREFIX + "changes"  # pub/sub: "<kind>:<id>" after every change of a record, "key:<id>" of a key
EXPIRY = PREFIX + "expiry"  # zset: "<id> <owner>" by the time its episode expires
MODELS = PREFIX + "models"  # zset: versions by time of registration
MODELS_USED = PREFIX + "models-used"  # zset: versions by the time when the last episode that uses one expires (ms)
ACTIVE_MODELS = PREFIX + "active-models"  # hash: the active version of each kind
# string: the active version, of whatever kind, of an installation from before there were kinds
FORMER_ACTIVE_MODEL = PREFIX + "models:active"
API_KEYS = PREFIX + "keys"  # zset: ids of API keys by time of creation
# hashes by the id of an episode: the name of its support set or its classifier in the object store, and its bytes
SUPPORT_SETS = PREFIX + "support"
CLASSIFIERS = PREFIX + "classifiers"
CHECKPOINTS = PREFIX + "checkpoints"  # hash by the id of a run: the name of what it resumes from in the object store
DATASETS = PREFIX + "datasets"  # hash by the name of a data set: the name of the object that it is in
# hash by the name of a backbone that some model needs and that does not ship with the package: the name of its object
BACKBONES = PREFIX + "backbones"
STORED_BYTES = PREFIX + "stored-bytes"  # hash: the bytes of all support sets and of all classifiers, by these two names
FORMER_ADOPTED = PREFIX + "former-adopted"  # string, empty: no support set is a former_support any more
INSTALLATION = PREFIX + "installation"  # string: its random id, which the object store has as well
IDEMPOTENCY = PREFIX + "idempotency:"  # how the names of ``idempotency`` begin
SCHEMA = PREFIX + "schema"  # string: the number of the form that all this has, see installation.py
LEFTOVERS_REMOVED = PREFIX + "leftovers-removed"  # string, empty: it exists for an hour after a worker did so
REPLICATED = PREFIX + "replicated"  # string, empty: written anew to wait for a replica that has it
CLASSIFIERS_USED = PREFIX + "classifiers-used"  # zset: the ids in CLASSIFIERS by the time of their last use (ms)
WORKER_RECORDS = PREFIX + "worker-records"  # hash: a WorkerRecord (JSON) by the name of the worker
# hash: the number of each owner's last turn to have an episode adapted, and how many there were
TURNS = PREFIX + "turns"
MEASUREMENTS = PREFIX + "measures"  # hash: what workers measure and scripts count, see measures.py

QUEUE_OF: dict[Kind, Literal["adapt", "train"]] = {"episode": "adapt", "training": "train"}
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id() -> str:
    """26 characters: 48 bits of time and 80 random bits, so that ids sort by age and cannot be guessed."""
    return _id((time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big"))


def first_id(at: float) -> str:
    """An id before all that are made from this time on (seconds since 1970), and after all that were made before."""
    return _id(int(at * 1000) << 80)


def _id(number: int) -> str:
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def record(kind: Kind, id: str) -> str:
    """hash: state, error, attempts, fence, worker, woken_by, created_at, queued_at, claimed_at, ended_at, expires_at
    (ms; ended_at of a run, or of an episode that failed); spec, progress, result. Of an episode also together, the id
    of the first one that it was claimed with, if it was with others; and alone, if it is not to be again."""
    return f"{PREFIX}{kind}:{id}"


def index(kind: Kind, owner: str | None = None) -> str:
    """zset, all scores 0, of ids (which sort by age): all, or one owner's."""
    return f"{PREFIX}{kind}s" if owner is None else f"{PREFIX}{kind}s:{owner}"


def queued(kind: Kind) -> str:
    """zset: ids of the jobs that wait for a worker, by the time when their last wake-up was sent (ms)."""
    return f"{PREFIX}queued:{QUEUE_OF[kind]}"


def unfinished(owner: str) -> str:
    """set: ids of one owner's unfinished episodes; those that have ended are removed when it is full."""
    return f"{PREFIX}unfinished:{owner}"


def bucket(key_id: str) -> str:
    """hash: tokens, at (ms); the token bucket that limits the rate of an API key's requests."""
    return f"{PREFIX}bucket:{key_id}"


def leases(kind: Kind) -> str:
    """zset: ids of the jobs that a worker has claimed, by the time when its lease expires (ms)."""
    return f"{PREFIX}leases:{QUEUE_OF[kind]}"


def broker_queue(kind: Kind) -> str:
    """Celery's queue, which is also the name of its list in Redis."""
    return f"lamanas.{QUEUE_OF[kind]}"


def former_support(id: str) -> str:
    """string: the images of an episode of an installation from before there was an object store."""
    return f"{PREFIX}support:{id}"


def tombstone(kind: Kind, id: str) -> str:
    """string: whose it was; outlives the record by a day."""
    return f"{PREFIX}tombstone:{kind}:{id}"


def idempotency(owner: str, key: str) -> str:
    """string: "<id> <digest of the request>" that the idempotency key was first used for."""
    return f"{IDEMPOTENCY}{owner}:{hashlib.sha256(key.encode()).hexdigest()}"


def model(version: str) -> str:
    """hash: weights, card (JSON), created_at (ms)."""
    return f"{PREFIX}model:{version}"


def api_key(id: str) -> str:
    """hash: name, tenant, scopes (JSON), digest, created_at (ms), revoked, revoked_at (ms)."""
    return f"{PREFIX}key:{id}"


def token_digest(token: str) -> str:
    """The SHA-256 of a token, all that is stored of it. (A token is 256 random bits: no slow hash is needed.)"""
    return hashlib.sha256(token.encode()).hexdigest()


def api_key_by_token(digest: str) -> str:
    """string: the id of the API key whose token has this digest. The name has a quarter of it: the time that a lookup
    takes may reveal these 64 bits. The whole digest is in the key's record, and compared in constant time."""
    return f"{PREFIX}key-by-token:{digest[:16]}"


def workers(queue: str) -> str:
    """zset: names of the workers by the time of their last heartbeat (ms)."""
    return f"{PREFIX}workers:{queue}"


def draining(name: str) -> str:
    """string, empty: it exists while this worker is shutting down."""
    return f"{PREFIX}draining:{name}"


# What the scripts name by themselves, as ``key.<name>`` (see registry.py): each either a name, or a function whose
# result contains its arguments as they are.
LUA_KEYS: Mapping[str, str | Callable[..., str]] = {
    "CHANGES": CHANGES,
    "SUPPORT_SETS": SUPPORT_SETS,
    "CLASSIFIERS": CLASSIFIERS,
    "STORED_BYTES": STORED_BYTES,
    "CLASSIFIERS_USED": CLASSIFIERS_USED,
    "FORMER_ACTIVE_MODEL": FORMER_ACTIVE_MODEL,
    "MEASUREMENTS": MEASUREMENTS,
    "record": record,
    "index": index,
    "model": model,
    "tombstone": tombstone,
}
