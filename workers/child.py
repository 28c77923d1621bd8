"""The state that a pool process keeps between tasks."""

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, cast

from app.settings import Settings
from app.store.clients import SyncStore
from workers.learner import Learner

NAME = "LAMANAS_WORKER_NAME"
QUEUE = "LAMANAS_WORKER_QUEUE"


@dataclass(frozen=True)
class Child:
    """Created once in each pool process, whose parent passes its queue and name in the environment."""

    settings: Settings
    store: SyncStore
    queue: Literal["adapt", "train"]
    name: str

    @classmethod
    def from_environment(cls) -> "Child":
        settings = Settings()
        queue = cast(Literal["adapt", "train"], os.environ[QUEUE])
        return cls(settings, SyncStore.open(settings), queue, os.environ[NAME])

    @cached_property
    def learner(self) -> Learner:
        threads = self.settings.adapt_threads if self.queue == "adapt" else self.settings.train_threads
        return Learner(self.settings, self.store, threads)
