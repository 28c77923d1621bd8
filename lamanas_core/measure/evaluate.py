"""Evaluation of a meta-model on episodes as the service runs it: adapted, pruned, and each query on its own."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from lamanas_core.adapt.adapted import Adapted, adapt_to
from lamanas_core.artifact import Answers, Classifier
from lamanas_core.data.episodes import Episode, out_of_class, sample_episode
from lamanas_core.data.folders import ImageClasses
from lamanas_core.data.maps import with_inputs
from lamanas_core.measure.metrics import auroc, expected_calibration_error, mean_and_interval
from lamanas_core.meta_model import MetaModel


@dataclass(frozen=True)
class EvaluationConfig:
    """The episodes to evaluate on, and how.

    ``queries``: per class. ``steps``: inner steps, None for the meta-model's K. ``within_alphabet``: all classes of an
    episode are from an alphabet that has ``ways`` classes. ``uneven``: each class has a random number of shots
    from 1 to ``shots``.
    """

    ways: int = 20
    shots: int = 5
    queries: int = 5
    episodes: int = 200
    seed: int = 0
    steps: int | None = None
    within_alphabet: bool = False
    uneven: bool = False
    device: str = "cpu"

    @property
    def fewest(self) -> int:
        """The number of images of the smallest support set."""
        return self.ways if self.uneven else self.ways * self.shots


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    ``accuracy``: the mean of ``accuracies``, one per episode, in 0..1; ``ci95``: the half-width of its 95 % confidence
    interval. ``parameters_kept``: the mean number of the ``parameters_total`` parameters in θ that remain after
    pruning. ``seconds_per_episode``: for adaptation and predictions. ``ece``: the expected calibration error of the
    queries' probabilities. ``novelty_auroc``: the AUROC of novelty for queries against as many out-of-class images.
    ``called_unknown``: the fractions (0..1) of the queries and of these images that are called unknown. Both are None
    if novelty is not measured or if every episode has all classes.
    """

    accuracy: float
    ci95: float
    accuracies: tuple[float, ...]
    parameters_kept: float
    parameters_total: int
    seconds_per_episode: float
    ece: float
    novelty_auroc: float | None
    called_unknown: tuple[float, float] | None

    def to_json(self, meta_model: MetaModel, config: EvaluationConfig) -> dict[str, Any]:
        """A flat JSON object with the results and ``config``, without the accuracies of single episodes."""
        results = asdict(self)
        del results["accuracies"]
        task = meta_model.config.task_learner
        steps = task.steps if config.steps is None else config.steps
        conditions = asdict(config) | {"steps": steps, "loss": task.loss, "model_version": meta_model.version}
        return results | conditions


def evaluate(
    meta_model: MetaModel, classes: ImageClasses, config: EvaluationConfig, on_episode: Callable[[int], None]
) -> Evaluation:
    """Adapt to each of ``config.episodes`` episodes of ``classes`` and classify its queries with the artifact.

    ``on_episode`` is called with the number of episodes done.
    """
    classes = with_inputs(classes, meta_model.learner.network, config.fewest)
    accuracies, kept, total = [], 0, 0
    confidences, correct = [], []
    inside: list[Answers] = []
    outside: list[Answers] = []
    out_of_class_generator = torch.Generator().manual_seed(config.seed + 1)
    started = time.perf_counter()
    for number, episode in enumerate(sampled(classes, config)):
        adapted = adapt_to(meta_model, episode, steps=config.steps, seed=number, device=config.device)
        artifact = Classifier.from_bytes(adapted.artifact)
        answers = artifact.answers(episode.queries.numpy())
        correct.append(answers.probabilities.argmax(1) == episode.query_labels.numpy())
        accuracies.append(float(correct[-1].mean()))
        confidences.append(answers.probabilities.max(1))
        if answers.novelty is not None and len(classes) > episode.ways:
            others = out_of_class(classes, episode, len(episode.queries), out_of_class_generator)
            inside.append(answers)
            outside.append(artifact.answers(others.numpy()))
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
        expected_calibration_error(np.concatenate(confidences), np.concatenate(correct)),
        *(_novelty(inside, outside) if inside else (None, None)),
    )


def _novelty(inside: list[Answers], outside: list[Answers]) -> tuple[float, tuple[float, float]]:
    """The AUROC of novelty, and the fractions called unknown, of queries and of out-of-class images."""
    scores, unknown = [], []
    for part in (inside, outside):
        scores.append(np.concatenate([one.novelty for one in part if one.novelty is not None]))
        unknown.append(1 - float(np.concatenate([one.known for one in part if one.known is not None]).mean()))
    return auroc(scores[0], scores[1]), (unknown[0], unknown[1])


def sampled(classes: ImageClasses, config: EvaluationConfig) -> Iterator[Episode]:
    """The episodes of ``config``; equal configurations give the same episodes."""
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
    """Accuracy (0..1) and mean cross-entropy of the artifact on the episode's queries, each on its own."""
    logits = torch.from_numpy(Classifier.from_bytes(adapted.artifact).logits(episode.queries.numpy()))
    accuracy = (logits.argmax(1) == episode.query_labels).double().mean()
    return float(accuracy), float(torch.nn.functional.cross_entropy(logits, episode.query_labels))
