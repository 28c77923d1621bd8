"""The response for an episode that has no classifier."""

from app.http.problems import EPISODE_FAILED, NOT_READY, Problem
from app.store.records import EpisodeRecord


def not_ready(episode: EpisodeRecord) -> Problem:
    """409 with the episode's state; with Retry-After only if a retry can succeed."""
    if episode.state == "failed":
        return Problem(EPISODE_FAILED, episode.error or "the adaptation failed", state=episode.state)
    text = f"episode {episode.id} is {episode.state}"
    if episode.genotype is not None:
        text += ": its classifier was dropped to make room and is being adapted again"
    return Problem(NOT_READY, text, state=episode.state, headers={"Retry-After": "1"})
