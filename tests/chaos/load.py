"""``python -m tests.chaos.load``, or ``make load``: four times what the service sustains, for two minutes.

Measures first how many episodes a second the two workers finish, then posts four times as many. Ends with 0 only if
every request was accepted or refused with ``Retry-After``, all that was accepted became ready, and health and metrics
answered throughout.
"""

import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx

from tests.chaos.clients import Clients, Job, until_ended
from tests.chaos.installation import Installation, installed
from tests.end_to_end.client import support_json

FACTOR = 4
OVERLOAD_S = 120.0
MEASURE_S = 30.0
# Small, so that the queue is full for most of the two minutes.
MAX_QUEUE = 50
POSTERS = 64
REFUSALS = (429, 503)


@dataclass
class Heard:
    """What became of the requests: seconds until the answer of those that were accepted, and ids."""

    accepted: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    failed: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def hear(self, answer: httpx.Response | None, seconds: float, error: str = "") -> None:
        with self.lock:
            if answer is not None and answer.status_code == 202:
                self.accepted.append(answer.json()["id"])
                self.seconds.append(seconds)
            elif answer is not None and answer.status_code in REFUSALS and "retry-after" in answer.headers:
                self.refused += 1
            else:
                self.failed.append(error or f"{answer.status_code if answer is not None else ''}")

    def percentile(self, percent: int) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else float("nan")


def sustained(installation: Installation, seconds: float) -> float:
    """Episodes a second that are finished while as many clients wait as keep the workers busy."""
    clients = Clients(installation, _five_way(), count=6, prefix="measure", keyed_only=True)
    started = time.monotonic()
    clients.start()
    threading.Event().wait(seconds)
    ledger = clients.finish()
    return len(ledger) / (time.monotonic() - started)


def _five_way() -> "map[Job]":
    return map(Job, (n for n in count() if Job(n).ways_shots == (5, 1)))


def overload(installation: Installation, rate: float, seconds: float) -> tuple[Heard, int]:
    """Posts at this rate, whatever the answers; what was heard, and how often health or metrics did not answer."""
    heard = Heard()
    silent = 0
    body = support_json(Job(0).files()[0], name="load")
    started = time.monotonic()
    with installation.client() as client, ThreadPoolExecutor(POSTERS) as pool:

        def post() -> None:
            begun = time.monotonic()
            try:
                answer = client.post("/episodes", json=body)
            except httpx.TransportError as error:
                heard.hear(None, 0.0, repr(error))
            else:
                heard.hear(answer, time.monotonic() - begun)

        posted = 0
        while (now := time.monotonic() - started) < seconds:
            due = int(rate * now) + 1
            for _ in range(due - posted):
                pool.submit(post)
            if posted // 20 != due // 20:
                silent += _silent(client)
            posted = due
            threading.Event().wait(max(0.0, started + posted / rate - time.monotonic()))
    return heard, silent


def _silent(client: httpx.Client) -> int:
    """How many of /healthz and /metrics do not answer with 200."""
    found = 0
    for path in ("/healthz", "/metrics"):
        try:
            found += client.get(path).status_code != 200
        except httpx.TransportError:
            found += 1
    return found


def memory(installation: Installation) -> dict[str, float]:
    """MiB in use of what takes the requests and what keeps them."""
    page = resource.getpagesize()

    def resident(pid: int) -> int:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page

    return {part.name: resident(part.pid) / 2**20 for part in (installation.redis, installation.app)}


def holds(installation: Installation, rate: float, seconds: float, say: Callable[[str], None]) -> bool:
    """Whether all that must hold under so many requests a second, more than is sustained, held."""
    before = memory(installation)
    heard, silent = overload(installation, rate, seconds)
    after = memory(installation)
    with installation.client() as client:
        states = [(until_ended(client, id) or {"state": "lost"})["state"] for id in heard.accepted]
    unfinished = len(states) - states.count("ready")
    grown = ", ".join(f"{name} {after[name] - before[name]:+.0f} MiB" for name in before)
    if heard.failed:
        say(f"failed: {sorted(set(heard.failed))}")
    say(f"health and metrics without an answer: {silent}; accepted and not ready: {unfinished}")
    say(
        f"load: accepted {len(heard.accepted)}, refused {heard.refused}, failed {len(heard.failed)}, "
        f"p50 {heard.percentile(50) * 1000:.0f} ms, p99 {heard.percentile(99) * 1000:.0f} ms, memory {grown}"
    )
    return not (heard.failed or silent or unfinished) and heard.refused > 0


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="lam-load-"))
    try:
        with installed(folder, trainer=False, LAMANAS_MAX_QUEUE=str(MAX_QUEUE)) as installation:
            rate = sustained(installation, MEASURE_S)
            print(f"sustained: {rate:.1f} episodes/s; now {FACTOR} times as many for {OVERLOAD_S:.0f} s", flush=True)
            return 0 if holds(installation, FACTOR * rate, OVERLOAD_S, lambda line: print(line, flush=True)) else 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
