"""The meta-parameters: θ, α, φ, the inner step sizes and the head's scale."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lamanas_core.config import Config
from lamanas_core.heads.registry import make_head
from lamanas_core.search.registry import make_network

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Parameters:
    """All meta-learned parameters, float32.

    ``theta`` (θ), ``alpha`` (α) and ``phi`` (φ): tensors by name. ``theta_log_rates`` and ``alpha_log_rates``: the log
    step sizes log λ_task, (steps, tensors of θ), and log ξ_task, (steps, tensors of α), of Eq. 2. ``log_scale``: the
    logarithm of the head's scale, a scalar.
    """

    theta: Tensors
    alpha: Tensors
    phi: Tensors
    theta_log_rates: Tensor
    alpha_log_rates: Tensor
    log_scale: Tensor

    def named(self) -> Tensors:
        """All tensors by flat names: ``theta.<name>``, ``alpha.<name>``, ``phi.<name>``, ``rates.theta``,
        ``rates.alpha`` and ``scale``.
        """
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
        """The inverse of ``named``. Raises KeyError if the step sizes or the scale are missing.

        θ and α keep the order of ``named``, by which the columns of the step sizes are indexed.
        """

        def part(prefix: str) -> Tensors:
            return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}

        rates = named["rates.theta"], named["rates.alpha"]
        return cls(part("theta."), part("alpha."), part("phi."), *rates, named["scale"])

    def log_rates(self, k: int) -> tuple[Tensor, Tensor]:
        """The log step sizes of inner step ``k`` (from 0): (tensors of θ,) and (tensors of α,).

        Steps beyond the meta-learned K use the last step's.
        """
        row = min(k, len(self.theta_log_rates) - 1)
        return self.theta_log_rates[row], self.alpha_log_rates[row]

    def map(self, function: Callable[[Tensor], Tensor]) -> "Parameters":
        """A copy with ``function`` applied to every tensor."""
        return Parameters.from_named({name: function(value) for name, value in self.named().items()})


def initial_parameters(config: Config, seed: int) -> Parameters:
    """Random θ and φ from ``seed``, α near 0, and the initial step sizes and scale, all on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    task = config.task_learner
    network = make_network(config.network)
    theta = network.initial_theta(generator)
    head = make_head(config.network)
    loss = head.loss_network(task, generator)
    alpha = network.initial_alpha()
    return Parameters(
        theta,
        # Not exactly 0: of two operations with equal α, neither could overtake the other.
        {name: value + 1e-3 * torch.randn(value.shape, generator=generator) for name, value in alpha.items()},
        {name: p.detach().clone() for name, p in loss.named_parameters()},
        torch.tensor([task.theta_rate * network.first_rate(name) for name in theta]).log().repeat(task.steps, 1),
        torch.full((task.steps, len(alpha)), task.alpha_rate).log(),
        torch.tensor(head.initial_scale).log(),
    )
