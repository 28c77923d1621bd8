"""Whether this Redis and this object store belong together: both have the random id of their installation. Only then is
an object that Redis does not name a leftover; a Redis that has lost its data names none."""

from typing import Any

from redis import Redis

from app.store import keys
from app.store.errors import ForeignObjects, LaterRelease, refusals_named
from app.store.objects import Objects
from app.store.records import text

# The form of what is kept in Redis and in the object store. It grows with a change that the release before cannot live
# with: that one then refuses to start, instead of damaging what it does not understand. 2: support sets may have images
# without a label, which a release that knows 1 would take for images of the last class.
SCHEMA = 2
# How long Redis has a new id that the object store does not have yet: its writer may be killed before.
NEW_S = 60
_NAMING = (keys.SUPPORT_SETS, keys.CLASSIFIERS, keys.CHECKPOINTS, keys.DATASETS, keys.BACKBONES)


class Installation:
    """Blocking."""

    def __init__(self, redis: Redis, objects: Objects) -> None:
        self._redis: Any = redis
        self._objects = objects

    @refusals_named()
    def admit(self) -> None:
        """To be called by each process at its start: ``schema``, and what it returns is this release's afterwards. May
        raise ``errors.UNAVAILABLE``."""
        if self.schema() < SCHEMA:
            self._redis.set(keys.SCHEMA, SCHEMA)

    @refusals_named()
    def schema(self) -> int:
        """The form of what is kept; 0 if nothing is. Raises LaterRelease if this release does not understand it. May
        raise ``errors.UNAVAILABLE``."""
        found = int(self._redis.get(keys.SCHEMA) or 0)
        if found > SCHEMA:
            raise LaterRelease(found, SCHEMA)
        return found

    @refusals_named()
    def check(self) -> None:
        """Raises ForeignObjects unless Redis and the object store have the same id. They get one here where neither has
        one and Redis names objects or there are none. May raise ``errors.UNAVAILABLE``."""
        own, found = self.ids()
        if own is not None and found == [own]:
            return
        is_new = own is None and bool(self._redis.exists(*_NAMING))
        if not found and (is_new or not any(self._objects.all())):
            self._mark(own)
        elif own is None and not found:
            raise ForeignObjects("Redis names none of the objects that the object store has")
        else:
            raise ForeignObjects(differing(own, found))

    def ids(self) -> tuple[str | None, list[str]]:
        """The id that Redis has, and those in the object store: one, if all is well."""
        return text(self._redis.get(keys.INSTALLATION)), self._objects.installations()

    def _mark(self, own: str | None) -> None:
        if own is None:
            self._redis.set(keys.INSTALLATION, keys.new_id(), nx=True, ex=NEW_S)
            own = self._redis.get(keys.INSTALLATION).decode()  # perhaps that of another worker
        self._objects.put_installation(own)
        self._redis.set(keys.INSTALLATION, own)


def differing(own: str | None, found: list[str]) -> str:
    """What is wrong where ``ids`` differ, in words."""
    return (
        f"the installation in Redis ({keys.INSTALLATION}) is {own or 'none'}, "
        f"that in the object store (installation/) {', '.join(found) or 'none'}"
    )
