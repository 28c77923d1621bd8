"""Direct access to the store of this machine's installation, for commands of its operator."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

from app.settings import Settings
from app.store import suitability
from app.store.clients import SyncStore
from app.store.connections import ANSWER_S
from app.store.errors import UNAVAILABLE, LaterRelease, ObjectsUnavailableError
from cli.errors import CommandError

log = logging.getLogger("lamanas")
# How long a backup waits for Redis, which hands over the lists of 100,000 episodes in seconds.
PATIENT_S = 60.0


def look_at_redis(settings: Settings) -> None:
    """Says what is wrong with Redis. Raises CommandError for what cannot work, or would lose what is accepted."""
    where = "the private Redis" if settings.embedded else "the Redis at REDIS_URL"
    try:
        findings = suitability.examine(settings).findings
    except RedisError as error:
        wrong = [each.found for each in suitability.sentinels(settings)]
        raise CommandError("; ".join([f"{where} does not respond: {error}", *wrong])) from error
    for finding in findings:
        words = f"{where}: {finding.found}; to fix it, {finding.fix}"
        if finding.refused(settings):
            if finding.state == "lossy":
                words += "; or set LAMANAS_REDIS_MAY_LOSE_DATA=true to start all the same"
            raise CommandError(words)
        log.log(logging.INFO if finding.state == "unseen" else logging.WARNING, "%s", words)


@contextmanager
def store(answer_s: float = ANSWER_S) -> Iterator[SyncStore]:
    """The store of this data directory or REDIS_URL. Raises CommandError if Redis, within ``answer_s``, or the object
    store does not respond."""
    settings = Settings()
    found = SyncStore.open(settings, answer_s)
    try:
        found.installation.schema()
        yield found
    except (ObjectsUnavailableError, LaterRelease) as error:
        raise CommandError(str(error)) from error
    except UNAVAILABLE as error:
        what = "is `lamanas serve` running on this LAMANAS_DATA_DIR?" if settings.embedded else "see REDIS_URL"
        raise CommandError(f"Redis does not respond ({what}): {error}") from error
    finally:
        found.close()
