"""A backup of an installation while it runs: a zip file of what Redis keeps, and of all objects.

Bytes are always written before Redis names them, and deleted after it forgets them. So objects are read first, then
Redis, then the objects that were written meanwhile: whatever Redis names is in the file.

Redis answers nobody else while a script runs. So what lists and names the episodes is read by one script, at one
moment, and the episodes themselves after it, some at a time. One that has changed in between is put where it belongs
when it is restored: if it waits, into the queue; if it was in progress, among the leases, of which it has none that is
valid, so that it is adapted again.
"""

import json
import logging
import tempfile
import time
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, TypeVar
from zipfile import ZIP_STORED, BadZipFile, ZipFile

from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from app.store import keys
from app.store.errors import Conflict, refusals_named
from app.store.installation import SCHEMA, Installation, differing
from app.store.keys import Kind
from app.store.objects import Objects, name_in
from app.store.registry import run, script
from lamanas_core.files import sync_file, sync_folder

log = logging.getLogger(__name__)
_SNAPSHOT = script("snapshot")
Item = TypeVar("Item")
MANIFEST, REDIS, OBJECTS = "backup.json", "redis.jsonl", "objects/"
FORMAT = "lamanas backup"
EMPTY_BOTH = "name others, or empty both, if what they have is not needed"
GONE = -2  # what PTTL says of a key that there is not
# What is true only of the processes that run now.
OF_PROCESSES = (keys.workers(""), keys.WORKER_RECORDS, keys.draining(""), keys.bucket(""))
# What there is of each episode, which is read some at a time.
OF_EPISODES = (keys.record("episode", ""), keys.tombstone("episode", ""), keys.IDEMPOTENCY)
# What names objects that are replaced while they are in use: read again until all of them are there.
REPLACED = (keys.CHECKPOINTS, keys.DATASETS)
TRIES = 10
AT_ONCE = 100
# A name, its value as DUMP gives it, in base64, and milliseconds until it expires (-1: never).
Entry = tuple[str, str, int]


class BackupError(ValueError):
    """The file is no backup that this release can restore; the text says why."""


