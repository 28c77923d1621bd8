"""What is kept and needed no more: runs that ended long ago, with their checkpoints, keys that were revoked long ago,
and objects that no episode names. A worker removes them once an hour, and ``lamanas gc`` at any time."""

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from app.settings import Settings
from app.store import keys
from app.store.clients import SyncStore

DAY_S = 86_400
RUN = re.compile(r"[0-9a-hjkmnp-z]{26}")


def remove(settings: Settings, store: SyncStore, *, dry_run: bool = False) -> Iterator[str]:
    """Removes each leftover, or none with ``dry_run``, and says what it is: "run <id>" for example. Raises
    ``errors.UNAVAILABLE``; ForeignObjects, before anything is removed, if Redis and the object store do not belong
    together."""
    store.installation.check()
    before = time.time() - settings.keep_days * DAY_S
    for id in store.trainings.ended_before(before):
        # Its record first: a folder that is left behind is found without one.
        if dry_run or store.trainings.remove(id):
            yield f"run {id}"
            _remove_folder(settings.runs_dir / id, dry_run)
    for folder in _folders_without_run(settings.runs_dir, store, before):
        yield f"folder {folder}"
        _remove_folder(folder, dry_run)
    for key in store.api_keys.revoked_before(before):
        # An app whose file has the token of a revoked admin key would make it a valid key again if this were forgotten.
        if "admin" not in key.scopes:
            yield f"key {key.id}"
            if not dry_run:
                store.api_keys.remove(key.id)
    for names in store.reconciliation.unnamed_objects():
        yield from (f"object {name}" for name in names)
        if not dry_run:
            store.reconciliation.delete_objects(names)
    if not dry_run:
        store.reconciliation.remove_drafts()


def _folders_without_run(runs: Path, store: SyncStore, before: float) -> list[Path]:
    """Folders of runs that have no record. (Others may be in use: a new run has its record before its folder.)"""
    found = sorted(path for path in runs.iterdir() if RUN.fullmatch(path.name)) if runs.is_dir() else []
    return [path for path in found if path.name < keys.first_id(before) and not store.trainings.exists(path.name)]


def _remove_folder(folder: Path, dry_run: bool) -> None:
    if not dry_run:
        shutil.rmtree(folder, ignore_errors=True)
