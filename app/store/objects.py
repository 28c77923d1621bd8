"""Bytes in a folder or a bucket, whose names Redis keeps: support sets, classifiers, packed folders and backbones.

A name contains the id of what it belongs to and the digest of its bytes, and if a worker has made it, the fence of its
claim: no two writers share a name, nothing is overwritten with other bytes, and a name is never used again after it was
deleted. So nobody has to count who uses an object, and a late deletion can hit no other one.
"""

import asyncio
import hashlib
import logging
import math
import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

from app.settings import Settings
from app.store.errors import ObjectsUnavailableError

if TYPE_CHECKING:
    from obstore.store import ObjectStore, RetryConfig

log = logging.getLogger(__name__)
# Of a bucket: about as long as clients of Redis try again. (Options of its HTTP client would replace AWS_ALLOW_HTTP.)
RETRIES: "RetryConfig" = {"max_retries": 5, "retry_timeout": timedelta(seconds=3)}
# How long a request waits for an answer, and at which rate (4 MB/s) it waits for the bytes: a bucket that is slow but
# works is faster; one that hangs would hold the request for minutes.
ANSWER_S = 10.0
# How long the store counts as not responding after a failure, if nothing has used it since.
FAILED_S = 10.0
BYTES_PER_S = 2**22
SUPPORT, CLASSIFIERS, CHECKPOINTS = "support", "classifiers", "checkpoints"
DATASETS, BACKBONES = "datasets", "backbones"
# What S3, Google Cloud Storage and Azure say if there is no such bucket. obstore reports it like a missing object.
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
INSTALLATION = "installation"  # an empty object in it is named by the id of the installation (see installation.py)
# What a killed writer leaves behind in a folder: obstore renames it when it is complete.
_DRAFTS = "*/*#*"


def support_name(id: str, data: bytes) -> str:
    """The name of an episode's support set."""
    return f"{SUPPORT}/{id}.{_digest(data)}"


def classifier_name(id: str, fence: int, data: bytes) -> str:
    """The name of an episode's classifier, from the claim with this fence."""
    return f"{CLASSIFIERS}/{id}.{fence}.{_digest(data)}"


def checkpoint_name(id: str, fence: int, epoch: int, digest: str) -> str:
    """The name of what a run resumes from, from the claim with this fence."""
    return f"{CHECKPOINTS}/{id}.{fence}.{epoch}.{digest}"


def dataset_name(id: str, digest: str) -> str:
    """The name of a data set, by an id of its own."""
    return f"{DATASETS}/{id}.{digest}"


def backbone_name(id: str, digest: str) -> str:
    """The name of a backbone, by an id of its own."""
    return f"{BACKBONES}/{id}.{digest}"


def digest_in(name: str) -> str:
    """The digest of the object, in hexadecimal."""
    return name.rpartition(".")[2]


def owner_of(name: str) -> str:
    """The id of the episode, the run, the data set or the backbone to which the object belongs."""
    return name.partition("/")[2].partition(".")[0]


def name_in(entry: bytes) -> str:
    """The name in what SUPPORT_SETS or CLASSIFIERS has of an episode."""
    return entry.decode().partition(" ")[0]


@dataclass(frozen=True)
class Stored:
    """An object, and how many seconds ago it was written."""

    name: str
    age: float


