"""The whole service: predictions during adaptations, adaptations per minute, memory."""

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
from benchmarks.installation import Server, lamanas, memory_mb, processes_of
from lamanas_core.data.sources.glyphs import draw, glyph_class, png

CONCURRENT = 4
LARGE, SMALL = (20, 5), (2, 1)
SMALL_EPISODES = 200
# The number of adaptations per worker process in each measurement of the rate: many enough that it matters little that
# one process ends before the other.
ADAPTATIONS = 12
TIMEOUT_S = 120.0
Labelled = list[dict[str, str]]


def client(server: Server, token: str) -> httpx.Client:
    """A client with the token, which the caller must close."""
    return httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {token}"}, timeout=TIMEOUT_S)


def support(ways: int, shots: int, *, seed: int) -> Labelled:
    """A generated support set, as ``POST /episodes`` accepts it."""
    rng = np.random.default_rng(seed)
    classes = [(f"class {number}", glyph_class(rng)) for number in range(ways)]
    return [
        {"label": label, "image": base64.b64encode(png(draw(strokes, rng))).decode()}
        for label, strokes in classes
        for _ in range(shots)
    ]


def adapted(client: httpx.Client, support: Labelled) -> str:
    """Creates an episode and waits until it is ready; returns its id. Raises LoadError."""
    answer = client.post("/episodes", json={"support": support}, headers={"Prefer": "wait=60"})
    episode = answer.json()
    deadline = time.monotonic() + TIMEOUT_S
    while episode.get("state") in ("queued", "adapting") and time.monotonic() < deadline:
        time.sleep(0.1)
        episode = client.get(f"/episodes/{episode['id']}").json()
    if episode.get("state") != "ready":
        raise load.LoadError(f"an adaptation failed: {answer.status_code} {str(episode)[:500]}")
    return str(episode["id"])


@contextmanager
def adapting(server: Server, token: str, ways_shots: tuple[int, int]) -> Iterator[None]:
    """Keeps CONCURRENT adaptations running. Raises LoadError at the end if one failed."""
    stop = threading.Event()
    body = support(*ways_shots, seed=2)

    def repeat() -> None:
        with client(server, token) as http:
            while not stop.is_set():
                adapted(http, body)

    with ThreadPoolExecutor(CONCURRENT) as pool:
        running = [pool.submit(repeat) for _ in range(CONCURRENT)]
        try:
            yield
        finally:
            stop.set()
        for one in running:
            one.result()


def under_adaptation(folder: Path, requests: Path, seconds: int, rounds: int) -> dict[str, Any]:
    """p50 and p99 in ms of ``GET /predict`` at concurrency 1, idle and during four 20-way 5-shot adaptations.

    Medians over the rounds, also of their ratios. Each round starts a new service, since connections are distributed
    randomly among the app processes.
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
    with lamanas(folder, processes=CONCURRENT) as (server, token), client(server, token) as http:
        episode = adapted(http, support(*LARGE, seed=1))
        own = requests.with_name("own.tsv")
        own.write_text(_for_episode(requests.read_text(), episode))
        load.send(server.url, own, token, connections=1, seconds=1)
        idle = load.send(server.url, own, token, connections=1, seconds=seconds)
        with adapting(server, token, LARGE):
            busy = load.send(server.url, own, token, connections=1, seconds=seconds)
    return {"idle": idle, "busy": busy}


def _for_episode(requests: str, episode: str) -> str:
    """The same requests for another episode."""
    before = requests.partition("episode_id=")[2].partition("&")[0]
    return requests.replace(f"episode_id={before}", f"episode_id={episode}")


def rates(folder: Path, rounds: int) -> dict[str, Any]:
    """20-way 5-shot adaptations per minute with one and with two worker processes, medians over the rounds; and memory,
    measured in the first round."""
    found: dict[str, Any] = {}
    measured: dict[int, list[float]] = {1: [], 2: []}
    for number in range(rounds):
        for processes, per_minute in measured.items():
            with lamanas(folder, processes=processes) as (server, token), client(server, token) as http:
                adapted(http, support(*LARGE, seed=1))
                per_minute.append(_rate(http, ADAPTATIONS * processes))
                if processes == 1 and number == 0:
                    found["memory"] = _memory(server, token)
    ratios = [two / one for one, two in zip(measured[1], measured[2], strict=True)]
    medians = {f"per_minute_{processes}": statistics.median(rates) for processes, rates in measured.items()}
    return {**found, **medians, "ratio": statistics.median(ratios), "ratios": ratios}


def _rate(http: httpx.Client, episodes: int) -> float:
    """Adaptations per minute. The client is made before: making one takes 30 ms of the processors that are measured."""
    body = support(*LARGE, seed=2)
    started = time.monotonic()
    with ThreadPoolExecutor(episodes) as pool:
        list(pool.map(lambda _: adapted(http, body), range(episodes)))
    return 60 * episodes / (time.monotonic() - started)


def _memory(server: Server, token: str) -> dict[str, Any]:
    """In MB: memory after the large episodes, and its growth over 200 small ones (2-way 1-shot) after twenty others."""
    app = processes_of(server, "app")[0]
    after_large = {"app_mb": memory_mb(app), "worker_mb": _worker_mb(server)}
    body = support(*SMALL, seed=3)
    with client(server, token) as http:
        for _ in range(20):
            adapted(http, body)
        before = {"app": memory_mb(app), "worker": _worker_mb(server)}
        for _ in range(SMALL_EPISODES):
            adapted(http, body)
    grown = {"app_growth_mb": memory_mb(app) - before["app"], "worker_growth_mb": _worker_mb(server) - before["worker"]}
    return after_large | grown


def _worker_mb(server: Server) -> float:
    """The memory of the adapt worker's pool process, the largest process of the worker."""
    return max(memory_mb(pid) for pid in processes_of(server, "worker", "adapt"))
