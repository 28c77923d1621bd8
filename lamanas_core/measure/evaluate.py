"""Accuracy of a meta-model on episodes, the way it is served: adapted, pruned, every query alone."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from lamanas_core.adapt.adapted import Adapted, adapt_to
from lamanas_core.artifact import Classifier
from lamanas_core.data.episodes import Episode, out_of_class, sample_episode
from lamanas_core.data.folders import ImageClasses
from lamanas_core.measure.metrics import auroc, expected_calibration_error, mean_and_interval
from lamanas_core.meta_model import MetaModel


@dataclass(frozen=True)
class EvaluationConfig:
    """Episodes to draw; ``steps`` None means the meta-model's own K. ``uneven``: a class has 1 to ``shots`` images."""

    ways: int = 20
    shots: int = 5
    queries: int = 5
    episodes: int = 200
    seed: int = 0
    steps: int | None = None
    within_alphabet: bool = False
    uneven: bool = False
    device: str = "cpu"


@dataclass(frozen=True)
class Evaluation:
    """Mean accuracy over episodes with the half-width of its 95 % interval, what an episode costs, the expected
    calibration error of its probabilities, and the AUROC of novelty for as many images of other classes.
    """

    accuracy: float
    ci95: float
    accuracies: tuple[float, ...]
    parameters_kept: float
    parameters_total: int
    seconds_per_episode: float
    ece: float
    novelty_auroc: float | None

    def to_json(self, meta_model: MetaModel, config: EvaluationConfig) -> dict[str, Any]:
        """One flat document; the single accuracies are left out."""
        own = asdict(self)
        del own["accuracies"]
        task = meta_model.config.task_learner
        steps = task.steps if config.steps is None else config.steps
        rest = asdict(config) | {"steps": steps, "loss": task.loss, "model_version": meta_model.version}
        return own | rest


def evaluate(
    meta_model: MetaModel, classes: ImageClasses, config: EvaluationConfig, on_episode: Callable[[int], None]
) -> Evaluation:
    """Adapt to each of ``config.episodes`` episodes of ``classes`` and classify its queries through the artifact."""
    accuracies, kept, total = [], 0, 0
    asked, truth, known, novel = [], [], [], []
    foreign = torch.Generator().manual_seed(config.seed + 1)
    started = time.perf_counter()
    for number, episode in enumerate(sampled(classes, config)):
        adapted = adapt_to(meta_model, episode, steps=config.steps, seed=number, device=config.device)
        artifact = Classifier.from_bytes(adapted.artifact)
        probabilities, novelty = artifact.answers(episode.queries.numpy())
        right = probabilities.argmax(1) == episode.query_labels.numpy()
        accuracies.append(float(right.mean()))
        asked.append(probabilities.max(1))
        truth.append(right)
        if novelty is not None and len(classes) > episode.ways:
            known.append(novelty)
            novel.append(artifact.novelty(out_of_class(classes, episode, len(episode.queries), foreign).numpy()))
        kept, total = kept + adapted.parameters_kept, adapted.parameters_total
        on_episode(number + 1)
    seconds = (time.perf_counter() - started) / config.episodes
    mean, half = mean_and_interval(accuracies)
    return Evaluation(
        mean,
        half,
        tuple(accuracies),
        kept / config.episodes,
        total,
        seconds,
        expected_calibration_error(np.concatenate(asked), np.concatenate(truth)),
        auroc(np.concatenate(known), np.concatenate(novel)) if known else None,
    )


def sampled(classes: ImageClasses, config: EvaluationConfig) -> Iterator[Episode]:
    """The episodes that ``config`` names, always the same."""
    generator = torch.Generator().manual_seed(config.seed)
    for _ in range(config.episodes):
        yield sample_episode(
            classes,
            config.ways,
            config.shots,
            config.queries,
            generator,
            within_group=config.within_alphabet,
            uneven=config.uneven,
        )


def measured_on(adapted: Adapted, episode: Episode) -> tuple[float, float]:
    """Of the episode's queries, each asked of the artifact alone: the share it gets right, and their cross-entropy."""
    logits = torch.from_numpy(Classifier.from_bytes(adapted.artifact).logits(episode.queries.numpy()))
    right = (logits.argmax(1) == episode.query_labels).float().mean()
    return float(right), float(torch.nn.functional.cross_entropy(logits, episode.query_labels))
