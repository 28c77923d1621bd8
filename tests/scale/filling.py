"""Fills Redis and the object store with copies of an episode, by direct writes: all that they have of it, under other
ids."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.store import keys

BATCH = 500
# What stands for the bytes of a classifier or a support set in copies.
BYTES = b"0" * 1024


@dataclass(frozen=True)
class Part:
    """What one key of Redis stores of an episode: ``content`` is its value, or the fields or members that name it."""

    name: bytes
    type: bytes
    content: Any
    expires_at: int

    def write(self, pipeline: Any, old: bytes, new: bytes) -> None:
        name = self.name.replace(old, new)
        if self.type == b"string":
            pipeline.set(name, self.content.replace(old, new))
        elif self.type == b"hash":
            pipeline.hset(name, mapping={_of(field, old, new): _of(at, old, new) for field, at in self.content.items()})
        elif self.type == b"zset":
            pipeline.zadd(name, {_of(member, old, new): score for member, score in self.content.items()})
        elif self.type == b"set":
            pipeline.sadd(name, *(_of(member, old, new) for member in self.content))
        if self.expires_at > 0 and name != self.name:
            pipeline.pexpireat(name, self.expires_at)


def parts_of(redis: Any, id: str) -> list[Part]:
    """All that Redis stores of this episode."""
    return list(_parts(redis, id.encode()))


def _parts(redis: Any, id: bytes) -> Iterator[Part]:
    seconds, microseconds = redis.time()
    for name in redis.scan_iter(match=f"{keys.PREFIX}*", count=1000):
        type = redis.type(name)
        own = id in name
        if type == b"string":
            content: Any = redis.get(name) if own else b""
            content = content if len(content) <= len(BYTES) else BYTES
        elif type == b"hash":
            content = {field: at for field, at in redis.hgetall(name).items() if own or id in field}
        elif type == b"zset":
            content = {member: score for member, score in redis.zrange(name, 0, -1, withscores=True) if id in member}
        else:
            content = [member for member in redis.smembers(name) if id in member]
        if content:
            expires_at = int(seconds * 1000 + microseconds // 1000 + redis.pttl(name)) if redis.pttl(name) > 0 else 0
            yield Part(name, type, content, expires_at)


def copy(redis: Any, objects: Path, id: str, count: int) -> list[str]:
    """Writes this many copies of the episode; returns their ids, oldest first. ``objects``: the folder of the object
    store; the copies of objects have other bytes."""
    parts = parts_of(redis, id)
    files = list(objects.glob(f"*/{id}.*"))
    ids = sorted(keys.new_id() for _ in range(count))
    for at in range(0, count, BATCH):
        with redis.pipeline(transaction=False) as pipeline:
            for new in ids[at : at + BATCH]:
                for part in parts:
                    part.write(pipeline, id.encode(), new.encode())
                for file in files:
                    file.with_name(file.name.replace(id, new)).write_bytes(BYTES)
            pipeline.execute()
    return ids


def _of(value: bytes, old: bytes, new: bytes) -> bytes:
    return value.replace(old, new)
