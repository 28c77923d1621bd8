"""``python -m tests.workers.fake_worker adapt|train``: a real worker whose pool learns nothing (see fake_learner)."""

import sys
from typing import cast

from app.settings import Settings
from app.store.records import Queue
from workers.main import run, worker_app

if __name__ == "__main__":
    settings = Settings()
    app = worker_app(settings)
    app.conf.imports = ("tests.workers.fake_learner", *app.conf.imports)
    sys.exit(run(app, settings, cast(Queue, sys.argv[1])))
