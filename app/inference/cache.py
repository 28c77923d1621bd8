"""The classifiers of finished episodes; the most recently used ones stay open."""

import asyncio
import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from app.store import deadline
from app.store.clients import Store
from app.store.errors import ObjectsUnavailableError
from app.telemetry.metrics import Metrics
from lamanas_core.artifact import ArtifactError, Classifier
from lamanas_core.backbones.storage import BackboneError

T = TypeVar("T")


@dataclass(frozen=True)
class OpenClassifier:
    """A classifier that is ready for use.

    ``digest``: the SHA-256 of its artifact, in hexadecimal. ``owner``: the tenant of its episode. ``seconds``: the
    processor time that it takes for one image.
    """

    classifier: Classifier
    digest: str
    owner: str
    seconds: float

    @classmethod
    def from_bytes(cls, artifact: bytes, owner: str) -> "OpenClassifier":
        classifier = Classifier.from_bytes(artifact)
        blank = np.zeros((1, *classifier.image.shape), np.uint8)
        classifier.answers(blank)  # the first call allocates memory
        started = time.thread_time()
        classifier.answers(blank)
        seconds = time.thread_time() - started
        return cls(classifier, hashlib.sha256(artifact).hexdigest(), owner, seconds)


class ClassifierCache:
    """Does not check whether an episode still exists: a classifier may stay open after its episode has expired."""

    def __init__(self, store: Store, metrics: Metrics, *, capacity: int) -> None:
        self._store = store
        self._metrics = metrics
        self._capacity = capacity
        self._open: OrderedDict[str, asyncio.Task[OpenClassifier]] = OrderedDict()
        self._threads = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="predict")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def opened(self, id: str) -> OpenClassifier | None:
        """The classifier of an episode, if it is open. The caller must check its ``owner``."""
        task = self._open.get(id)
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return None
        self._metrics.classifier_cache.labels("hit").inc()
        self._open.move_to_end(id)
        self._store.episodes.mark_used(id)
        return task.result()

    async def loaded(self, id: str, owner: str) -> OpenClassifier:
        """The classifier of an episode of this owner; concurrent calls open it only once.

        Raises what ``Store.episodes.artifact`` raises.
        """
        task = self._open.get(id)
        self._metrics.classifier_cache.labels("miss" if task is None else "hit").inc()
        if task is None:
            task = asyncio.create_task(self._load(id, owner))
            self._open[id] = task
            task.add_done_callback(lambda done: self._forget_if_failed(id, done))
            while len(self._open) > self._capacity:
                self._open.popitem(last=False)
        self._open.move_to_end(id)
        # Shielded: if one client disconnects, the others still receive the classifier.
        return await asyncio.shield(task)

    def forget(self, id: str) -> None:
        self._open.pop(id, None)

    async def run(self, work: Callable[[], T]) -> T:
        """Runs ``work`` in one of the threads for predictions."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _load(self, id: str, owner: str) -> OpenClassifier:
        with deadline.limited():  # not that of the request which began it: others wait for it too
            artifact = await self._store.episodes.artifact(id)

        async def opened() -> OpenClassifier:
            return await self.run(lambda: OpenClassifier.from_bytes(artifact, owner))

        try:
            return await self._store.backbones.provided_for(opened)
        except (ArtifactError, BackboneError) as error:
            raise ObjectsUnavailableError(f"the classifier of episode {id} cannot be opened: {error}") from error

    def _forget_if_failed(self, id: str, task: asyncio.Task[OpenClassifier]) -> None:
        if (task.cancelled() or task.exception() is not None) and self._open.get(id) is task:
            del self._open[id]
