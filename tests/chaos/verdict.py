"""Checks that every accepted episode was adapted exactly once and correctly."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Protocol

from tests.chaos.clients import STORM, Clients, Job, Ledger, Target, listed, predictions, until_ended


class Audited(Target, Protocol):
    """A service whose Redis tells how often each episode was given a classifier."""

    def commits(self) -> Counter[str]: ...


@dataclass(frozen=True)
class Verdict:
    """``photos``: how many of the ready ones were adapted from the model for photos. ``lost``: accepted and not ready.
    ``doubled``: committed twice, or two episodes for one request. ``differing``: predictions differ from a run without
    faults, or adapted from the model for the other kind of images. ``half``: received no 202, and exists but is
    incomplete.
    """

    accepted: int
    ready: int
    photos: int
    lost: list[str]
    doubled: list[str]
    differing: list[str]
    half: list[str]
    unanswered: int

    @property
    def holds(self) -> bool:
        return not (self.lost or self.doubled or self.differing or self.half) and self.accepted == self.ready > 0

    def __str__(self) -> str:
        return (
            f"accepted {self.accepted}, ready {self.ready}, lost {len(self.lost)}, "
            f"doubled {len(self.doubled)}, differing {len(self.differing)}; photos {self.photos}"
        )


def reach_verdict(installation: Audited, ledger: Ledger) -> Verdict:
    """Checks all existing episodes, then compares them with the same tasks without faults."""
    with installation.client() as client:
        found = [episode for episode in listed(client) if episode["name"].startswith(STORM)]
        # No client has waited for episodes whose requests were not answered.
        episodes = [until_ended(client, episode["id"]) or episode for episode in found]
        stormy = {episode["id"]: predictions(client, episode["id"], _job(episode)) for episode in episodes}
    commits = installation.commits()
    accepted = {id for ids in ledger.accepted.values() for id in ids}
    states = {episode["id"]: episode["state"] for episode in episodes}
    by_name: dict[str, set[str]] = {}
    for episode in episodes:
        by_name.setdefault(episode["name"], set()).add(episode["id"])
    calm = without_faults(installation, {_job(episode).number for episode in episodes})
    kinds = {episode["id"]: episode.get("model_kind") for episode in episodes}
    differing = [
        e["id"]
        for e in episodes
        if stormy[e["id"]] is not None and (stormy[e["id"]] != calm[_job(e).number] or kinds[e["id"]] != _job(e).kind)
    ]
    return Verdict(
        accepted=len(accepted),
        ready=sum(states.get(id) == "ready" for id in accepted),
        photos=sum(states.get(id) == "ready" and kinds[id] == "photos" for id in accepted),
        lost=sorted(id for id in accepted if states.get(id) != "ready" or stormy[id] is None),
        doubled=sorted({id for id, count in commits.items() if count != 1 and id in states})
        + sorted(name for name, ids in by_name.items() if len(ids) > 1),
        differing=sorted(differing),
        half=sorted(id for id in states if id not in accepted and (states[id] != "ready" or stormy[id] is None)),
        unanswered=len(ledger.unanswered),
    )


def without_faults(installation: Target, numbers: set[int]) -> dict[int, list[dict[str, Any]] | None]:
    """The predictions for the same tasks while no process is killed."""
    clients = Clients(installation, iter([Job(number) for number in sorted(numbers)]), prefix="calm", keyed_only=True)
    clients.start()
    ledger = clients.wait()
    with installation.client() as client:
        return {
            number: predictions(client, next(iter(ledger.accepted[f"calm {number}"])), Job(number))
            for number in numbers
        }


def _job(episode: dict[str, Any]) -> Job:
    """The task of an episode, according to its name."""
    return Job(int(episode["name"].rpartition(" ")[2]))
