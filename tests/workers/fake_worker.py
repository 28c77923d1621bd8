"""``python -m tests.workers.fake_worker adapt|train``: a real worker whose pool learns nothing (see fake_learner).

``DEAF_TO_FIRST`` in the environment: its first acknowledgement of a message fails, as when Redis dies in the middle.
Then the Redis list of that name has an entry.
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

DEAF = "DEAF_TO_FIRST"


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
    # It works so little that waiting for a free processor would be most of a test.
    NICE.update({"adapt": 0, "train": 0})
    app = worker_app(settings)
    app.conf.imports = ("tests.workers.fake_learner", *app.conf.imports)
    if DEAF in os.environ:
        lose_first_acknowledgement(settings.store_url)
    sys.exit(run(app, settings, cast(Queue, sys.argv[1])))
