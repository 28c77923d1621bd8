"""``lamanas bench serve``: requests a second of the real app beside LitServe and a plain FastAPI app, and the service
as a whole: predictions while others are adapted to, adaptations a minute, memory."""

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
# Different drawings, asked in turns: an answer kept from before would be of no use.
DRAWINGS = 400
WARM_SECONDS = 1


@dataclass(frozen=True)
class Contest:
    """One server, and which of the kinds of requests it takes."""

    name: str
    server: Server
    kinds: tuple[str, ...]
    rests: bool


def measure(seconds: int, rounds: int) -> dict[str, Any]:
    """All of it; what the fields mean is in docs/performance.md. Raises LoadError, StartError."""
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
    """Each server with each kind of request at each concurrency, one after the other in each round: medians."""
    rng = np.random.default_rng(1)
    classes = [glyph_class(rng) for _ in range(WAYS)]
    with ExitStack() as running:
        served, token = running.enter_context(lamanas(folder))
        with service.client(served, token) as client:
            episode = service.adapted(client, service.support(WAYS, SHOTS, seed=1))
            artifact = folder / "model.onnx"
            artifact.write_bytes(client.get(f"/episodes/{episode}/model.onnx").content)
        drawings = [png(draw(classes[n % WAYS], rng)) for n in range(DRAWINGS)]
        files = {kind: load.write(folder, kind, made(kind, episode, drawings)) for kind in KINDS}
        others = {kind: running.enter_context(contestant(kind, folder, artifact)) for kind in OTHERS}
        contests = [Contest("lamanas", served, tuple(KINDS), rests=False)]
        contests += [Contest(kind, server, OTHERS[kind], rests=True) for kind, server in others.items()]
        _same_answers(contests, token, episode, drawings[0])
        cells = _in_turns(contests, files, token, seconds, rounds)
    return {"cells": cells, "ratios": ratios(cells)}


def made(kind: str, episode: str, drawings: list[bytes]) -> Iterator[tuple[str, str]]:
    """Paths and bodies of the requests of one kind."""
    images = KINDS[kind]
    for at in range(0, len(drawings), images):
        batch = drawings[at : at + images]
        if kind.startswith("get"):
            sent = [base64.urlsafe_b64encode(image).rstrip(b"=").decode() for image in batch]
            yield f"/predict?episode_id={episode}&" + "&".join(f"image={image}" for image in sent), ""
        else:
            sent = [base64.b64encode(image).decode() for image in batch]
            yield "/predict", json.dumps({"episode_id": episode, "images": sent})


# Kinds of requests, with the images of each.
KINDS = {"get_1": 1, "post_1": 1, "post_20": 20}
# LitServe takes POST alone; batched, it is asked what batching is for.
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
                        cell.append(_awake(one, send, seconds, warm=number == 0))
    return {name: {cell: _medians(found) for cell, found in cells.items()} for name, cells in runs.items()}


def _sender(server: Server, requests: Path, token: str, connections: int) -> Callable[[int], dict[str, float]]:
    return lambda seconds: load.send(server.url, requests, token, connections=connections, seconds=seconds)


def _awake(one: Contest, send: Callable[[int], dict[str, float]], seconds: int, *, warm: bool) -> dict[str, float]:
    if one.rests:
        one.server.wake()
    try:
        if warm:
            send(WARM_SECONDS)
        before = processor_seconds(one.server.process.pid)
        found = send(seconds)
        spent = processor_seconds(one.server.process.pid) - before
        return found | {"cpu_ms": 1000 * spent / found["requests"]}
    finally:
        if one.rests:
            one.server.rest()


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {field: statistics.median(run[field] for run in runs) for field in runs[0]}


def ratios(cells: dict[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Of LAMANAS to each other server: requests a second and p50 of each cell. What has no GET is asked by POST."""
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


def _same_answers(contests: list[Contest], token: str, episode: str, drawing: bytes) -> None:
    """Raises LoadError unless all answer one image alike."""
    body = {"episode_id": episode, "images": [base64.b64encode(drawing).decode()]}
    labels = {}
    for one in contests:
        if one.rests:
            one.server.wake()
        headers = {"Authorization": f"Bearer {token}"}
        answer = httpx.post(f"{one.server.url}/predict", json=body, headers=headers, timeout=30)
        if one.rests:
            one.server.rest()
        if answer.status_code != 200:
            raise load.LoadError(f"{one.name} answers {answer.status_code}: {answer.text[:500]}")
        labels[one.name] = [round(p, 5) for p in answer.json()["predictions"][0]["probabilities"].values()]
    if any(found != labels["lamanas"] for found in labels.values()):
        raise load.LoadError(f"the servers answer one image differently: {labels}")


def _machine() -> dict[str, Any]:
    """What it ran on: processors that it may use, and how busy they were in the minute before."""
    return {
        "processors": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "litserve": load.litserve_version(),
        "onnxruntime": version("onnxruntime"),
    }
