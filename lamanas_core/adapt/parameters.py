"""What is meta-learned: θ, α, φ, the step sizes and the head's scale."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lamanas_core.config import Config
from lamanas_core.losses.invariant import LearnedLoss
from lamanas_core.losses.paper import PaperLoss
from lamanas_core.search.alpha import initial_alpha
from lamanas_core.search.network import Supernet, initialise

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Parameters:
    """All that is meta-learned: θ, α, φ, step sizes (logarithms, (steps, tensors)) and the head's scale (as log)."""

    theta: Tensors
    alpha: Tensors
    phi: Tensors
    theta_rates: Tensor
    alpha_rates: Tensor
    log_scale: Tensor

    def named(self) -> Tensors:
        """Every tensor under one flat name, ``theta.<...>`` and so on."""
        return {
            **{f"theta.{name}": value for name, value in self.theta.items()},
            **{f"alpha.{name}": value for name, value in self.alpha.items()},
            **{f"phi.{name}": value for name, value in self.phi.items()},
            "rates.theta": self.theta_rates,
            "rates.alpha": self.alpha_rates,
            "scale": self.log_scale,
        }

    @classmethod
    def from_named(cls, named: Mapping[str, Tensor]) -> "Parameters":
        """The inverse of ``named``; θ and α keep the order they have there, which the step sizes go by.

        Raises KeyError where one is missing.
        """

        def part(prefix: str) -> Tensors:
            return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}

        rates = named["rates.theta"], named["rates.alpha"]
        return cls(part("theta."), part("alpha."), part("phi."), *rates, named["scale"])

    def map(self, function: Callable[[Tensor], Tensor]) -> "Parameters":
        """``function`` applied to every tensor."""
        return Parameters.from_named({name: function(value) for name, value in self.named().items()})


def make_loss(config: Config, generator: torch.Generator | None = None) -> LearnedLoss | PaperLoss:
    """φ's module: the paper's own form for its linear head, the one for any number of classes for prototypes."""
    task, network = config.task_learner, config.network
    if network.head == "linear" and task.loss != "cross_entropy":
        return PaperLoss(task.loss, task.residual, task.hidden, network.ways, generator)
    return LearnedLoss(task.loss, task.residual, task.hidden, generator)


def initial_parameters(config: Config, seed: int) -> Parameters:
    """θ, φ at random from ``seed``, α near 0, rates and scale as the config says."""
    generator = torch.Generator().manual_seed(seed)
    network, task = Supernet(config.network), config.task_learner
    initialise(network, generator)
    loss = make_loss(config, generator)
    theta = {name: p.detach().clone() for name, p in network.named_parameters()}
    alpha = initial_alpha(config.network)
    return Parameters(
        theta,
        # Not quite 0: two operations that start level would stay level.
        {name: value + 1e-3 * torch.randn(value.shape, generator=generator) for name, value in alpha.items()},
        {name: p.detach().clone() for name, p in loss.named_parameters()},
        torch.full((task.steps, len(theta)), task.theta_rate).log(),
        torch.full((task.steps, len(alpha)), task.alpha_rate).log(),
        torch.tensor(10.0).log(),
    )
