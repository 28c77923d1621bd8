"""Adaptation: K inner steps, pruning, moments and head of the whole support set, and the artifact."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lamanas_core.adapt import onnx
from lamanas_core.adapt.batches import balanced, drawn
from lamanas_core.adapt.foreign import warnings_of
from lamanas_core.adapt.held_out import Suspect, held_out_accuracy, suspects
from lamanas_core.adapt.inner import TaskLearner, steps
from lamanas_core.adapt.parameters import Parameters
from lamanas_core.adapt.unlabelled import fit_with, warnings_of_unlabelled
from lamanas_core.config import Config
from lamanas_core.data.crops import cropped, crops_of_each
from lamanas_core.data.episodes import Episode
from lamanas_core.genotype import Genotype
from lamanas_core.heads.base import FittedHead, Support
from lamanas_core.heads.prototypes import class_sizes
from lamanas_core.image_spec import UNLABELLED
from lamanas_core.meta_model import MetaModel
from lamanas_core.search.network import NetworkMoments
from lamanas_core.search.normalisation import Batch

# The maximum number of images per inner step. It keeps the memory for 50 classes of 20 images below 4 GB.
LARGEST_BATCH = 250


@dataclass(frozen=True)
class AdaptedNetwork:
    """The adapted and pruned network: the parameters after K inner steps, with the support set's moments and head.

    ``support``: the features of the labelled images, without the unlabelled ones, to which ``head`` may be fitted as
    well. ``belonging``: ``Adapted.unlabelled_belonging``.
    """

    learner: TaskLearner
    parameters: Parameters
    moments: NetworkMoments
    support: Support
    head: FittedHead
    belonging: float | None

    def embed(self, images: Tensor) -> Tensor:
        """Images, uint8 (n, c, size, size) -> features, float (n, d)."""
        theta, alpha, network = self.parameters.theta, self.parameters.alpha, self.learner.network
        return self.learner.embed(theta, alpha, network.inputs(images), self.moments)[0]

    def logits(self, images: Tensor) -> Tensor:
        """Images, uint8 (n, c, size, size) -> logits, float (n, ways)."""
        return self.head.logits(self.embed(images))

    def parameters_kept(self) -> int:
        """The number of parameters in θ that remain after pruning."""
        network = self.learner.network
        return network.kept_cost(network.pruned(self.parameters.alpha))

    def artifact(self, classes: Sequence[str], model_version: str) -> bytes:
        """This network as an ONNX file; see ``onnx.build``."""
        return onnx.build(self.learner, self.parameters, self.moments, self.head, classes, model_version)


@dataclass(frozen=True)
class Adapted:
    """The result of an adaptation.

    ``parameters_kept`` of ``parameters_total`` parameters in θ remain after pruning. ``support_accuracy`` (0..1): on
    the support set. ``leave_one_out_accuracy`` (0..1): an estimate of the accuracy on new images, see
    ``held_out_accuracy``; None if every class has one image or the head is not fitted to the support set.
    ``suspects``: support images whose label is doubtful. ``unlabelled_belonging``: the estimated fraction (0..1) of the
    unlabelled images that belongs to the classes; None without such images and for a head that cannot learn from them,
    see ``adapt.unlabelled``. ``losses``: L_φ before each step. Accuracies, suspects and losses are of the labelled
    images alone.
    """

    network: AdaptedNetwork
    artifact: bytes
    genotype: Genotype
    parameters_kept: int
    parameters_total: int
    support_accuracy: float
    leave_one_out_accuracy: float | None
    suspects: tuple[Suspect, ...]
    unlabelled_belonging: float | None
    losses: tuple[float, ...]
    warnings: tuple[str, ...]


@torch.no_grad()
def finish(
    learner: TaskLearner,
    parameters: Parameters,
    support: Tensor,
    labels: Tensor,
    ways: int,
    unlabelled: Tensor | None = None,
    crops: Tensor | None = None,
) -> AdaptedNetwork:
    """The pruned network under ``parameters``, with moments and head recomputed on the whole support set.

    ``support``: the ``Network.inputs`` of the labelled images, whose moments are used; ``labels``: int64 (n,) in
    0..``ways``-1. ``unlabelled``: the inputs of images without a label (m, ...), to which the head is fitted as well.
    ``crops``: those of v crops of each labelled image (n, v, ...), likewise.
    """
    parameters = as_stored(learner, parameters)
    theta, alpha = parameters.theta, parameters.alpha
    features, moments = learner.embed(theta, alpha, support)

    def embedded(inputs: Tensor) -> Tensor:
        parts = torch.split(inputs, LARGEST_BATCH)
        return torch.cat([learner.embed(theta, alpha, part, moments)[0] for part in parts])

    of_crops = None if crops is None else embedded(crops.flatten(0, 1)).view(*crops.shape[:2], -1)
    seen = Support(features, labels, ways, of_crops)
    if unlabelled is None:
        return with_head(learner, parameters, moments, seen)
    found = fit_with(learner, theta, parameters.log_scale, seen, embedded(unlabelled))
    return AdaptedNetwork(learner, parameters, moments, seen, found.head.stored(), found.belonging)


def as_stored(learner: TaskLearner, parameters: Parameters) -> Parameters:
    """The parameters as the artifact has them, if it stores some of them with fewer bits."""
    return replace(parameters, theta=learner.head.stored(learner.network.stored(parameters.theta)))


def with_head(
    learner: TaskLearner, parameters: Parameters, moments: NetworkMoments, support: Support
) -> AdaptedNetwork:
    """The network under ``parameters`` and ``moments``, with the head fitted to ``support``."""
    head = learner.fitted_head(parameters.theta, parameters.log_scale, support)
    return AdaptedNetwork(learner, parameters, moments, support, head.stored(), None)


def adapt(
    meta_model: MetaModel,
    support: npt.NDArray[Any],
    labels: npt.NDArray[np.int64],
    classes: Sequence[str],
    *,
    steps: int | None,
    seed: int,
    device: str,
    on_step: Callable[[int, int, float], None],
    judged: bool = True,
) -> Adapted:
    """Adapt ``meta_model`` to a support set in ``steps`` inner steps (None: the meta-model's K).

    A label of -1 (``UNLABELLED``) is that of an image without one, which the head uses, but not the steps.

    ``support``: uint8 (n, c, h, w), or what ``data.maps.with_inputs`` makes of such images, the ``Network.inputs`` of
    each and of its crops, float (n, 1 + crops, m), which are not checked for warnings; ``labels``: int64 (n,) in
    0..len(classes)-1 or ``UNLABELLED``. ``on_step`` is called after each step with its number from 1, the number of
    steps, and its loss. ``judged``: also estimate the accuracy and look for suspects, which costs about half as much
    again. On the same type of device with the same number of threads, equal arguments give equal results. Raises
    ValueError if the images do not have the meta-model's shape, if inputs of crops are missing, or if there are more
    classes than its head supports.
    """
    config, learner = meta_model.config, meta_model.learner
    labelled = labels != UNLABELLED
    others = None if labelled.all() else _inputs(learner, support[~labelled], device)
    support, labels = support[labelled], labels[labelled]
    images, targets = checked(meta_model, support, labels, classes, device)
    parameters = meta_model.parameters.map(lambda tensor: tensor.detach().to(device))
    count = config.task_learner.steps if steps is None else steps
    ways = len(classes)
    batches = minibatches(config, targets.cpu(), ways, count, torch.Generator().manual_seed(seed))
    after, losses, first = _run(learner, parameters, images, targets, ways, batches, on_step)
    network = finish(learner, after, images, targets, ways, others, _crops(learner, support, device))
    accuracy, doubtful = None, []
    if judged and learner.head.leaves_one_out:
        generator = torch.Generator().manual_seed(seed)
        embed = partial(_embed_by, learner, parameters, images, targets, ways, count, generator)
        accuracy = held_out_accuracy(embed, targets, ways, generator)
        doubtful = suspects(logits_before(learner, parameters, images, targets, ways, first), targets)
    adapted = result(meta_model, network, support, labels, classes, losses, accuracy, doubtful)
    if others is None:
        return adapted
    return replace(adapted, warnings=adapted.warnings + warnings_of_unlabelled(network.belonging))


def checked(
    meta_model: MetaModel,
    support: npt.NDArray[Any],
    labels: npt.NDArray[np.int64],
    classes: Sequence[str],
    device: str,
) -> tuple[Tensor, Tensor]:
    """The network's inputs for labelled images, float (n, ...), and their labels, int64 (n,); see ``adapt``, also for
    errors.
    """
    image, max_classes = meta_model.config.network.image, meta_model.learner.head.classes()
    if support.dtype == np.uint8 and support.shape[1:] != image.shape:
        raise ValueError(f"images of shape {support.shape[1:]}; the meta-model expects {image.shape}")
    if max_classes is not None and len(classes) > max_classes:
        raise ValueError(f"{len(classes)} classes; the meta-model's head supports at most {max_classes}")
    return _inputs(meta_model.learner, support, device), torch.from_numpy(np.ascontiguousarray(labels)).to(device)


def result(
    meta_model: MetaModel,
    network: AdaptedNetwork,
    support: npt.NDArray[Any],
    labels: npt.NDArray[np.int64],
    classes: Sequence[str],
    losses: Sequence[float],
    accuracy: float | None,
    doubtful: Sequence[Suspect],
) -> Adapted:
    """What there is to say of an adapted network. ``support`` and ``labels``: of the labelled images; the other
    arguments as in ``adapt`` and ``Adapted``.
    """
    spec, given = meta_model.config.network.image, support.dtype == np.uint8
    return Adapted(
        network=network,
        artifact=network.artifact(classes, meta_model.version),
        genotype=network.learner.network.genotype(network.parameters.alpha),
        parameters_kept=network.parameters_kept(),
        parameters_total=sum(value.numel() for value in network.parameters.theta.values()),
        support_accuracy=_accuracy(network.head.logits(network.support.features), network.support.labels),
        leave_one_out_accuracy=accuracy,
        suspects=tuple(doubtful),
        unlabelled_belonging=network.belonging,
        losses=tuple(losses),
        warnings=warnings_of(spec, meta_model.card, support, labels, classes) if given else (),
    )


def _inputs(learner: TaskLearner, images: npt.NDArray[Any], device: str) -> Tensor:
    return learner.network.inputs(_tensor(images)).to(device)


def _tensor(images: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images))


def _crops(learner: TaskLearner, support: npt.NDArray[Any], device: str) -> Tensor | None:
    """The network's inputs of the crops that the head is fitted to, (n, v, ...), of the labelled images ``support`` of
    ``adapt``; None without crops.
    """
    network = learner.network
    count = crops_of_each(len(support), network.config.crops)
    if count == 0 or network.config.backbone is None:
        return None
    images = _tensor(support)
    if not images.is_floating_point():
        return network.inputs(cropped(images, count).flatten(0, 1)).to(device).view(len(support), count, -1)
    if images.ndim != 3 or images.shape[1] < 1 + count:
        raise ValueError(
            f"inputs of shape {tuple(images.shape)}; needed are those of each image and {count} crops of it"
        )
    return images[:, 1 : 1 + count].float().to(device)


def adapt_to(
    meta_model: MetaModel, episode: Episode, *, steps: int | None, seed: int, device: str, judged: bool = False
) -> Adapted:
    """``adapt`` to a sampled episode; class names are the label numbers."""
    return adapt(
        meta_model,
        episode.support.numpy(),
        episode.support_labels.numpy(),
        [str(i) for i in range(episode.ways)],
        steps=steps,
        seed=seed,
        device=device,
        on_step=lambda step, steps, loss: None,
        judged=judged,
    )


def _run(
    learner: TaskLearner,
    parameters: Parameters,
    images: Tensor,
    labels: Tensor,
    ways: int,
    batches: Sequence[Tensor],
    on_step: Callable[[int, int, float], None],
) -> tuple[Parameters, list[float], Tensor | None]:
    """The parameters after a step on each of ``batches``, rows of ``images``; L_φ before each step; and the logits of
    the first step, None without steps.
    """
    theta, alpha, losses, first = parameters.theta, parameters.alpha, list[float](), None
    rows = [batch.to(images.device) for batch in batches]
    for k, step in enumerate(steps(learner, parameters, images, labels, ways, len(rows), batches=rows), start=1):
        theta, alpha, first = step.theta, step.alpha, step.logits if first is None else first
        losses.append(float(step.loss))
        on_step(k, len(rows), losses[-1])
    return replace(parameters, theta=theta, alpha=alpha).map(torch.Tensor.detach), losses, first


def _embed_by(
    learner: TaskLearner,
    parameters: Parameters,
    images: Tensor,
    labels: Tensor,
    ways: int,
    count: int,
    generator: torch.Generator,
    rows: Tensor,
) -> Tensor:
    """The features, float (n, d), of all images after ``count`` steps on ``rows``, with the statistics of ``rows``, as
    the head compares them.
    """
    batches = minibatches(learner.config, labels[rows].cpu(), ways, count, generator)
    after, _, _ = _run(learner, parameters, images[rows], labels[rows], ways, batches, lambda *_: None)
    first = torch.cat([rows, torch.ones_like(labels).index_fill(0, rows, 0).nonzero().flatten()])
    with torch.no_grad():
        features, _ = learner.embed(after.theta, after.alpha, images[first], batch=Batch(support=len(rows)))
    compared = learner.head.compared(after.theta, features)
    return torch.empty_like(compared).index_copy(0, first, compared)


@torch.no_grad()
def logits_before(
    learner: TaskLearner, parameters: Parameters, images: Tensor, labels: Tensor, ways: int, first: Tensor | None
) -> Tensor:
    """The leave-one-out logits (n, ways) of all images before the first step, without crops, at the calibrated scale.

    ``first``: the logits of the first step, which are those if it used all images; None without steps.
    """
    temperature = learner.temperature(class_sizes(labels, ways), crops=False)
    if first is not None and len(first) == len(labels):
        return first / (learner.config.task_learner.logit_scale * temperature)
    features, _ = learner.embed(parameters.theta, parameters.alpha, images)
    scale = parameters.log_scale.exp() / temperature
    return learner.head.support_logits(parameters.theta, Support(features, labels, ways), scale)


def minibatches(config: Config, labels: Tensor, ways: int, count: int, generator: torch.Generator) -> list[Tensor]:
    """For each of ``count`` inner steps the row numbers (int64) of the support set that it uses.

    All rows if there are at most ``LARGEST_BATCH``, otherwise balanced minibatches; or batches of the size that the
    config specifies.
    """
    if config.task_learner.batch is not None:
        return drawn(labels, count, config.task_learner.batch, generator)
    if len(labels) <= LARGEST_BATCH:
        return [torch.arange(len(labels))] * count
    return balanced(labels, ways, count, LARGEST_BATCH, generator)


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(1) == labels).float().mean())
