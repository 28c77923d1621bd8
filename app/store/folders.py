"""Folders in the object store, packed into one object each: the operator's data sets, and what unfinished training runs
resume from. So workers on any machine have them, though each trains in folders of its own disk."""

import logging
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

from redis import Redis

from app.store import keys
from app.store.claims import Claim
from app.store.errors import NotFound, refusals_named
from app.store.objects import Objects, checkpoint_name, dataset_name, delete_dropped, digest_of_file
from app.store.records import text
from app.store.registry import run, script
from lamanas_core import layout

log = logging.getLogger(__name__)
_KEEP = script("keep_checkpoint")
# In the folder of a run: the name of the object that it was last packed into or unpacked from.
STORED_AS = ".stored-as"
# What a run does not resume from.
LEFT_OUT = ("tensorboard",)


class Folders:
    """Blocking; every method may raise ``errors.UNAVAILABLE``, and OSError for what is on this machine."""

    def __init__(self, redis: Redis, objects: Objects) -> None:
        self._redis: Any = redis
        self._objects = objects

    def keep_checkpoint(self, claim: Claim, epoch: int, folder: Path) -> bool:
        """Stores the run's ``folder`` as what it resumes from, in place of what was stored before; False, and nothing
        is kept, if the claim is no longer valid. A claim's epochs are stored once each."""
        files = [path for path in _files(folder) if path.parts[0] not in (*LEFT_OUT, STORED_AS)]
        with tempfile.TemporaryFile("w+b", dir=folder.parent) as packed:
            _pack(folder, files, packed)
            name = checkpoint_name(claim.id, claim.fence, epoch, digest_of_file(packed))
            self._objects.put_file(name, packed)
        call = _KEEP(
            record=keys.record("training", claim.id),
            checkpoints=keys.CHECKPOINTS,
            id=claim.id,
            fence=claim.fence,
            name=name,
        )
        before: bytes | None = run(self._redis, call)
        if before is None:
            delete_dropped(self._objects, [name.encode()])
            return False
        delete_dropped(self._objects, [before] if before else [])
        (folder / STORED_AS).write_text(name)
        return True

    def fetch_checkpoint(self, id: str, folder: Path) -> None:
        """Makes ``folder`` what the run resumes from, unless another worker has not got further than this folder is."""
        name = text(self._redis.hget(keys.CHECKPOINTS, id))
        mark = folder / STORED_AS
        if name is None or (mark.is_file() and mark.read_text() == name):
            return
        try:
            self._unpack(name, folder, replace=True)
        except NotFound as error:
            log.warning("run %s goes on from what this machine has of it: %s", id, error)
        else:
            mark.write_text(name)

    def put_dataset(self, name: str, folder: Path, scratch: Path) -> int:
        """Stores a folder of images by this name, in place of what was stored by it; returns how many files it has. It
        is packed in the folder ``scratch``. Raises ValueError if there are no files."""
        files = [Path(path) for path in layout.listing(folder) if not (path.endswith("/") or layout.is_litter(path))]
        if not files:
            raise ValueError(f"{folder} has no files")
        with tempfile.TemporaryFile("w+b", dir=scratch) as packed:
            _pack(folder, files, packed)
            stored = dataset_name(keys.new_id(), digest_of_file(packed))
            self._objects.put_file(stored, packed)
        with refusals_named():
            [before, _] = self._redis.pipeline().hget(keys.DATASETS, name).hset(keys.DATASETS, name, stored).execute()
        delete_dropped(self._objects, [before] if before else [])
        return len(files)

    def datasets(self) -> list[str]:
        """The names of all data sets that are stored, sorted."""
        return sorted(name.decode() for name in self._redis.hkeys(keys.DATASETS))

    def remove_dataset(self, name: str) -> None:
        """Raises NotFound. Runs that use it go on until they have to read it again."""
        with refusals_named():
            [stored, _] = self._redis.pipeline().hget(keys.DATASETS, name).hdel(keys.DATASETS, name).execute()
        if stored is None:
            raise NotFound(f"there is no stored data set {name!r}")
        delete_dropped(self._objects, [stored])

    def dataset(self, name: str, cache: Path) -> Path | None:
        """A folder of the data set's name within ``cache``, unpacked if it is not there yet; None if none is stored by
        this name. What was unpacked before of other data sets by this name is removed."""
        stored = text(self._redis.hget(keys.DATASETS, name))
        if stored is None:
            return None
        folder = cache / stored.partition("/")[2] / name
        if not folder.is_dir():
            for former in cache.glob(f"*/{name}"):
                shutil.rmtree(former.parent, ignore_errors=True)
            self._unpack(stored, folder, replace=False)
        return folder

    def _unpack(self, name: str, folder: Path, *, replace: bool) -> None:
        """Unpacks what was stored by this name, in place of ``folder`` or where there is none. Raises NotFound."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as draft:
            packed, whole = Path(draft, "packed"), Path(draft, "whole")
            if not self._objects.get_file(name, packed):
                raise NotFound(
                    f"{name} is not in the object store; it must be the same for all workers (LAMANAS_OBJECTS)"
                )
            with ZipFile(packed) as archive:
                archive.extractall(whole)
            if replace:
                shutil.rmtree(folder, ignore_errors=True)
            try:
                whole.rename(folder)
            except OSError:
                if replace or not folder.is_dir():  # otherwise, another worker has unpacked the same
                    raise


def _files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def _pack(folder: Path, files: Iterable[Path], into: Any) -> None:
    """Writes the files as a zip. Images and weights are compressed already, or cannot be."""
    with ZipFile(into, "w", ZIP_STORED, strict_timestamps=False) as archive:
        for path in files:
            archive.write(folder / path, path.as_posix())
    into.seek(0)
