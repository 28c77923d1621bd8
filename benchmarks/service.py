"""The service as a whole: predictions while others are adapted to, adaptations a minute, memory."""

import base64
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks import load
from benchmarks.installation import Server, lamanas, memory_mb, within
from lamanas_core.data.sources.glyphs import draw, glyph_class, png

AT_ONCE = 4
LARGE, SMALL = (20, 5), (2, 1)
SMALL_EPISODES = 200
# How many finished adaptations a rate is taken from, for each worker process.
ADAPTATIONS = 6
PATIENCE_S = 120.0
Labelled = list[dict[str, str]]


def client(server: Server, token: str) -> httpx.Client:
    """Signed in, to be closed."""
    return httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE_S)


def support(ways: int, shots: int, *, seed: int) -> Labelled:
    """A made-up support set as ``POST /episodes`` takes it."""
    rng = np.random.default_rng(seed)
    classes = [(f"class {number}", glyph_class(rng)) for number in range(ways)]
    return [
        {"label": label, "image": base64.b64encode(png(draw(strokes, rng))).decode()}
        for label, strokes in classes
        for _ in range(shots)
    ]


def adapted(client: httpx.Client, support: Labelled) -> str:
    """The id of the finished episode. Raises LoadError."""
    answer = client.post("/episodes", json={"support": support}, headers={"Prefer": "wait=60"})
    episode = answer.json()
    deadline = time.monotonic() + PATIENCE_S
    while episode.get("state") in ("queued", "adapting") and time.monotonic() < deadline:
        time.sleep(0.1)
        episode = client.get(f"/episodes/{episode['id']}").json()
    if episode.get("state") != "ready":
        raise load.LoadError(f"an episode was not adapted to: {answer.status_code} {str(episode)[:500]}")
    return str(episode["id"])


@contextmanager
def adapting(server: Server, token: str, ways_shots: tuple[int, int]) -> Iterator[None]:
    """As many adaptations as run at once, and a new one whenever one is done. Raises LoadError at the end."""
    enough = threading.Event()
    body = support(*ways_shots, seed=2)

    def again() -> None:
        with client(server, token) as asking:
            while not enough.is_set():
                adapted(asking, body)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = [pool.submit(again) for _ in range(AT_ONCE)]
        try:
            yield
        finally:
            enough.set()
        for one in running:
            one.result()


def under_adaptation(folder: Path, requests: Path, seconds: int, rounds: int) -> dict[str, Any]:
    """p50 and p99 in ms of ``GET /predict`` at concurrency 1, idle and while four 20-way 5-shot adaptations run.

    Medians of the rounds, and of their ratios. Each round has a service of its own: which app process has whose
    connection is chance.
    """
    found = [_one_round(folder / f"round_{number}", requests, seconds) for number in range(rounds)]
    medians = {
        name: {field: statistics.median(one[name][field] for one in found) for field in found[0][name]}
        for name in ("idle", "busy")
    }
    ratios = [one["busy"]["p99_ms"] / one["idle"]["p99_ms"] for one in found]
    return {**medians, "p99_ratio": statistics.median(ratios), "p99_ratios": ratios}


def _one_round(folder: Path, requests: Path, seconds: int) -> dict[str, Any]:
    folder.mkdir()
    with lamanas(folder, processes=AT_ONCE) as (server, token), client(server, token) as asking:
        episode = adapted(asking, support(*LARGE, seed=1))
        ours = requests.with_name("of_this.tsv")
        ours.write_text(_of(requests.read_text(), episode))
        load.send(server.url, ours, token, connections=1, seconds=1)
        idle = load.send(server.url, ours, token, connections=1, seconds=seconds)
        with adapting(server, token, LARGE):
            busy = load.send(server.url, ours, token, connections=1, seconds=seconds)
    return {"idle": idle, "busy": busy}


def _of(requests: str, episode: str) -> str:
    """The same requests, to another episode."""
    before = requests.partition("episode_id=")[2].partition("&")[0]
    return requests.replace(f"episode_id={before}", f"episode_id={episode}")


def rates(folder: Path, rounds: int) -> dict[str, Any]:
    """20-way 5-shot adaptations finished a minute by one worker process and by two, medians of the rounds; and memory,
    of the first round."""
    found: dict[str, Any] = {}
    measured: dict[int, list[float]] = {1: [], 2: []}
    for number in range(rounds):
        for processes, per_minute in measured.items():
            with lamanas(folder, processes=processes) as (server, token), client(server, token) as asking:
                adapted(asking, support(*LARGE, seed=1))
                per_minute.append(_rate(server, token, ADAPTATIONS * processes))
                if processes == 1 and number == 0:
                    found["memory"] = _memory(server, token)
    ratios = [two / one for one, two in zip(measured[1], measured[2], strict=True)]
    medians = {f"per_minute_{processes}": statistics.median(rates) for processes, rates in measured.items()}
    return {**found, **medians, "ratio": statistics.median(ratios), "ratios": ratios}


def _rate(server: Server, token: str, episodes: int) -> float:
    body = support(*LARGE, seed=2)

    def one(number: int) -> None:
        with client(server, token) as asking:
            adapted(asking, body)

    started = time.monotonic()
    with ThreadPoolExecutor(episodes) as pool:
        list(pool.map(one, range(episodes)))
    return 60 * episodes / (time.monotonic() - started)


def _memory(server: Server, token: str) -> dict[str, Any]:
    """MB: after the large episodes, and what 200 small ones (2-way 1-shot) add once the first twenty are done."""
    app = within(server, "app")[0]
    after_large = {"app_mb": memory_mb(app), "worker_mb": _worker_mb(server)}
    body = support(*SMALL, seed=3)
    with client(server, token) as asking:
        for _ in range(20):
            adapted(asking, body)
        before = {"app": memory_mb(app), "worker": _worker_mb(server)}
        for _ in range(SMALL_EPISODES):
            adapted(asking, body)
    grown = {"app_growth_mb": memory_mb(app) - before["app"], "worker_growth_mb": _worker_mb(server) - before["worker"]}
    return after_large | grown


def _worker_mb(server: Server) -> float:
    """Of the adapt worker's pool process, the largest below its parent."""
    return max(memory_mb(pid) for pid in within(server, "worker", "adapt"))
