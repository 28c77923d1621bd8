"""Backbones that do not ship with the package, in the object store: each is stored with the first model that needs it,
and a machine that lacks its file fetches it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from app.store import keys
from app.store.errors import ObjectsUnavailableError
from app.store.objects import Objects, backbone_name, digest_in, digest_of_file
from app.store.records import text
from lamanas_core.backbones.storage import BackboneError, MissingBackboneError, digest_fits, own_file
from lamanas_core.files import write_whole

# Larger files are neither stored nor fetched. (Networks that a processor runs within a second have 5 to 400 MB.)
MAX_BYTES = 512 * 2**20
Result = TypeVar("Result")


class Backbones:
    """The asynchronous half."""

    def __init__(self, redis: AsyncRedis, objects: Objects) -> None:
        self._redis: Any = redis
        self._objects = objects

    async def provided_for(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """What ``work`` returns. If it raises MissingBackboneError, the backbone is fetched, and it is called again.

        May raise ``errors.UNAVAILABLE``: ObjectsUnavailableError, too, if the backbone is not stored.
        """
        try:
            return await work()
        except MissingBackboneError as error:
            name = error.name
        stored = _fitting(name, await self._redis.hget(keys.BACKBONES, name))
        data = None if stored is None else await self._objects.get_async(stored, most=MAX_BYTES)
        if data is None:
            raise ObjectsUnavailableError(_missing(name))
        await asyncio.to_thread(write_whole, own_file(name), data)
        return await work()


class SyncBackbones:
    """The blocking half. Every method may raise ``errors.UNAVAILABLE``."""

    def __init__(self, redis: Redis, objects: Objects) -> None:
        self._redis: Any = redis
        self._objects = objects

    def store(self, name: str) -> str:
        """Stores this machine's file of the backbone; returns the name of the object, which nothing names yet. Raises
        BackboneError if it is too large."""
        with own_file(name).open("rb") as file:
            size = file.seek(0, 2)
            if size > MAX_BYTES:
                raise BackboneError(
                    f"the backbone {name!r} has {size / 2**20:.0f} MiB, and services take {MAX_BYTES >> 20} at most"
                )
            stored = backbone_name(keys.new_id(), digest_of_file(file))
            self._objects.put_file(stored, file)
        return stored

    def provided_for(self, work: Callable[[], Result]) -> Result:
        """What ``work`` returns. If it raises MissingBackboneError, the backbone is fetched, and it is called again.

        Raises BackboneError if the backbone is not stored.
        """
        try:
            return work()
        except MissingBackboneError as error:
            name = error.name
        stored = _fitting(name, self._redis.hget(keys.BACKBONES, name))
        data = None if stored is None else self._objects.get(stored, most=MAX_BYTES)
        if data is None:
            raise BackboneError(_missing(name))
        write_whole(own_file(name), data)
        return work()


def _fitting(name: str, entry: bytes | None) -> str | None:
    """The object that BACKBONES has for this backbone; None if there is none, or its digest is not that of the name."""
    stored = text(entry)
    return stored if stored is not None and digest_fits(name, digest_in(stored)) else None


def _missing(name: str) -> str:
    return (
        f"there is no backbone {name!r}, neither on this machine nor in the object store: add its model again "
        "(lamanas models add) on a machine that has its file"
    )
