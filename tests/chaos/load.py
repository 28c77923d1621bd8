"""``python -m tests.chaos.load``, or ``make load``: four times the sustained load, for two minutes.

Measures how many episodes per second the two workers finish, then submits four times as many; two of seven are of
photos. The exit code is 0 only if every request was accepted or refused with ``Retry-After``, all accepted episodes
became ready, each from the model for its kind of images and some of each kind, and health checks and metrics always
responded.
"""

import itertools
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from lamanas_core.image_spec import ImageKind
from tests.chaos.clients import Clients, Job, until_ended
from tests.chaos.installation import Installation, installed
from tests.end_to_end.client import support_json

FACTOR = 4
OVERLOAD_S = 120.0
MEASURE_S = 30.0
# Small, so that the queue is full most of the time.
MAX_QUEUE = 50
SENDERS = 64
REFUSALS = (429, 503)


@dataclass
class Responses:
    """The outcomes of the requests; for accepted ones, the kind of images by id, and the seconds until the response."""

    accepted: dict[str, ImageKind] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    failed: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: ImageKind, answer: httpx.Response | None, seconds: float, error: str = "") -> None:
        with self.lock:
            if answer is not None and answer.status_code == 202:
                self.accepted[answer.json()["id"]] = kind
                self.seconds.append(seconds)
            elif answer is not None and answer.status_code in REFUSALS and "retry-after" in answer.headers:
                self.refused += 1
            else:
                self.failed.append(error or f"{answer.status_code if answer is not None else ''}")

    def percentile(self, percent: int) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else float("nan")


def sustained(installation: Installation, jobs: Iterator[Job], seconds: float) -> float:
    """Finished episodes per second with just enough clients to keep the workers busy."""
    clients = Clients(installation, jobs, count=6, prefix="measure", keyed_only=True)
    started = time.monotonic()
    clients.start()
    threading.Event().wait(seconds)
    ledger = clients.finish()
    return len(ledger) / (time.monotonic() - started)


def _five_way() -> "map[Job]":
    return map(Job, (n for n in itertools.count() if Job(n).ways_shots == (5, 1)))


def overload(installation: Installation, rate: float, seconds: float) -> tuple[Responses, int]:
    """Submits episodes at this rate, whatever the responses. Returns these, and how many requests for health or metrics
    failed."""
    responses = Responses()
    failed_checks = 0
    jobs = sorted(itertools.islice(_five_way(), 7), key=lambda job: job.kind == "drawings")
    bodies = [(job.kind, support_json(job.files()[0], name="load")) for job in jobs]
    with installation.client() as client, ThreadPoolExecutor(SENDERS) as pool:

        def post(number: int) -> None:
            kind, body = bodies[number % len(bodies)]
            begun = time.monotonic()
            try:
                answer = client.post("/episodes", json=body)
            except httpx.TransportError as error:
                responses.add(kind, None, 0.0, repr(error))
            else:
                responses.add(kind, answer, time.monotonic() - begun)

        post(0)  # of photos: it cannot find the queue full
        started, posted = time.monotonic(), 1
        while (now := time.monotonic() - started) < seconds:
            due = int(rate * now) + 1
            for number in range(posted, due):
                pool.submit(post, number)
            if posted // 20 != due // 20:
                failed_checks += _failed_checks(client)
            posted = due
            threading.Event().wait(max(0.0, started + posted / rate - time.monotonic()))
    return responses, failed_checks


def _failed_checks(client: httpx.Client) -> int:
    """How many of the health check and the two pages of metrics fail."""
    found = 0
    for path in ("/healthz", "/metrics", "/metrics/installation"):
        try:
            found += client.get(path).status_code != 200
        except httpx.TransportError:
            found += 1
    return found


def memory(installation: Installation) -> dict[str, float]:
    """The resident memory of the app and of Redis, in MiB."""
    return {part.name: resident(part.pid) / 2**20 for part in (installation.redis, *installation.apps)}


def resident(pid: int) -> int:
    """The resident memory of this process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def passes(installation: Installation, rate: float, seconds: float, log: Callable[[str], None]) -> bool:
    """Whether the service passes all checks at this rate of requests, which exceeds the sustained rate."""
    before = memory(installation)
    responses, failed_checks = overload(installation, rate, seconds)
    after = memory(installation)
    with installation.client() as client:
        episodes = {id: until_ended(client, id) or {"state": "lost"} for id in responses.accepted}
    ready = [id for id, episode in episodes.items() if episode["state"] == "ready"]
    unfinished = len(episodes) - len(ready)
    photos = sum(episodes[id]["model_kind"] == "photos" for id in ready)
    mistaken = sum(episodes[id]["model_kind"] != responses.accepted[id] for id in ready)
    grown = ", ".join(f"{name} {after[name] - before[name]:+.0f} MiB" for name in before)
    if responses.failed:
        log(f"failed: {sorted(set(responses.failed))}")
    log(
        f"failed requests for health and metrics: {failed_checks}; accepted and not ready: {unfinished}, "
        f"of the other model: {mistaken}; photos: {photos}"
    )
    log(
        f"load: accepted {len(responses.accepted)}, refused {responses.refused}, failed {len(responses.failed)}, "
        f"p50 {responses.percentile(50) * 1000:.0f} ms, p99 {responses.percentile(99) * 1000:.0f} ms, memory {grown}"
    )
    both = 0 < photos < len(ready)
    return both and not (responses.failed or failed_checks or unfinished or mistaken) and responses.refused > 0


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="lam-load-"))
    try:
        with installed(folder, trainer=False, LAMANAS_MAX_QUEUE=str(MAX_QUEUE)) as installation:
            rate = sustained(installation, _five_way(), MEASURE_S)
            print(f"sustained: {rate:.1f} episodes/s; now {FACTOR} times as many for {OVERLOAD_S:.0f} s", flush=True)
            return 0 if passes(installation, FACTOR * rate, OVERLOAD_S, lambda line: print(line, flush=True)) else 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
