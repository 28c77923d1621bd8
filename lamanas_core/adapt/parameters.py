"""What is meta-learned: θ, α, φ, the step sizes and the head's scale."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lamanas_core.config import Config
from lamanas_core.heads import make_head
from lamanas_core.search.alpha import initial_alpha
from lamanas_core.search.network import Network

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Parameters:
    """All that is meta-learned: θ, α, φ, the logarithms of the step sizes λ and ξ, each (steps, tensors), and of the
    head's scale."""

    theta: Tensors
    alpha: Tensors
    phi: Tensors
    theta_log_rates: Tensor
    alpha_log_rates: Tensor
    log_scale: Tensor

    def named(self) -> Tensors:
        """Every tensor under one flat name, ``theta.<...>`` and so on."""
        return {
            **{f"theta.{name}": value for name, value in self.theta.items()},
            **{f"alpha.{name}": value for name, value in self.alpha.items()},
            **{f"phi.{name}": value for name, value in self.phi.items()},
            "rates.theta": self.theta_log_rates,
            "rates.alpha": self.alpha_log_rates,
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

    def log_rates(self, k: int) -> tuple[Tensor, Tensor]:
        """The logarithms of λ and ξ of step ``k``, one a tensor. Steps beyond those learned for take the last."""
        learned = min(k, len(self.theta_log_rates) - 1)
        return self.theta_log_rates[learned], self.alpha_log_rates[learned]

    def map(self, function: Callable[[Tensor], Tensor]) -> "Parameters":
        """``function`` applied to every tensor."""
        return Parameters.from_named({name: function(value) for name, value in self.named().items()})


def initial_parameters(config: Config, seed: int) -> Parameters:
    """θ, φ at random from ``seed``, α near 0, rates and scale as the config says."""
    generator = torch.Generator().manual_seed(seed)
    task = config.task_learner
    theta = Network(config.network).initial_theta(generator)
    loss = make_head(config.network).loss_network(task, generator)
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