class Backup:
    """Blocking; every method may raise ``errors.UNAVAILABLE``, and OSError for the file."""

    def __init__(self, redis: Redis, objects: Objects, installation: Installation) -> None:
        self._redis: Any = redis
        self._objects = objects
        self._installation = installation

    def write(self, path: Path) -> tuple[int, int]:
        """Writes a new file, which only its owner may read; returns how many keys and how many objects it has. Raises
        Conflict if this Redis and this object store do not belong together, FileExistsError."""
        schema = self._installation.schema() or SCHEMA
        self._check_that_they_belong_together()
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            draft = Path(folder, "draft")
            path.touch(mode=0o600, exist_ok=False)
            try:
                draft.touch(mode=0o600)
                with ZipFile(draft, "w", ZIP_STORED) as archive:
                    found = self._add_all(archive, Path(folder))
                    about = {"format": FORMAT, "schema": schema, "made_at": int(time.time())}
                    archive.writestr(MANIFEST, json.dumps(about | dict(zip(("keys", "objects"), found, strict=True))))
                sync_file(draft)
                draft.replace(path)
                sync_folder(path.parent)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
        return found

    def restore(self, path: Path) -> tuple[int, int]:
        """Puts everything in the file into an empty Redis and an empty object store; returns how many keys and how many
        objects. Raises BackupError, Conflict if something is there already, FileNotFoundError."""
        try:
            with ZipFile(path) as archive:
                self._check(archive)
                if (damaged := archive.testzip()) is not None:
                    raise BackupError(f"{path} is damaged: {damaged}")
                objects = self._put_objects(archive)
                with archive.open(REDIS) as lines:
                    count = self._put_keys(json.loads(line) for line in lines)
        except BadZipFile as error:
            raise BackupError(f"{path} is not a backup: {error}") from error
        return count, objects

    def _snapshot(self) -> list[Entry]:
        """What is read at one moment."""
        apart = json.dumps([*OF_PROCESSES, *OF_EPISODES, *REPLACED])
        return _entries(run(self._redis, _SNAPSHOT(pattern=f"{keys.PREFIX}*", apart=apart)))

    def _episodes(self) -> Iterator[Entry]:
        """What is read afterwards."""
        names = self._redis.scan_iter(f"{keys.PREFIX}*", count=1000)
        once = dict.fromkeys(name for name in names if name.decode().startswith(OF_EPISODES))
        for wanted in _batches(iter(once)):
            with self._redis.pipeline(transaction=False) as reads:
                for name in wanted:
                    reads.dump(name).pttl(name)
                found = reads.execute()
            triples = zip(wanted, found[::2], found[1::2], strict=True)
            yield from _entries([each for triple in triples if triple[1] is not None for each in triple])

    def _check_that_they_belong_together(self) -> None:
        own, found = self._installation.ids()
        if found != ([] if own is None else [own]):
            raise Conflict(
                "this Redis and this object store do not belong together (REDIS_URL, LAMANAS_OBJECTS): "
                + differing(own, found)
            )

    def _add_all(self, archive: ZipFile, scratch: Path) -> tuple[int, int]:
        """Adds all keys and all objects; returns how many."""
        objects = self._add_objects(archive, self._listed(), set(), scratch)
        with tempfile.TemporaryFile("w+", dir=scratch) as lines:
            count = _write(lines, chain(self._snapshot(), self._episodes()))
            objects |= self._add_objects(archive, self._listed(), objects, scratch)
            count += _write(lines, self._replaced(archive, objects, scratch))
            lines.seek(0)
            with archive.open(REDIS, "w", force_zip64=True) as member:
                for line in lines:
                    member.write(line.encode())
        return count, len(objects)

    def _replaced(self, archive: ZipFile, present: set[str], scratch: Path) -> list[Entry]:
        """What names the objects that are replaced while they are in use, when all that it names is in the archive;
        missing ones are added."""
        missing: set[str] = set()
        for _ in range(TRIES):
            with self._redis.pipeline(transaction=True) as reads:
                for name in REPLACED:
                    reads.dump(name).hvals(name)
                found = reads.execute()
            named = {each.decode() for names in found[1::2] for each in names}
            present |= self._add_objects(archive, named, present, scratch)
            before, missing = missing, named - present
            if not missing or missing == before:  # else it was replaced once more
                break
        if missing:
            log.warning("named by Redis, but not in the object store, or damaged: %s", ", ".join(sorted(missing)))
        dumps = zip(REPLACED, found[::2], strict=True)
        return _entries([each for name, value in dumps if value is not None for each in (name.encode(), value, -1)])

    def _listed(self) -> Iterator[str]:
        return (each.name for stored in self._objects.all() for each in stored)

    def _add_objects(self, archive: ZipFile, names: Iterable[str], present: set[str], scratch: Path) -> set[str]:
        """Adds those of the objects that are not present yet, and returns their names."""
        added = set()
        copy = scratch / "object"
        for name in names:
            if name not in present and self._objects.get_file(name, copy):  # else deleted meanwhile, or damaged
                archive.write(copy, OBJECTS + name)
                added.add(name)
            copy.unlink(missing_ok=True)
        return added

    def _check(self, archive: ZipFile) -> None:
        try:
            about = json.loads(archive.read(MANIFEST))
        except (KeyError, ValueError) as error:
            raise BackupError(f"{archive.filename} is not a backup, or was not written to its end") from error
        if about.get("format") != FORMAT:
            raise BackupError(f"{archive.filename} is not a backup")
        if about["schema"] > SCHEMA:
            raise BackupError(
                f"the backup is from a later release (schema {about['schema']}; this one knows {SCHEMA}): restore it "
                "with that release"
            )
        if next(self._redis.scan_iter(f"{keys.PREFIX}*"), None) is not None:
            raise Conflict(
                f"a backup is restored into an empty Redis, and this one has keys {keys.PREFIX}*: {EMPTY_BOTH}"
            )
        if any(self._objects.all()) or self._objects.installations():
            raise Conflict(f"a backup is restored into an empty object store, and this one is not empty: {EMPTY_BOTH}")

    def _put_objects(self, archive: ZipFile) -> int:
        names = [name for name in archive.namelist() if name.startswith(OBJECTS)]
        for name in names:
            with archive.open(name) as packed:
                self._objects.put_file(name.removeprefix(OBJECTS), packed)
        return len(names)

    def _put_keys(self, lines: Iterator[dict[str, Any]]) -> int:
        count = 0
        try:
            with refusals_named():
                for batch in _batches(lines):
                    with self._redis.pipeline(transaction=False) as writes:
                        for each in batch:
                            value = b64decode(each["value"])
                            writes.restore(each["key"], max(each["expires_in_ms"], 0), value)
                        writes.execute()
                    count += len(batch)
                self._mend("episode")
                self._mend("training")
                self._forget_missing()
                installation = self._redis.get(keys.INSTALLATION)
        except NoPermissionError as error:
            raise Conflict(f"the user of REDIS_URL may not restore (it needs +restore): {error}") from error
        except ResponseError as error:
            if "DUMP payload" not in str(error):
                raise
            raise BackupError(
                f"this Redis cannot read it, as it is older than the one that the backup was made from: {error}"
            ) from error
        if installation is not None:
            self._objects.put_installation(installation.decode())
        return count

    def _mend(self, kind: Kind) -> None:
        """Puts each job where its state says it is."""
        queued, leases = keys.queued(kind), keys.leases(kind)
        for ids in _batches(iter(self._redis.zrange(keys.index(kind), 0, -1))):
            with self._redis.pipeline(transaction=False) as reads:
                for id in ids:
                    reads.hget(keys.record(kind, id.decode()), "state")
                states = reads.execute()
            with self._redis.pipeline(transaction=False) as writes:
                for id, state in zip(ids, states, strict=True):
                    waits, runs = state == b"queued", state in (b"adapting", b"running")
                    for place, belongs in ((queued, waits), (leases, runs)):
                        if belongs:
                            writes.zadd(place, {id: 0}, nx=True)
                        else:
                            writes.zrem(place, id)
                writes.execute()

    def _forget_missing(self) -> None:
        """Lets the next sweep remove what is left of episodes that were deleted before they were read, and forgets
        those that were created after they were listed."""
        start = keys.record("episode", "")
        for names in _batches(self._redis.scan_iter(f"{start}*")):
            places = self._redis.zmscore(keys.index("episode"), [name.decode().removeprefix(start) for name in names])
            unlisted = [name for name, place in zip(names, places, strict=True) if place is None]
            if unlisted:
                self._redis.delete(*unlisted)
        for entries in _batches(iter(self._redis.zrange(keys.EXPIRY, 0, -1))):
            ids = [entry.decode().partition(" ")[0] for entry in entries]
            for entry, missing in zip(entries, self._missing(ids), strict=True):
                if missing:
                    self._redis.zadd(keys.EXPIRY, {entry: 0})
        for names in _batches(self._redis.scan_iter(f"{keys.IDEMPOTENCY}*")):
            ids = [name_in(value or b"") for value in self._redis.mget(names)]
            for name, missing in zip(names, self._missing(ids), strict=True):
                if missing:
                    self._redis.delete(name)

    def _missing(self, ids: list[str]) -> list[bool]:
        with self._redis.pipeline(transaction=False) as reads:
            for id in ids:
                reads.exists(keys.record("episode", id), keys.record("training", id))
            return [not found for found in reads.execute()]


def _entries(flat: list[Any]) -> list[Entry]:
    triples = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    # What expires within a millisecond has not expired yet; what has expired since it was listed is gone.
    return [(name.decode(), b64encode(value).decode(), int(ms) or 1) for name, value, ms in triples if ms != GONE]


def _write(lines: IO[str], entries: Iterable[Entry]) -> int:
    """Writes a line for each; returns how many."""
    count = 0
    for name, value, ms in entries:
        lines.write(json.dumps({"key": name, "value": value, "expires_in_ms": ms}) + "\n")
        count += 1
    return count


def _batches(items: Iterator[Item]) -> Iterator[list[Item]]:
    while batch := list(islice(items, AT_ONCE)):
        yield batch
