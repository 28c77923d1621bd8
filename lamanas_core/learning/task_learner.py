"""The task learner Φ_K: K gradient steps on θ and α with the learned loss, φ fixed (Eq. 2)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from lamanas_core.learning.architecture import cell_weights, initial_alpha
from lamanas_core.learning.config import Config
from lamanas_core.learning.losses import LearnedLoss, State
from lamanas_core.learning.normalisation import Statistics
from lamanas_core.learning.prototypes import leave_one_out_logits
from lamanas_core.learning.supernet import Supernet, initialise

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
        """The inverse of ``named``. Raises KeyError where one is missing."""

        def part(prefix: str) -> Tensors:
            return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}

        rates = named["rates.theta"], named["rates.alpha"]
        return cls(part("theta."), part("alpha."), part("phi."), *rates, named["scale"])

    def map(self, function: Callable[[Tensor], Tensor]) -> "Parameters":
        """``function`` applied to every tensor."""
        return Parameters.from_named({name: function(value) for name, value in self.named().items()})


@dataclass(frozen=True)
class Learner:
    """The modules that run the parameters: they hold structure only, every call is given its tensors."""

    config: Config
    network: Supernet
    loss: LearnedLoss

    @classmethod
    def build(cls, config: Config) -> "Learner":
        """Modules for ``config``, their own parameters to be ignored."""
        task = config.task_learner
        return cls(config, Supernet(config.network), LearnedLoss(task.loss, task.residual, task.hidden))

    def embed(
        self,
        theta: Mapping[str, Tensor],
        alpha: Mapping[str, Tensor],
        images: Tensor,
        statistics: Statistics,
    ) -> Tensor:
        """float images (n, c, h, w) to features (n, d) through the network as α, at the end temperature, prunes it."""
        network = self.config.network
        weights = cell_weights(alpha, network, temperature=network.temperature, threshold=network.prune_threshold)
        features: Tensor = functional_call(self.network, dict(theta), (images, weights, statistics))
        return features


def initial_parameters(config: Config, seed: int) -> Parameters:
    """θ, φ at random from ``seed``, α near 0, rates and scale as the config says."""
    generator = torch.Generator().manual_seed(seed)
    network, task = Supernet(config.network), config.task_learner
    initialise(network, generator)
    loss = LearnedLoss(task.loss, task.residual, task.hidden, generator)
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


@dataclass(frozen=True)
class Step:
    """One step: the loss and the loss network's state (of all support images) before it, θ and α after it."""

    loss: Tensor
    state: State
    theta: Tensors
    alpha: Tensors


def steps(
    learner: Learner,
    parameters: Parameters,
    support: Tensor,
    labels: Tensor,
    ways: int,
    count: int,
    *,
    differentiable: bool = False,
    batches: Sequence[Tensor] | None = None,
) -> Iterator[Step]:
    """``count`` steps of Eq. 2 on support images float (n, c, h, w), labels int64 (n,).

    θ_{k+1} = θ_k - λ ∇_θ L_φ, α_{k+1} = α_k - ξ ∇_α L_φ, both gradients from one backward pass, with λ and ξ learned
    per step and tensor; steps beyond those that they were learned for take the last. L_φ is taken on tempered
    leave-one-out logits: the plain ones of a prototype head are saturated on the images that made the prototypes.
    ``differentiable`` keeps the graph, for gradients through all the steps.
    ``batches``: for each step the rows (int64) of the support set that it uses, all of them by default.
    """
    theta, alpha, state = parameters.theta, parameters.alpha, None
    scale = parameters.log_scale.exp() * learner.config.task_learner.logit_scale
    if not differentiable:
        theta, alpha = _leaves(theta), _leaves(alpha)
    everything = torch.arange(len(support), device=support.device)
    for k in range(count):
        rows = everything if batches is None else batches[k]
        before, learned = state, min(k, len(parameters.theta_rates) - 1)
        features = learner.embed(theta, alpha, support[rows], Statistics(len(rows)))
        logits = leave_one_out_logits(features, labels[rows], ways, scale)
        seen = None if state is None else (state[0][rows], state[1][rows])
        loss, seen = _loss(learner, parameters.phi, logits, labels[rows], k / count, seen)
        state = _remembered(state, seen, rows, len(support))
        variables = [*theta.values(), *alpha.values()]
        # Operations that are skipped have no gradient and stay as they are.
        gradients = torch.autograd.grad(loss, variables, create_graph=differentiable, materialize_grads=True)
        theta = _moved(theta, gradients[: len(theta)], parameters.theta_rates[learned])
        alpha = _moved(alpha, gradients[len(theta) :], parameters.alpha_rates[learned])
        if not differentiable:
            theta, alpha = _leaves(theta), _leaves(alpha)
            state = None if state is None else (state[0].detach(), state[1].detach())
        yield Step(loss.detach(), before, theta, alpha)


def _loss(
    learner: Learner, phi: Tensors, logits: Tensor, labels: Tensor, progress: float, state: State
) -> tuple[Tensor, State]:
    result: tuple[Tensor, State] = functional_call(learner.loss, phi, (logits, labels, progress, state))
    return result


def _remembered(state: State, seen: State, rows: Tensor, n: int) -> State:
    """The loss network's state of all n examples after a step that saw ``rows`` of them; unseen ones start at 0."""
    if seen is None:
        return None
    if state is None:
        state = (seen[0].new_zeros(n, seen[0].shape[1]), seen[1].new_zeros(n, seen[1].shape[1]))
    return state[0].index_copy(0, rows, seen[0]), state[1].index_copy(0, rows, seen[1])


def _leaves(tensors: Tensors) -> Tensors:
    return {name: value.detach().requires_grad_() for name, value in tensors.items()}


def _moved(tensors: Tensors, gradients: tuple[Tensor, ...], log_rates: Tensor) -> Tensors:
    rates = log_rates.exp()
    return {
        name: value - rates[i] * gradient
        for i, ((name, value), gradient) in enumerate(zip(tensors.items(), gradients, strict=True))
    }
