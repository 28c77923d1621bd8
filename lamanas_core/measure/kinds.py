"""How often the images of an episode are taken for photos."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from lamanas_core.data.episodes import Episode
from lamanas_core.data.folders import ImageClasses
from lamanas_core.image_kinds import Judgement, judge, sample
from lamanas_core.measure.evaluate import EvaluationConfig, sampled


def judged_kinds(classes: ImageClasses, config: EvaluationConfig, on_episode: Callable[[int], None]) -> dict[str, Any]:
    """``photos``: the fraction of the episodes that are taken for photos; ``reasons``: how many for each reason.

    ``classes``: loaded as ``image_kinds.JUDGED``. ``on_episode``: see ``evaluate``.
    """
    found = []
    for number, episode in enumerate(sampled(classes, config)):
        found.append(judged(episode))
        on_episode(number + 1)
    photos = sum(one.kind == "photos" for one in found) / len(found)
    return {"photos": photos, "reasons": dict(Counter(one.reason for one in found))}


def judged(episode: Episode) -> Judgement:
    """What the images of an episode, loaded as ``image_kinds.JUDGED``, seem to be, as the service judges them."""
    rows = sample(episode.support_labels.tolist())
    return judge(episode.support[rows].numpy())
