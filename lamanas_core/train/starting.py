"""Where a training starts: at random, or from a meta-model that was trained before."""

from dataclasses import replace
from pathlib import Path

from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.adapt.parameters import Parameters, initial_parameters
from lamanas_core.backbones import load_pretrained
from lamanas_core.config import Config
from lamanas_core.losses.slope import turn_slope
from lamanas_core.meta_model import MetaModel, read, shipped


def starting_parameters(config: Config, start: str | None, seed: int, pretrained: str | None = None) -> Parameters:
    """All at random from ``seed``, or θ, α and the head's scale of the meta-model ``start`` (a folder, or "shipped").

    φ and the step sizes go on from there as well where the task learner is the same, and start anew where it is not.
    Without ``start`` the stem can be that of a trained ResNet-18, from the safetensors file ``pretrained``.
    Raises ValueError where the network is another one, FileNotFoundError, MetaModelError.
    """
    fresh = _with_rising_slope(initial_parameters(config, seed), config)
    if start is None:
        return fresh if pretrained is None else replace(fresh, theta=load_pretrained(fresh.theta, Path(pretrained)))
    before = load_start(start)
    if before.config.network != config.network:
        raise ValueError(f"{start} has another network than preset {config.preset}: it cannot be gone on from")
    if before.config.task_learner == config.task_learner:
        return before.parameters
    return replace(
        fresh,
        theta=before.parameters.theta,
        alpha=before.parameters.alpha,
        log_scale=before.parameters.log_scale,
    )


def load_start(start: str) -> MetaModel:
    """The meta-model called ``start``: "shipped", or the one in that folder."""
    return MetaModel.from_bytes(*shipped()) if start == "shipped" else read(Path(start))


def _with_rising_slope(parameters: Parameters, config: Config) -> Parameters:
    learner = TaskLearner.build(config)
    learner.loss.load_state_dict(parameters.phi)
    if not turn_slope(learner.loss):
        return parameters
    return replace(parameters, phi={name: value.detach().clone() for name, value in learner.loss.named_parameters()})
