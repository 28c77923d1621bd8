"""Clients that submit episodes one after another and record which were accepted."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx
import numpy as np

from lamanas_core.data.sources.glyphs import draw, glyph_class, png
from lamanas_core.image_spec import ImageKind
from tests.e2e.photos import encoded, photo
from tests.end_to_end.client import base64_of, support_json
from tests.waiting import PATIENCE_S

POLL_S = 0.1
QUERIES = 3
PHOTO = (320, 240)  # pixels
STORM = "storm"  # the prefix of the names of episodes that are submitted while processes are killed


@dataclass(frozen=True)
class Job:
    """The task of one episode, which is determined by its number."""

    number: int

    @property
    def ways_shots(self) -> tuple[int, int]:
        """5-way 1-shot for seven of ten numbers, 20-way 5-shot for the others."""
        return (20, 5) if self.number % 10 in (2, 5, 8) else (5, 1)

    @property
    def kind(self) -> ImageKind:
        """Photos for two of ten numbers, all of them 5-way 1-shot, and drawings for the others."""
        return "photos" if self.number % 10 in (1, 6) else "drawings"

    def files(self) -> tuple[list[tuple[str, bytes]], list[bytes]]:
        """The support set, and query images of its first classes."""
        ways, shots = self.ways_shots
        if self.kind == "photos":
            support = [(f"class {n}", _photo(self.number, n)) for n in range(ways)]
            return support, [_photo(self.number, ways + n) for n in range(QUERIES)]
        rng = np.random.default_rng(self.number)
        classes = [(f"class {n}", glyph_class(rng)) for n in range(ways)]
        support = [(label, png(draw(strokes, rng))) for label, strokes in classes for _ in range(shots)]
        return support, [png(draw(strokes, rng)) for _, strokes in classes[:QUERIES]]


def _photo(job: int, number: int) -> bytes:
    return encoded(photo(100 * job + number, *PHOTO))


class Target(Protocol):
    """A running service, with all scopes."""

    def client(self) -> httpx.Client: ...


@dataclass
class Ledger:
    """The responses that the clients received: accepted ids by episode name, and the names of unanswered requests."""

    accepted: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    unanswered: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def accept(self, name: str, id: str) -> None:
        with self.lock:
            self.accepted[name].add(id)

    def __len__(self) -> int:
        return len(self.accepted)


class Clients:
    """``count`` threads, each with one unfinished episode at a time.

    Every other thread sends an Idempotency-Key and retries until the request is accepted; the others do not retry a
    request that receives no 202. ``ended`` is called, with a client, for each accepted episode that has ended.
    """

    def __init__(
        self,
        target: Target,
        jobs: Iterator[Job],
        *,
        count: int = 6,
        prefix: str = STORM,
        keyed_only: bool = False,
        ended: Callable[[httpx.Client, Job, str], None] = lambda client, job, id: None,
    ) -> None:
        self.ledger = Ledger()
        self._target = target
        self._jobs = jobs
        self._prefix = prefix
        self._keyed_only = keyed_only
        self._ended = ended
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(count)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def finish(self) -> Ledger:
        """Submits no new episodes; returns once the others have ended. Raises the first error of a client."""
        self._stop.set()
        return self.wait()

    def wait(self) -> Ledger:
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]
        return self.ledger

    def _run(self, number: int) -> None:
        keyed = self._keyed_only or number % 2 == 0
        try:
            with self._target.client() as client:
                while not self._stop.is_set():
                    with self._lock:
                        job = next(self._jobs, None)
                    if job is None:
                        return
                    self._submit(client, job, keyed)
        except BaseException as error:
            self._errors.append(error)

    def _submit(self, client: httpx.Client, job: Job, keyed: bool) -> None:
        name = f"{self._prefix} {job.number}"
        id = _accepted_id(client, name, support_json(job.files()[0], name=name), keyed)
        if id is None:
            with self.ledger.lock:
                self.ledger.unanswered.add(name)
            return
        self.ledger.accept(name, id)
        until_ended(client, id)
        self._ended(client, job, id)


def _accepted_id(client: httpx.Client, name: str, body: dict[str, Any], keyed: bool) -> str | None:
    """The id of the accepted episode; None if a client without a key received no 202."""
    headers = {"Idempotency-Key": name.replace(" ", "-")} if keyed else {}
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            answer = client.post("/episodes", json=body, headers=headers)
        except httpx.TransportError:
            answer = None
        if answer is not None and answer.status_code == 502:  # from a proxy, whose app was killed
            answer = None
        if answer is not None and answer.status_code == 202:
            return str(answer.json()["id"])
        assert answer is None or (answer.status_code == 503 and "retry-after" in answer.headers), answer.text
        if not keyed:
            return None
        time.sleep(POLL_S)
    raise AssertionError(f"{name} was not accepted within {PATIENCE_S:.0f} s")


def until_ended(client: httpx.Client, id: str) -> dict[str, Any] | None:
    """The episode once it is ready or failed; None if it does not exist. Waits while the service is unavailable."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            answer = client.get(f"/episodes/{id}")
        except httpx.TransportError:
            answer = None
        if answer is not None and answer.status_code in (404, 410):
            return None
        if answer is not None and answer.status_code == 200:
            episode: dict[str, Any] = answer.json()
            if episode["state"] in ("ready", "failed"):
                return episode
        time.sleep(POLL_S)
    return None


def predictions(client: httpx.Client, id: str, job: Job) -> list[dict[str, Any]] | None:
    """The episode's predictions for the job's queries; None if the request fails."""
    body = {"episode_id": id, "images": [base64_of(file) for file in job.files()[1]]}
    answer = client.post("/predict", json=body)
    found: list[dict[str, Any]] | None = answer.json()["predictions"] if answer.status_code == 200 else None
    return found


def listed(client: httpx.Client) -> list[dict[str, Any]]:
    """All existing episodes."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = client.get("/episodes", params={"limit": 100} | ({"cursor": cursor} if cursor else {})).json()
        found += page["episodes"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found
