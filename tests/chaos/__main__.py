"""``make chaos``: at least 200 episodes from several clients while every part is killed again and again.

Its last line is the verdict; it ends with 0 only if nothing accepted was lost, doubled or different.
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
from tests.chaos.training import kill_a_training
from tests.chaos.verdict import reach_verdict

EPISODES = 200
EVERY_S = 4.0


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="lam-chaos-"))
    started = time.monotonic()

    def say(what: str) -> None:
        print(f"[{time.monotonic() - started:4.0f} s] {what}", flush=True)

    try:
        with installed(folder) as installation:
            storm = Storm(installation, say)
            clients = Clients(installation, map(Job, count()))
            clients.start()
            between = threading.Event()
            for step in (
                storm.before_commit,
                storm.app,
                storm.after_commit,
                storm.thought_dead,
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
            say(f"{len(ledger)} accepted; the same tasks once more, undisturbed")
            verdict = reach_verdict(installation, ledger)
            say(f"{verdict.unanswered} requests got no 202: absent or complete, {len(verdict.half)} halfway")
            say(f"without the training run: {verdict}")
            kill_a_training(installation, storm)
            print(verdict, flush=True)
            if not verdict.holds:
                print(verdict.__dict__, file=sys.stderr)
            return 0 if verdict.holds else 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
