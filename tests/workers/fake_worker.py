"""``python -m tests.workers.fake_worker adapt|train``: a real worker with a fake learner (see fake_learner).

If ``LOSE_FIRST_ACKNOWLEDGEMENT`` is set in the environment, the first acknowledgement of a message fails, as if Redis
died at that moment, and an entry is added to the Redis list of that name.
"""

import os
import sys
from collections.abc import Callable
from typing import Any, cast

from kombu.transport.redis import QoS
from redis import Redis
from redis.exceptions import ConnectionError as LostConnection

from app.settings import Settings
from app.store.records import Queue
from workers.main import NICE, run, worker_app

DEAF = "LOSE_FIRST_ACKNOWLEDGEMENT"


def lose_first_acknowledgement(store_url: str) -> None:
    acknowledge = QoS.ack

    def replace(function: Callable[[Any, str], None]) -> None:
        setattr(QoS, "ack", function)  # noqa: B010 (the type checker knows it is a method)

    def lost(self: Any, tag: str) -> None:
        replace(acknowledge)
        Redis.from_url(store_url).rpush(DEAF, tag)
        raise LostConnection("Connection closed by server.")

    replace(lost)


if __name__ == "__main__":
    settings = Settings()
    # Its jobs are so short that a low priority would only make it wait for a free processor.
    NICE.update({"adapt": 0, "train": 0})
    app = worker_app(settings)
    app.conf.imports = ("tests.workers.fake_learner", *app.conf.imports)
    if DEAF in os.environ:
        lose_first_acknowledgement(settings.store_url)
    sys.exit(run(app, settings, cast(Queue, sys.argv[1])))
