"""The installation that runs on this machine's settings, spoken to past the app: what only its operator may do."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.settings import Settings
from app.store.clients import SyncStore
from app.store.errors import UNAVAILABLE
from cli.errors import CommandError


@contextmanager
def store() -> Iterator[SyncStore]:
    """The store on this data directory or REDIS_URL. Raises CommandError where it does not answer."""
    settings = Settings()
    found = SyncStore.open(settings)
    try:
        yield found
    except UNAVAILABLE as error:
        what = "is `lamanas serve` running on this LAMANAS_DATA_DIR?" if settings.embedded else "see REDIS_URL"
        raise CommandError(f"Redis does not answer ({what}): {error}") from error
    finally:
        found.close()
