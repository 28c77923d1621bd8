"""``make chaos``: at least 200 episodes from several clients, while every part of the service is killed repeatedly.

The last line is the verdict. The exit code is 0 only if no accepted episode was lost, doubled or different, and some
were of photos.
"""

import shutil
import sys
import tempfile
import threading
import time
from itertools import count
from pathlib import Path

from tests.chaos.clients import Clients, Job
from tests.chaos.installation import installed
from tests.chaos.storm import Storm
from tests.chaos.training import kill_training
from tests.chaos.verdict import reach_verdict

EPISODES = 200
EVERY_S = 4.0


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="lam-chaos-"))
    started = time.monotonic()

    def log(message: str) -> None:
        print(f"[{time.monotonic() - started:4.0f} s] {message}", flush=True)

    try:
        with installed(folder) as installation:
            storm = Storm(installation, log)
            clients = Clients(installation, map(Job, count()))
            clients.start()
            between = threading.Event()
            for step in (
                storm.before_commit,
                storm.app,
                storm.after_commit,
                storm.suspended_worker,
                storm.redis,
                storm.poison,
                storm.rolling_restart,
            ):
                storm.worker()
                between.wait(EVERY_S)
                step()
            while len(clients.ledger) < EPISODES:
                storm.worker()
                between.wait(EVERY_S)
            ledger = clients.finish()
            installation.until_workers(2)
            log(f"{len(ledger)} accepted; now the same tasks once more, without faults")
            verdict = reach_verdict(installation, ledger)
            log(f"{verdict.unanswered} requests received no 202; {len(verdict.half)} of their episodes are incomplete")
            log(f"before the training run: {verdict}")
            kill_training(installation, storm)
            print(f"chaos: {verdict}", flush=True)
            both = 0 < verdict.photos < verdict.ready
            if not verdict.holds or not both:
                print(verdict.__dict__, file=sys.stderr)
            return 0 if verdict.holds and both else 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
