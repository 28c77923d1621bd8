"""``make hostile``: every file of the corpus is sent to the real app, in each way that files can be sent.

Ends with ``hostile: files N, taken N, refused N, wrong 0, peak N MB``.
"""

import base64
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.app.playing import b64, png, support
from tests.hostile import corpus
from tests.hostile.corpus import Hostile
from tests.hostile.serving import Target, serving

# What an app and its two decoders may have had at their peaks, in all, however often it is attacked.
MOST_BYTES = 1200 * 2**20


@dataclass
class Tally:
    files: int = 0
    taken: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)


def attack(target: Target, files: Iterable[Hostile], zips: Iterable[Hostile]) -> Tally:
    """Sends them all; afterwards the app must answer as before."""
    tally = Tally()
    with httpx.Client(base_url=target.url, headers=target.headers, timeout=60) as client:
        episode = client.post("/episodes", json={"support": support()}, headers={"Prefer": "wait=10"}).json()["id"]
        for number, file in enumerate(files):
            tally.files += 1
            for request in _requests(file, episode, number):
                _judge(tally, file, client.request(**request))
        for file in zips:
            tally.files += 1
            _judge(tally, file, client.post("/episodes", files={"archive": ("a.zip", file.data)}))
        if client.get("/readyz").status_code != 200:
            tally.wrong.append("it is no longer ready")
        answer = client.post("/predict", json={"episode_id": episode, "images": [b64(png(1))]})
        if answer.status_code != 200 or answer.json()["predictions"][0]["label"] != "class 1":
            tally.wrong.append(f"it no longer answers as it did: {answer.text}")
    return tally


def _requests(file: Hostile, episode: str, number: int) -> list[dict[str, Any]]:
    """As one of a support set, by turns in JSON and in a form, with a label and without; to be predicted; and in the
    URL where it is short."""
    to_episodes: dict[str, Any] = {"method": "POST", "url": "/episodes"}
    labelled = number % 4 < 2
    if number % 2:
        items = support()
        if labelled:
            items[2]["image"] = b64(file.data)
        adapting = to_episodes | {"json": {"support": items, "unlabelled": [] if labelled else [b64(file.data)]}}
    else:
        parts = [("images", ("x.png", data)) for data in (png(0), png(1))]
        parts.append(("images" if labelled else "unlabelled", ("x.png", file.data)))
        adapting = to_episodes | {"files": parts, "data": {"labels": ["a", "b", "a"][: 3 if labelled else 2]}}
    asking: dict[str, Any] = {
        "method": "POST",
        "url": "/predict",
        "files": {"images": file.data},
        "data": {"episode_id": episode},
    }
    requests = [adapting, asking]
    if len(file.data) < 4000:
        text = base64.urlsafe_b64encode(file.data).decode()
        requests.append({"method": "GET", "url": "/predict", "params": {"episode_id": episode, "image": text}})
    return requests


def _judge(tally: Tally, file: Hostile, answer: httpx.Response) -> None:
    status, kind = answer.status_code, answer.headers["content-type"]
    if status in (200, 202) and file.fine:
        tally.taken += 1
    elif 400 <= status < 500 and kind == "application/problem+json" and answer.json()["status"] == status:
        tally.refused += 1
    else:
        tally.wrong.append(f"{file.name}: {status} {answer.text[:200]}")


def main() -> int:
    with serving() as target:
        tally = attack(target, corpus.images(), corpus.archives())
        peak = target.peak_bytes()
    for line in tally.wrong:
        print(line)
    print(
        f"hostile: files {tally.files}, taken {tally.taken}, refused {tally.refused}, "
        f"wrong {len(tally.wrong)}, peak {peak / 2**20:.0f} MB"
    )
    return int(bool(tally.wrong) or tally.files < 500 or peak > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
