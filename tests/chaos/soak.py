"""``make soak``: 30 minutes at half of the load that is sustained, while a part of the service is killed every minute.

First, each part is killed once; after that only the second app process and the second adapt worker are, in turns, and
the others show whether their memory grows from the tenth minute on. The tasks recur, and each classifier must predict
what that of the same task did before the first kill. The exit code is 0 only if no accepted episode was lost, doubled
or different, and no process has grown by more than 5 %.
"""

import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, count, cycle
from pathlib import Path
from typing import Any

import httpx

from lamanas_core.image_spec import ImageKind
from tests.chaos.clients import Clients, Job, Ledger, listed, predictions
from tests.chaos.installation import Installation, Part, installed
from tests.chaos.load import MEASURE_S, resident, sustained
from tests.chaos.storm import Storm
from tests.chaos.verdict import Verdict, without_faults
from tests.chaos.waiting import until
from tests.scale.filling import copy
from tests.waiting import family

SOAK_S = 1800.0
EVERY_S = 60.0
SETTLED_S = 600.0
MOST_GROWTH = 0.05
TASKS = 20
# In Redis from the start: what it keeps of a deleted episode, for a day, is little compared with them.
EPISODES = 20_000
CLIENTS = 12
# Classifiers that an app process keeps: few, so that there are as many before the tenth minute.
CACHE = 8
# The resident bytes of processes, by the name of their part and their id.
Memory = Mapping[tuple[str, int], int]


@dataclass(frozen=True)
class Recurring(Job):
    """An episode of its own for one of ``TASKS`` tasks."""

    @property
    def task(self) -> Job:
        return Job(self.number % TASKS)

    @property
    def ways_shots(self) -> tuple[int, int]:
        return self.task.ways_shots

    @property
    def kind(self) -> ImageKind:
        return self.task.kind

    def files(self) -> tuple[list[tuple[str, bytes]], list[bytes]]:
        return self.task.files()


@dataclass
class Audit:
    """Looks at each episode that has ended, and deletes it. ``expected``: the predictions for each task."""

    expected: Mapping[int, list[dict[str, Any]] | None]
    ready: set[str] = field(default_factory=set)
    photos: set[str] = field(default_factory=set)
    differing: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, client: httpx.Client, job: Job, id: str) -> None:
        found = self._patiently(lambda: predictions(client, id, job))
        with self.lock:
            if found is not None:
                self.ready.add(id)
                self.photos |= {id} if job.kind == "photos" else set()
            if found is not None and found != self.expected[job.number % TASKS]:
                self.differing.add(id)
        self._patiently(lambda: client.delete(f"/episodes/{id}").status_code in (204, 404, 410) or None)

    @staticmethod
    def _patiently(asked: Callable[[], Any]) -> Any:
        """Its first result; None if there is none while an app process and Redis are killed and restarted."""
        found: list[Any] = []

        def answered() -> bool:
            with suppress(httpx.TransportError):
                found[:] = [asked()]
            return bool(found and found[0] is not None)

        with suppress(AssertionError):
            until(answered, "an answer")
        return found[0] if found else None

    def verdict(self, ledger: Ledger, commits: Mapping[str, int]) -> Verdict:
        accepted = {id for ids in ledger.accepted.values() for id in ids}
        return Verdict(
            accepted=len(accepted),
            ready=len(accepted & self.ready),
            photos=len(accepted & self.photos),
            lost=sorted(accepted - self.ready),
            doubled=sorted(id for id in accepted if commits.get(id, 0) > 1)
            + sorted(name for name, ids in ledger.accepted.items() if len(ids) > 1),
            differing=sorted(self.differing),
            half=[],
            unanswered=len(ledger.unanswered),
        )


def paced(jobs: Iterable[Job], rate: float, seconds: float) -> Iterator[Job]:
    """Each job when it is due, ``rate`` of them a second."""
    started = time.monotonic()
    for number, job in enumerate(jobs):
        due = number / rate
        if due > seconds:
            return
        threading.Event().wait(max(0.0, started + due - time.monotonic()))
        yield job


def victims(installation: Installation) -> Iterator[Part]:
    """Each running part once; then two without which the service goes on, in turns."""
    running = [part for part in installation.parts if part.process is not None]
    return chain(running, cycle([installation.apps[-1], installation.adapters[-1]]))


def memory(installation: Installation) -> Memory:
    found = {}
    for part in installation.parts:
        for pid in family(part.pid) if part.process is not None else ():
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                found[part.name, pid] = resident(pid)
    return found


def growth(before: Memory, after: Memory) -> dict[str, float]:
    """Of the processes of each part that ran at both times, how much the one grew that grew most: 0.05 is 5 %."""
    found: dict[str, float] = {}
    for (name, pid), size in before.items():
        if (name, pid) in after:
            found[name] = max(found.get(name, -1.0), after[name, pid] / size - 1)
    return found


def soak(
    installation: Installation,
    rate: float,
    log: Callable[[str], None],
    *,
    seconds: float = SOAK_S,
    every_s: float = EVERY_S,
    settled_s: float = SETTLED_S,
) -> tuple[Verdict, dict[str, float]]:
    """What became of the episodes, and how much each part has grown since ``settled_s``."""
    storm = Storm(installation, log)
    audit = Audit(without_faults(installation, set(range(TASKS))))
    jobs = paced(map(Recurring, count()), rate, seconds)
    clients = Clients(installation, jobs, count=CLIENTS, prefix="soak", keyed_only=True, ended=audit)
    started = time.monotonic()
    clients.start()
    settled: Memory = {}
    for number, part in enumerate(victims(installation), start=1):
        due = number * every_s
        if due >= seconds:
            break
        threading.Event().wait(max(0.0, started + due - time.monotonic()))
        if due >= settled_s and not settled:
            settled = memory(installation)
        storm.wait_for_attempts()
        storm.kill(part)
    ledger = clients.wait()
    return audit.verdict(ledger, installation.commits()), growth(settled, memory(installation))


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="lam-soak-"))
    started = time.monotonic()

    def log(message: str) -> None:
        print(f"[{time.monotonic() - started:4.0f} s] {message}", flush=True)

    try:
        with installed(folder, apps=2, LAMANAS_PREDICTOR_CACHE=str(CACHE)) as installation:
            rate = sustained(installation, map(Recurring, count()), MEASURE_S) / 2
            log(f"half of what is sustained: {rate:.1f} episodes/s")
            with installation.client() as client:
                ready = next(episode["id"] for episode in listed(client) if episode["state"] == "ready")
            copy(installation.redis_client, installation.settings.objects_dir, ready, EPISODES)
            verdict, grown = soak(installation, rate, log)
            figures = ", ".join(f"{name} {share:+.1%}" for name, share in grown.items())
            print(f"soak: {verdict}, memory {figures}", flush=True)
            if not verdict.holds:
                print(verdict.__dict__, file=sys.stderr)
            return 0 if verdict.holds and max(grown.values()) <= MOST_GROWTH else 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
