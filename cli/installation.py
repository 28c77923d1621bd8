"""Direct access to the store of this machine's installation, for commands of its operator."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.settings import Settings
from app.store.clients import SyncStore
from app.store.errors import UNAVAILABLE, ObjectsUnavailableError
from cli.errors import CommandError


@contextmanager
def store() -> Iterator[SyncStore]:
    """The store of this data directory or REDIS_URL. Raises CommandError if Redis or the object store does
    not respond."""
    settings = Settings()
    found = SyncStore.open(settings)
    try:
        yield found
    except ObjectsUnavailableError as error:
        raise CommandError(str(error)) from error
    except UNAVAILABLE as error:
        what = "is `lamanas serve` running on this LAMANAS_DATA_DIR?" if settings.embedded else "see REDIS_URL"
        raise CommandError(f"Redis does not respond ({what}): {error}") from error
    finally:
        found.close()
