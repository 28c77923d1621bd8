"""Initial parameters of a training: random, or those of an earlier meta-model."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.adapt.parameters import Parameters, initial_parameters
from lamanas_core.config import Config
from lamanas_core.data.folders import ImageClasses
from lamanas_core.data.maps import AT_ONCE
from lamanas_core.losses.slope import turn_slope
from lamanas_core.meta_model import MetaModel, read, shipped
from lamanas_core.search.stems import load_pretrained


def starting_parameters(config: Config, start: str | None, seed: int, pretrained: str | None = None) -> Parameters:
    """The initial parameters of a training, on the CPU.

    Random parameters from ``seed``, or θ, α and the head's scale of the meta-model ``start`` (a folder, or "shipped").
    φ and the step sizes are also taken from ``start`` if its task learner is the same, and otherwise initialised.
    Without ``start``, the weights of a ResNet-18 stem can be loaded from the safetensors file ``pretrained``. Raises
    ValueError if the network of ``start`` differs in more than what it drops, FileNotFoundError and MetaModelError.
    """
    initial = _with_rising_slope(initial_parameters(config, seed), config)
    if start is None:
        if pretrained is None:
            return initial
        return replace(initial, theta=load_pretrained(initial.theta, Path(pretrained)))
    earlier = load_start(start)
    known, wanted = earlier.config.network, config.network
    if known.ways != wanted.ways and wanted.takes_parameters_of(replace(known, ways=wanted.ways)):
        raise ValueError(
            f"cannot start from {start}: its head has {known.ways} classes, that of this training {wanted.ways}: "
            f"set ways to {known.ways}"
        )
    if not wanted.takes_parameters_of(known):
        raise ValueError(f"cannot start from {start}: its network differs from that of preset {config.preset}")
    if earlier.config.task_learner == config.task_learner:
        return earlier.parameters
    return replace(
        initial,
        theta=earlier.parameters.theta,
        alpha=earlier.parameters.alpha,
        log_scale=earlier.parameters.log_scale,
    )


@torch.no_grad()
def with_prior_of(parameters: Parameters, learner: TaskLearner, classes: ImageClasses) -> Parameters:
    """``parameters`` with what the head computes of the data before a training (``Head.prior_of``), if the network
    has a backbone, whose features mean something then.

    ``classes``: with inputs in several styles in place of images (``data.maps.in_styles``). Their groups are the sets
    that count the same.
    """
    network = learner.network
    if network.config.backbone is None:
        return parameters
    sets: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for label, (group, rows) in enumerate(zip(classes.groups, classes.members, strict=True)):
        parts = torch.split(classes.images[rows].flatten(0, 1), AT_ONCE)
        features = torch.cat([learner.embed(parameters.theta, parameters.alpha, network.inputs(x))[0] for x in parts])
        sets.setdefault(group, []).append((features, torch.full((len(features),), label)))
    found = learner.head.prior_of(
        [(torch.cat([x for x, _ in parts]), torch.cat([labels for _, labels in parts])) for parts in sets.values()]
    )
    return replace(parameters, theta=parameters.theta | found)


def load_start(start: str) -> MetaModel:
    """The meta-model ``start``: "shipped", or a folder. Raises FileNotFoundError and MetaModelError."""
    return MetaModel.from_bytes(*shipped()) if start == "shipped" else read(Path(start))


def _with_rising_slope(parameters: Parameters, config: Config) -> Parameters:
    learner = TaskLearner.build(config)
    learner.loss.load_state_dict(parameters.phi)
    if not turn_slope(learner.loss):
        return parameters
    return replace(parameters, phi={name: value.detach().clone() for name, value in learner.loss.named_parameters()})
