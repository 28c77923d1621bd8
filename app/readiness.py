"""What an episode without a classifier is answered."""

from app.errors import EPISODE_FAILED, NOT_READY, Problem
from app.store.records import EpisodeRecord


def not_ready(episode: EpisodeRecord) -> Problem:
    """409 with the episode's state; with Retry-After only where trying again can help."""
    if episode.state == "failed":
        return Problem(EPISODE_FAILED, episode.error or "the adaptation failed", state=episode.state)
    text = f"episode {episode.id} is {episode.state}"
    return Problem(NOT_READY, text, state=episode.state, headers={"Retry-After": "1"})
