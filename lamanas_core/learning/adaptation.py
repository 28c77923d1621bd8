"""From a support set to a finished classifier: Φ_K, pruning, exact statistics and head, artifact."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lamanas_core.genotype import Genotype
from lamanas_core.learning import onnx_graph
from lamanas_core.learning.architecture import cell_weights, genotype
from lamanas_core.learning.config import NetworkConfig
from lamanas_core.learning.episodes import to_float
from lamanas_core.learning.meta_model import MetaModel
from lamanas_core.learning.normalisation import Statistics
from lamanas_core.learning.prototypes import leave_one_out_logits, logits, prototypes
from lamanas_core.learning.task_learner import Learner, Parameters, Tensors, steps

# Images a step learns from at most: keeps 50 classes of 20 images under 4 GB.
LARGEST_BATCH = 250


@dataclass(frozen=True)
class AdaptedNetwork:
    """*The* adapted network: parameters after K steps, what α keeps of them, statistics and prototypes of the support.

    ``centres``: float (ways, d).
    """

    learner: Learner
    parameters: Parameters
    statistics: Statistics
    centres: Tensor

    def logits(self, images: Tensor) -> Tensor:
        """float images (n, c, h, w) in 0..1 -> (n, ways)."""
        features = self.learner.embed(self.parameters.theta, self.parameters.alpha, images, self.statistics)
        return logits(features, self.centres, self.parameters.log_scale.exp())

    def artifact(self, classes: Sequence[str], model_version: str) -> bytes:
        """The same network as an ONNX file."""
        d = self.centres.shape[1]
        scale = self.parameters.log_scale.exp() / d
        head = onnx_graph.Head(
            (2 * scale * self.centres).cpu().numpy(), (-scale * self.centres.square().sum(1)).cpu().numpy()
        )
        network = self.learner.config.network
        return onnx_graph.build(network, self.parameters, self.statistics, head, classes, model_version)


@dataclass(frozen=True)
class Adapted:
    """What an adaptation leaves: the artifact, and what is told about it. Accuracies are fractions."""

    artifact: bytes
    genotype: Genotype
    parameters_kept: int
    parameters_total: int
    support_accuracy: float
    leave_one_out_accuracy: float | None
    losses: tuple[float, ...]
    warnings: tuple[str, ...]


@torch.no_grad()
def finish(learner: Learner, parameters: Parameters, support: Tensor, labels: Tensor, ways: int) -> AdaptedNetwork:
    """Fix θ and α; recompute statistics and prototypes on the support set, float (n, c, h, w), with what is left."""
    statistics = Statistics(len(support))
    features = learner.embed(parameters.theta, parameters.alpha, support, statistics)
    return AdaptedNetwork(learner, parameters, statistics.freeze(), prototypes(features, labels, ways))


def adapt(
    meta_model: MetaModel,
    support: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    classes: Sequence[str],
    *,
    steps: int | None,
    seed: int,
    device: str,
    on_step: Callable[[int, int, float], None],
) -> Adapted:
    """Adapt to a support set, uint8 (n, c, h, w) with labels (n,) in 0..len(classes)-1, in ``steps`` (default K) steps.

    Deterministic in its arguments for one kind of device and number of threads. ``on_step`` gets step, steps and that
    step's loss. Raises ValueError where the images do not have the meta-model's shape.
    """
    config = meta_model.config
    if support.shape[1:] != config.network.image.shape:
        raise ValueError(f"images of shape {support.shape[1:]} for a meta-model of {config.network.image.shape}")
    parameters = meta_model.parameters.map(lambda tensor: tensor.detach().to(device))
    learner = meta_model.learner
    images = to_float(torch.from_numpy(np.ascontiguousarray(support))).to(device)
    targets = torch.from_numpy(np.ascontiguousarray(labels)).to(device)
    count = config.task_learner.steps if steps is None else steps
    batches = minibatches(targets.cpu(), len(classes), count, torch.Generator().manual_seed(seed))
    network, losses = _run(learner, parameters, images, targets, len(classes), batches, on_step)
    kept = kept_parameters(network.parameters.theta, network.parameters.alpha, config.network)
    with torch.no_grad():
        scale = parameters.log_scale.exp()
        features = learner.embed(network.parameters.theta, network.parameters.alpha, images, network.statistics)
        fitted = logits(features, network.centres, scale)
        held_out = leave_one_out_logits(features, targets, len(classes), scale)
        repeated = torch.bincount(targets)[targets] > 1
    return Adapted(
        artifact=network.artifact(classes, meta_model.version),
        genotype=genotype(network.parameters.alpha, config.network),
        parameters_kept=kept,
        parameters_total=sum(value.numel() for value in parameters.theta.values()),
        support_accuracy=_accuracy(fitted, targets),
        leave_one_out_accuracy=_accuracy(held_out[repeated], targets[repeated]) if bool(repeated.any()) else None,
        losses=tuple(losses),
        warnings=_warnings(meta_model.card, support),
    )


def _run(
    learner: Learner,
    parameters: Parameters,
    images: Tensor,
    labels: Tensor,
    ways: int,
    batches: Sequence[Tensor],
    on_step: Callable[[int, int, float], None],
) -> tuple[AdaptedNetwork, list[float]]:
    theta, alpha, losses = parameters.theta, parameters.alpha, []
    rows = [batch.to(images.device) for batch in batches]
    taken = steps(learner, parameters, images, labels, ways, len(rows), batches=rows)
    for k, step in enumerate(taken, start=1):
        theta, alpha = step.theta, step.alpha
        losses.append(float(step.loss))
        on_step(k, len(rows), losses[-1])
    after = replace(parameters, theta=theta, alpha=alpha).map(torch.Tensor.detach)
    return finish(learner, after, images, labels, ways), losses


def minibatches(labels: Tensor, ways: int, count: int, generator: torch.Generator) -> list[Tensor]:
    """For each of ``count`` steps the rows it uses, in order: all of them up to ``LARGEST_BATCH``, else a fresh draw.

    A draw has the same number of images of every class, as far as a class has them, so that every class is in it.
    """
    everything = torch.arange(len(labels))
    if len(labels) <= LARGEST_BATCH:
        return [everything] * count
    each = LARGEST_BATCH // ways
    drawn = []
    for _ in range(count):
        members = [everything[labels == label] for label in range(ways)]
        picked = [rows[torch.randperm(len(rows), generator=generator)[:each]] for rows in members]
        drawn.append(torch.cat(picked).sort().values)
    return drawn


def kept_parameters(theta: Tensors, alpha: Tensors, config: NetworkConfig) -> int:
    """How many numbers of θ the adapted network still uses."""
    weights = cell_weights(alpha, config, temperature=config.temperature, threshold=config.prune_threshold)
    total = 0
    for name, value in theta.items():
        path = name.split(".")
        if len(path) > 3 and path[2] == "edges":
            kept = weights.kinds[config.cells[int(path[1])]].kept[int(path[3])]
            if int(path[4]) not in kept:
                continue
        total += value.numel()
    return total


def _accuracy(predicted: Tensor, labels: Tensor) -> float:
    return float((predicted.argmax(1) == labels).float().mean())


def _warnings(card: dict[str, object], support: npt.NDArray[np.uint8]) -> tuple[str, ...]:
    """A word of caution where the images' ink lies outside what the meta-model's training images had."""
    domain = card.get("domain")
    if not isinstance(domain, dict):
        return ()
    ink = float(support.mean()) / 255
    low, high = domain["ink"]
    if low <= ink <= high:
        return ()
    return (
        f"These images look unlike those the meta-model was trained on ({domain['name']}): their mean ink is "
        f"{ink:.2f}, and {low:.2f} to {high:.2f} was usual there. Predictions may mean little.",
    )
