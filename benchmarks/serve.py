"""``lamanas bench serve``: requests per second of the app, of LitServe and of a plain FastAPI app; and of the whole
service, the latency of predictions during adaptations, adaptations per minute, and memory."""

import base64
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks import load, service
from benchmarks.installation import Server, contestant, lamanas, processor_seconds
from lamanas_core.data.sources.glyphs import draw, glyph_class, png

WAYS, SHOTS = 20, 5
CONCURRENCY = (1, 32)
# Different drawings, sent cyclically, so that a cached response would not help.
DRAWINGS = 400
WARM_UP_S = 1


@dataclass(frozen=True)
class Contest:
    """One server, and the kinds of requests that it supports."""

    name: str
    server: Server
    kinds: tuple[str, ...]
    suspended: bool


def measure(seconds: int, rounds: int) -> dict[str, Any]:
    """All measurements. docs/performance.md explains the fields. Raises LoadError, StartError."""
    load.program()
    with tempfile.TemporaryDirectory(prefix="lam-bench-") as name:
        folder = Path(name)
        found = {**_machine(), "seconds": seconds, "rounds": rounds, "contest": contest(folder, seconds, rounds)}
        requests = folder / "get_1.tsv"
        return found | {
            "under_adaptation": service.under_adaptation(folder, requests, 2 * seconds, rounds),
            "adaptations": service.rates(folder, rounds),
        }


def contest(folder: Path, seconds: int, rounds: int) -> dict[str, Any]:
    """The medians over the rounds; each round measures every server with every kind of request and concurrency."""
    rng = np.random.default_rng(1)
    classes = [glyph_class(rng) for _ in range(WAYS)]
    with ExitStack() as running:
        served, token = running.enter_context(lamanas(folder))
        with service.client(served, token) as client:
            episode = service.adapted(client, service.support(WAYS, SHOTS, seed=1))
            artifact = folder / "model.onnx"
            artifact.write_bytes(client.get(f"/episodes/{episode}/model.onnx").content)
        drawings = [png(draw(classes[n % WAYS], rng)) for n in range(DRAWINGS)]
        files = {kind: load.write(folder, kind, requests_of(kind, episode, drawings)) for kind in KINDS}
        others = {kind: running.enter_context(contestant(kind, folder, artifact)) for kind in OTHERS}
        contests = [Contest("lamanas", served, tuple(KINDS), suspended=False)]
        contests += [Contest(kind, server, OTHERS[kind], suspended=True) for kind, server in others.items()]
        _check_answers(contests, token, episode, drawings[0])
        cells = _in_turns(contests, files, token, seconds, rounds)
    return {"cells": cells, "ratios": ratios(cells)}


def requests_of(kind: str, episode: str, drawings: list[bytes]) -> Iterator[tuple[str, str]]:
    """Paths and bodies of the requests of this kind."""
    images = KINDS[kind]
    for at in range(0, len(drawings), images):
        batch = drawings[at : at + images]
        if kind.startswith("get"):
            sent = [base64.urlsafe_b64encode(image).rstrip(b"=").decode() for image in batch]
            yield f"/predict?episode_id={episode}&" + "&".join(f"image={image}" for image in sent), ""
        else:
            sent = [base64.b64encode(image).decode() for image in batch]
            yield "/predict", json.dumps({"episode_id": episode, "images": sent})


# Kinds of requests, with their numbers of images.
KINDS = {"get_1": 1, "post_1": 1, "post_20": 20}
# LitServe supports POST only; batching is measured with the requests that it is meant for, of one image each.
OTHERS: dict[str, tuple[str, ...]] = {
    "plain": tuple(KINDS),
    "litserve": ("post_1", "post_20"),
    "litserve-batched": ("post_1",),
}


def _in_turns(
    contests: list[Contest], files: dict[str, Path], token: str, seconds: int, rounds: int
) -> dict[str, dict[str, dict[str, float]]]:
    runs: dict[str, dict[str, list[dict[str, float]]]] = {one.name: {} for one in contests}
    for number in range(rounds):
        for connections in CONCURRENCY:
            for kind, requests in files.items():
                for one in contests:
                    if kind in one.kinds:
                        cell = runs[one.name].setdefault(f"{kind}_c{connections}", [])
                        send = _sender(one.server, requests, token, connections)
                        cell.append(_measured(one, send, seconds, warm_up=number == 0))
    return {name: {cell: _medians(found) for cell, found in cells.items()} for name, cells in runs.items()}


def _sender(server: Server, requests: Path, token: str, connections: int) -> Callable[[int], dict[str, float]]:
    return lambda seconds: load.send(server.url, requests, token, connections=connections, seconds=seconds)


def _measured(
    one: Contest, send: Callable[[int], dict[str, float]], seconds: int, *, warm_up: bool
) -> dict[str, float]:
    if one.suspended:
        one.server.resume()
    try:
        if warm_up:
            send(WARM_UP_S)
        before = processor_seconds(one.server.process.pid)
        found = send(seconds)
        spent = processor_seconds(one.server.process.pid) - before
        return found | {"cpu_ms": 1000 * spent / found["requests"]}
    finally:
        if one.suspended:
            one.server.suspend()


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {field: statistics.median(run[field] for run in runs) for field in runs[0]}


def ratios(cells: dict[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """The ratios of LAMANAS to each other server in each cell. GET is compared with POST if a server has no GET."""
    found: dict[str, dict[str, float]] = {}
    for name, theirs in cells.items():
        for cell, ours in cells["lamanas"].items():
            other = theirs.get(cell) or theirs.get(cell.replace("get", "post"))
            if name != "lamanas" and other is not None:
                ratio = {
                    field: ours[field] / other[field] for field in ("requests_per_second", "p50_ms", "p99_ms", "cpu_ms")
                }
                found.setdefault(f"to_{name}", {})[cell] = ratio  # type: ignore[assignment]
    return found


def _check_answers(contests: list[Contest], token: str, episode: str, drawing: bytes) -> None:
    """Raises LoadError unless all servers return the same probabilities for an image."""
    body = {"episode_id": episode, "images": [base64.b64encode(drawing).decode()]}
    probabilities = {}
    for one in contests:
        if one.suspended:
            one.server.resume()
        headers = {"Authorization": f"Bearer {token}"}
        answer = httpx.post(f"{one.server.url}/predict", json=body, headers=headers, timeout=30)
        if one.suspended:
            one.server.suspend()
        if answer.status_code != 200:
            raise load.LoadError(f"{one.name} responded with {answer.status_code}: {answer.text[:500]}")
        probabilities[one.name] = [round(p, 5) for p in answer.json()["predictions"][0]["probabilities"].values()]
    if any(found != probabilities["lamanas"] for found in probabilities.values()):
        raise load.LoadError(f"the servers return different probabilities for an image: {probabilities}")


def _machine() -> dict[str, Any]:
    """The number of usable processors, the load average of the last minute, and the versions."""
    return {
        "processors": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "litserve": load.litserve_version(),
        "onnxruntime": version("onnxruntime"),
    }