class Objects:
    """Every method may raise ObjectsUnavailableError. Safe to share between threads; those named ``..._async`` are for
    the app's event loop, and wait for a limited time."""

    def __init__(self, url: str | None, folder: Path) -> None:
        self._url = url
        self._folder = folder if url is None else None
        self._failed_at = -math.inf

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Connects, or creates its folder, when it is first used."""
        return cls(settings.objects, settings.objects_dir)

    @cached_property
    def _store(self) -> "ObjectStore":
        if self._folder is None:
            return from_url(str(self._url), retry_config=RETRIES)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return LocalStore(self._folder)

    @property
    def responds(self) -> bool:
        """False for some seconds after a use that has failed, unless another one has succeeded since. Asks nothing."""
        return time.monotonic() - self._failed_at > FAILED_S

    @contextmanager
    def _using(self, *, may_be_missing: bool = False) -> Iterator[None]:
        """As ``_failures_named``; it also notes whether the store responds."""
        try:
            with _failures_named(may_be_missing=may_be_missing):
                yield
        except ObjectsUnavailableError:
            self._failed_at = time.monotonic()
            raise
        except FileNotFoundError:
            self._failed_at = -math.inf
            raise
        self._failed_at = -math.inf

    def put(self, name: str, data: bytes) -> None:
        """The bytes are durable when this returns."""
        with self._using():
            obstore.put(self._store, name, data)
            if self._folder is not None:
                _sync(self._folder / name)

    def put_file(self, name: str, file: IO[bytes]) -> None:
        """As ``put``, of a file from where it is read; in parts, where it is large."""
        with self._using():
            obstore.put(self._store, name, file)
            if self._folder is not None:
                _sync(self._folder / name)

    async def put_async(self, name: str, data: bytes) -> None:
        """As ``put``."""
        with self._using():
            async with _limited(len(data)):
                if self._folder is not None:  # two syncs, which take longer than passing them to a thread
                    await asyncio.to_thread(self.put, name, data)
                else:
                    await obstore.put_async(self._store, name, data)

    def get(self, name: str, most: float = math.inf) -> bytes | None:
        """None if it is not there, or damaged, or has more than ``most`` bytes."""
        try:
            with self._using(may_be_missing=True):
                found = obstore.get(self._store, name)
                if found.meta["size"] > most:
                    return None
                data = bytes(found.bytes())
        except FileNotFoundError:
            return None
        return data if name.endswith(_digest(data)) else None

    def get_file(self, name: str, path: Path) -> bool:
        """Writes it to a new file; False if it is not there, or damaged."""
        with path.open("x+b") as file:
            try:
                for part in self._parts(name):
                    file.write(part)
            except FileNotFoundError:
                return False
            return name.endswith(digest_of_file(file))

    def _parts(self, name: str) -> Iterator[bytes]:
        """Its bytes, in parts. Raises FileNotFoundError."""
        with self._using(may_be_missing=True):
            parts = iter(obstore.get(self._store, name).stream())
        while True:
            with self._using():
                part = next(parts, None)
            if part is None:
                return
            yield bytes(part)

    async def get_async(self, name: str, most: float = math.inf) -> bytes | None:
        """As ``get``."""
        if self._folder is not None:
            with self._using():
                async with _limited():
                    return await asyncio.to_thread(self.get, name, most)
        try:
            with self._using(may_be_missing=True):
                async with _limited():
                    found = await obstore.get_async(self._store, name)
                if found.meta["size"] > most:
                    return None
                async with _limited(found.meta["size"]):
                    data = bytes(await found.bytes_async())
        except FileNotFoundError:
            return None
        return data if name.endswith(_digest(data)) else None

    def delete(self, names: Iterable[str]) -> None:
        """Those that are not there are deleted already."""
        listed = list(names)
        with suppress(FileNotFoundError), self._using(may_be_missing=True):
            obstore.delete(self._store, listed)
            return
        for name in listed:  # in a folder, and in some buckets, it has stopped at one that is not there
            with suppress(FileNotFoundError), self._using(may_be_missing=True):
                obstore.delete(self._store, name)

    def probe(self) -> None:
        """Writes, reads and deletes a small object. (Named like a support set, it would be swept if it were left.)
        Raises ObjectsUnavailableError, which says what cannot be done."""
        data = os.urandom(64)
        name = support_name(os.urandom(8).hex(), data)
        with _named("no object can be written"):
            self.put(name, data)
        with _named("an object that was just written cannot be read"):
            if self.get(name) != data:
                raise ObjectsUnavailableError("it is not there, or has other bytes")
        with _named("an object can be written and read, but not deleted"):
            self.delete([name])
            if self.get(name) is not None:
                raise ObjectsUnavailableError("it is still there")

    def all(self) -> Iterator[list[Stored]]:
        """All objects, in lists of limited length."""
        for prefix in (SUPPORT, CLASSIFIERS, CHECKPOINTS, DATASETS, BACKBONES):
            yield from self._all(prefix)

    def _all(self, prefix: str) -> Iterator[list[Stored]]:
        with _failures_named():
            for found in obstore.list(self._store, prefix, chunk_size=500):
                now = datetime.now(UTC)
                yield [Stored(each["path"], (now - each["last_modified"]).total_seconds()) for each in found]

    def installations(self) -> list[str]:
        """The ids of the installations that have used this store: one, if all is well."""
        return [each.name.partition("/")[2] for found in self._all(INSTALLATION) for each in found]

    def put_installation(self, id: str) -> None:
        self.put(f"{INSTALLATION}/{id}", b"")

    def remove_drafts(self, older_than_s: float) -> None:
        """Removes what writers left behind that were killed; a bucket does so by a rule (see docs/operations.md)."""
        now = datetime.now(UTC).timestamp()
        for draft in self._folder.glob(_DRAFTS) if self._folder is not None else ():
            with suppress(OSError):  # its writer has finished
                if now - draft.stat().st_mtime > older_than_s:
                    draft.unlink()


def delete_dropped(objects: Objects, names: Sequence[bytes]) -> None:
    """Deletes what a script has returned as dropped. What cannot be deleted now is swept later."""
    try:
        objects.delete(name.decode() for name in names)
    except ObjectsUnavailableError as error:
        log.warning("%d dropped objects not deleted now, left to the sweep: %s", len(names), error)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_of_file(file: BufferedRandom | BufferedReader) -> str:
    """The digest that names what is in the file, which is then read from its beginning again."""
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    return digest


def _sync(path: Path) -> None:
    for each in (path, path.parent, path.parent.parent):
        handle = os.open(each, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@asynccontextmanager
async def _limited(size: int = 0) -> AsyncIterator[None]:
    """Around whatever waits for the store in a request, for an answer and ``size`` bytes."""
    seconds = ANSWER_S + size / BYTES_PER_S
    try:
        async with asyncio.timeout(seconds) as timeout:
            yield
    except TimeoutError as error:
        if not timeout.expired():
            raise
        text = f"the object store does not respond: no answer within {seconds:.0f} s"
        raise ObjectsUnavailableError(text) from error


@contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except ObjectsUnavailableError as error:
        raise ObjectsUnavailableError(f"{what}: {error}") from error


@contextmanager
def _failures_named(*, may_be_missing: bool = False) -> Iterator[None]:
    """Raises ObjectsUnavailableError for what fails; FileNotFoundError for an object that is missing, if it may be."""
    try:
        yield
    except (BaseError, OSError) as error:
        # obstore's messages end with a dump for its developers.
        text = str(error).partition("\n\nDebug source")[0]
        if may_be_missing and isinstance(error, FileNotFoundError) and not any(code in text for code in _NO_BUCKET):
            raise
        raise ObjectsUnavailableError(f"the object store does not respond: {text}") from error
