"""Several episodes of equal shape adapted in one batch, for GPUs, with the results of each alone, within TOLERANCE.

What runs under ``torch.func.vmap`` computes the operations that any of the episodes keeps. Those that an episode drops
have weight 0 for it, so that each episode can have its own architecture.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lamanas_core.adapt.adapted import (
    LARGEST_BATCH,
    Adapted,
    as_stored,
    checked,
    logits_before,
    result,
    with_head,
)
from lamanas_core.adapt.held_out import half_of_each, held_out_accuracy, suspects
from lamanas_core.adapt.inner import Evaluate, TaskLearner, adam, in_a_row, leaves, loss_at, moved_along
from lamanas_core.adapt.parameters import Parameters, Tensors
from lamanas_core.config import Config
from lamanas_core.heads.base import Support
from lamanas_core.image_spec import UNLABELLED
from lamanas_core.meta_model import MetaModel
from lamanas_core.search.mixing import Mixing
from lamanas_core.search.network import NetworkMoments
from lamanas_core.search.normalisation import Batch

# The largest difference of a logit from that of the episode adapted alone, as a fraction of the largest logit, after up
# to 20 steps. Another number of threads makes as much of a difference.
TOLERANCE = 0.01


@dataclass(frozen=True)
class SupportSet:
    """One of the episodes: ``support``, ``labels``, ``classes`` and ``seed`` as in ``adapted.adapt``."""

    support: npt.NDArray[Any]
    labels: npt.NDArray[np.int64]
    classes: Sequence[str]
    seed: int


@dataclass(frozen=True)
class Stepped:
    """E episodes after their inner steps.

    ``theta`` and ``alpha``: each tensor (E, ...). ``losses``: L_φ before each of ``count`` steps, (count, E).
    ``first``: the logits of the first step, (E, n, ways); None without steps.
    """

    theta: Tensors
    alpha: Tensors
    losses: Tensor
    first: Tensor | None

    def parameters(self, meta: Parameters, number: int) -> Parameters:
        """Those of one episode; ``meta``: the parameters that all started from."""
        return replace(meta, theta=_of(self.theta, number), alpha=_of(self.alpha, number))

    def on_cpu(self) -> "Stepped":
        """The same on the CPU."""
        first = None if self.first is None else self.first.cpu()
        return Stepped(_on_cpu(self.theta), _on_cpu(self.alpha), self.losses.cpu(), first)


def can_adapt_together(config: Config, images: int) -> bool:
    """Whether support sets of so many images can be adapted in one batch: each step must use all of them, and the
    network must have no backbone.
    """
    return config.network.backbone is None and config.task_learner.batch is None and images <= LARGEST_BATCH


def adapt_together(
    meta_model: MetaModel,
    episodes: Sequence[SupportSet],
    *,
    steps: int | None,
    device: str,
    on_step: Callable[[int, int, list[float]], None],
    judged: bool = True,
) -> Iterator[Adapted]:
    """``adapted.adapt`` on each of E episodes with equal numbers of images and classes, in one batch.

    ``on_step`` is called after each step with its number from 1, the number of steps, and the losses of all episodes.
    The steps are taken when the first result is asked for. The networks in the results are on the CPU. Raises
    ValueError as ``adapt``, and if the episodes are not of equal shape or ``can_adapt_together`` says no.
    """
    learner, ways, n = meta_model.learner, len(episodes[0].classes), len(episodes[0].labels)
    if any((len(one.classes), len(one.labels)) != (ways, n) for one in episodes):
        raise ValueError("only episodes with equal numbers of images and of classes can be adapted together")
    if any((one.labels == UNLABELLED).any() for one in episodes):
        raise ValueError("an episode that has images without a label can only be adapted alone")
    if not can_adapt_together(meta_model.config, n):
        raise ValueError("this meta-model adapts to so many images only one episode at a time")
    prepared = [checked(meta_model, one.support, one.labels, one.classes, "cpu") for one in episodes]
    parameters = meta_model.parameters.map(lambda tensor: tensor.detach().to(device))
    support, labels = (torch.stack(part) for part in zip(*prepared, strict=True))
    count = meta_model.config.task_learner.steps if steps is None else steps
    images = support.to(device)
    stepped = steps_together(learner, parameters, images, labels.to(device), ways, count, on_step)
    embedded = _embedded(learner, stepped, images)
    accuracies = None
    if judged and learner.head.leaves_one_out:
        accuracies = _held_out(learner, parameters, images, labels, ways, count, [one.seed for one in episodes])
    # What is left of each episode is much small work, during which a GPU would be waited for again and again.
    stepped, (features, moments) = stepped.on_cpu(), _mapped(embedded, torch.Tensor.cpu)
    parameters = meta_model.parameters.map(lambda tensor: tensor.detach().cpu())
    for number, one in enumerate(episodes):
        own = as_stored(learner, stepped.parameters(parameters, number))
        targets = labels[number]
        seen = Support(features[number], targets, ways)
        network = with_head(learner, own, _mapped(moments, _pick(number)), seen)
        accuracy, doubtful = None, []
        if accuracies is not None:
            accuracy = accuracies[number]
            first = None if stepped.first is None else stepped.first[number]
            doubtful = suspects(logits_before(learner, parameters, support[number], targets, ways, first), targets)
        losses = stepped.losses[:, number].tolist()
        yield result(meta_model, network, one.support, one.labels, one.classes, losses, accuracy, doubtful)


def steps_together(
    learner: TaskLearner,
    parameters: Parameters,
    support: Tensor,
    labels: Tensor,
    ways: int,
    count: int,
    on_step: Callable[[int, int, list[float]], None] = lambda *_: None,
) -> Stepped:
    """``count`` inner steps of Eq. 2 on each of E episodes, each on the whole support set.

    ``support``: float (E, n, c, h, w); ``labels``: int64 (E, n) in 0..``ways``-1; ``on_step``: see ``adapt_together``.
    The results equal those of ``steps`` up to rounding; their last bits depend on E.
    """
    theta, alpha = _stacked(parameters.theta, len(support)), _stacked(parameters.alpha, len(support))
    state: tuple[Tensor, ...] = ()
    squares: Tensor | None = None
    losses, first = [support.new_zeros(0, len(support))], None
    for k in range(count):
        theta, alpha = leaves(theta), leaves(alpha)
        mixing = _for_all(learner, alpha, learner.mixing(k, count, None))
        evaluate = loss_at(learner, parameters, ways, k / count, mixing, Batch(stacked=True))
        loss, logits, *after = torch.func.vmap(_tensors_only(evaluate))(theta, alpha, support, labels, *state)
        state = tuple(tensor.detach() for tensor in after)
        first = logits.detach() if first is None else first
        # An episode's loss depends only on its own θ and α, so the sum's gradient consists of the episodes' gradients.
        variables = [*theta.values(), *alpha.values()]
        direction = in_a_row(torch.autograd.grad(loss.sum(), variables, materialize_grads=True))
        if learner.config.task_learner.optimizer == "adam":
            direction, squares = adam(direction, squares, k + 1)
        with torch.no_grad():
            theta, alpha = moved_along(theta, alpha, direction, parameters.log_rates(k))
        losses.append(loss.detach()[None])
        on_step(k + 1, count, losses[-1][0].tolist())
    return Stepped(theta, alpha, torch.cat(losses), first)


def _held_out(
    learner: TaskLearner,
    parameters: Parameters,
    support: Tensor,
    labels: Tensor,
    ways: int,
    count: int,
    seeds: Sequence[int],
) -> list[float | None]:
    """``held_out_accuracy`` of each episode; ``labels`` are on the CPU."""

    def generator(number: int) -> torch.Generator:
        return torch.Generator().manual_seed(seeds[number])

    halves = [half_of_each(own, ways, generator(number)) for number, own in enumerate(labels)]
    # Of a class of three images, a half has one or two: where the sizes differ, smaller batches have equal ones.
    features: dict[int, Tensor] = {}
    for size in sorted({len(half) for half in halves} - {labels.shape[1]}):
        numbers = [number for number, half in enumerate(halves) if len(half) == size]
        rows, images = torch.stack([halves[number] for number in numbers]), support[numbers]
        seen = images[torch.arange(len(numbers))[:, None], rows]
        own = labels[numbers].gather(1, rows).to(support.device)
        stepped = steps_together(learner, parameters, seen, own, ways, count)
        _, moments = _embedded(learner, stepped, seen)
        found, _ = _embedded(learner, stepped, images, moments)
        for place, number in enumerate(numbers):
            theta = _of(stepped.theta, place)
            features[number] = learner.head.compared(theta, found[place]).cpu()

    def accuracy(number: int) -> float | None:
        return held_out_accuracy(lambda half: features[number], labels[number], ways, generator(number))

    return [accuracy(number) for number in range(len(labels))]


@torch.no_grad()
def _embedded(
    learner: TaskLearner, stepped: Stepped, support: Tensor, moments: NetworkMoments = None
) -> tuple[Tensor, NetworkMoments]:
    """The pruned networks' features (E, n, d) of the support sets (E, n, ...), and the moments that normalised them.

    ``moments``: those to normalise with; None: those of each support set. Their tensors are (E, ...).
    """
    network = learner.network.config
    mixing = _for_all(learner, stepped.alpha, Mixing(network.temperature, network.prune_threshold))
    structure: NetworkMoments = None

    def embedded(theta: Tensors, alpha: Tensors, images: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        nonlocal structure
        own = _filled(moments, given)
        features, structure = learner.embed(theta, alpha, images, own, Batch(stacked=True), mixing)
        return features, *_tensors(structure)

    features, *found = torch.func.vmap(embedded)(stepped.theta, stepped.alpha, support, *_tensors(moments))
    return features, _filled(structure, found)


def _for_all(learner: TaskLearner, alpha: Tensors, mixing: Mixing) -> Mixing:
    """``mixing`` of a pass that computes every operation which some episode keeps. ``alpha``: each tensor (E, ...)."""
    on_cpu = _on_cpu(alpha)  # read once: on a GPU, each reading waits
    episodes = len(next(iter(on_cpu.values())))
    kept = [learner.network.weights(_of(on_cpu, number), mixing).kinds for number in range(episodes)]
    by_any = {
        kind: tuple(tuple(sorted({o for one in kept for o in one[kind].kept[edge]})) for edge in range(len(own.kept)))
        for kind, own in kept[0].items()
    }
    return replace(mixing, computed=by_any)


def _tensors_only(evaluate: Evaluate) -> Callable[..., tuple[Tensor, ...]]:
    """``evaluate`` with tensors only, as ``vmap`` requires: the loss network's state as two tensors or none."""

    def evaluated(theta: Tensors, alpha: Tensors, images: Tensor, labels: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        loss, logits, after = evaluate(theta, alpha, images, labels, (state[0], state[1]) if state else None)
        return (loss, logits, *(after or ()))

    return evaluated


def _stacked(tensors: Tensors, episodes: int) -> Tensors:
    return {name: value.detach().expand(episodes, *value.shape) for name, value in tensors.items()}


def _of(stacked: Tensors, number: int) -> Tensors:
    return {name: value[number].detach() for name, value in stacked.items()}


def _on_cpu(tensors: Tensors) -> Tensors:
    return {name: value.detach().cpu() for name, value in tensors.items()}


def _pick(number: int) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor[number]


def _mapped(moments: NetworkMoments, function: Callable[[Tensor], Tensor]) -> NetworkMoments:
    """The same structure of dataclasses, mappings and tuples, with ``function`` applied to every tensor in it."""
    if isinstance(moments, Tensor):
        return function(moments)
    if isinstance(moments, Mapping):
        return {name: _mapped(value, function) for name, value in moments.items()}
    if isinstance(moments, tuple):
        return tuple(_mapped(value, function) for value in moments)
    if moments is None:
        return None
    return replace(moments, **{f.name: _mapped(getattr(moments, f.name), function) for f in fields(moments)})


def _tensors(moments: NetworkMoments) -> list[Tensor]:
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    _mapped(moments, note)
    return found


def _filled(moments: NetworkMoments, tensors: Sequence[Tensor]) -> NetworkMoments:
    """``moments`` with ``tensors`` in place of its own."""
    left = iter(tensors)
    return _mapped(moments, lambda _: next(left))
