"""The service as a whole: predictions while others are adapted to, adaptations a minute, memory."""

import base64
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
from lamanas_core.glyphs import draw, glyph_class, png

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


def under_adaptation(folder: Path, requests: Path, seconds: int) -> dict[str, Any]:
    """p50 and p99 in ms of ``GET /predict`` at concurrency 1, idle and while four 20-way 5-shot adaptations run."""
    with lamanas(folder, processes=AT_ONCE) as (server, token), client(server, token) as asking:
        episode = adapted(asking, support(*LARGE, seed=1))
        ours = requests.with_name("of_this.tsv")
        ours.write_text(_of(requests.read_text(), episode))
        load.send(server.url, ours, token, connections=1, seconds=1)
        idle = load.send(server.url, ours, token, connections=1, seconds=seconds)
        with adapting(server, token, LARGE):
            busy = load.send(server.url, ours, token, connections=1, seconds=seconds)
    return {"idle": idle, "busy": busy, "p99_ratio": busy["p99_ms"] / idle["p99_ms"]}


def _of(requests: str, episode: str) -> str:
    """The same requests, to another episode."""
    before = requests.partition("episode_id=")[2].partition("&")[0]
    return requests.replace(f"episode_id={before}", f"episode_id={episode}")


def rates(folder: Path) -> dict[str, Any]:
    """20-way 5-shot adaptations finished a minute by one worker process and by two; and memory."""
    found: dict[str, Any] = {}
    for processes in (1, 2):
        with lamanas(folder, processes=processes) as (server, token), client(server, token) as asking:
            adapted(asking, support(*LARGE, seed=1))
            found[f"per_minute_{processes}"] = _rate(server, token, ADAPTATIONS * processes)
            if processes == 1:
                found["memory"] = _memory(server, token)
    return found | {"ratio": found["per_minute_2"] / found["per_minute_1"]}


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
