"""The task learner Φ_K: K gradient steps on θ and α with the learned loss, φ fixed (Eq. 2)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call

from lamanas_core.adapt.parameters import Parameters, Tensors, make_loss
from lamanas_core.config import Config
from lamanas_core.heads import support_logits
from lamanas_core.losses.invariant import LearnedLoss, State
from lamanas_core.losses.paper import PaperLoss
from lamanas_core.search.alpha import CellWeights, cell_weights
from lamanas_core.search.network import Supernet
from lamanas_core.search.normalisation import Statistics

Order = Literal["none", "first", "second"]


@dataclass(frozen=True)
class Mixing:
    """How a forward pass weighs operations: temperature and threshold of α's shares, the seed of its dropped paths."""

    temperature: float
    threshold: float
    dropped: int | None = None


@dataclass(frozen=True)
class Learner:
    """The modules that run the parameters: they hold structure only, every call is given its tensors."""

    config: Config
    network: Supernet
    loss: LearnedLoss | PaperLoss

    @classmethod
    def build(cls, config: Config) -> "Learner":
        """Modules for ``config``, their own parameters to be ignored."""
        return cls(config, Supernet(config.network), make_loss(config))

    def embed(
        self,
        theta: Mapping[str, Tensor],
        alpha: Mapping[str, Tensor],
        images: Tensor,
        statistics: Statistics,
        mixing: Mixing | None = None,
    ) -> Tensor:
        """float images (n, c, h, w) to features (n, d) through the network as α prunes it (default: as served)."""
        network = self.config.network
        if mixing is None:
            mixing = Mixing(network.temperature, network.prune_threshold)
        dropping = None if mixing.dropped is None else torch.Generator().manual_seed(mixing.dropped)
        weights = cell_weights(
            alpha, network, temperature=mixing.temperature, threshold=mixing.threshold, dropping=dropping
        )
        return self.features(theta, weights, images, statistics)

    def features(
        self, theta: Mapping[str, Tensor], weights: CellWeights, images: Tensor, statistics: Statistics
    ) -> Tensor:
        """float images (n, c, h, w) to features (n, d), every operation weighted as ``weights`` says."""
        features: Tensor = functional_call(self.network, dict(theta), (images, weights, statistics))
        return features

    def mixing(self, k: int, count: int, dropping: torch.Generator | None) -> "Mixing":
        """How step ``k`` of ``count`` mixes: the temperature falls linearly to its end; paths drop in training only."""
        network, start = self.config.network, self.config.task_learner.start_temperature
        temperature = network.temperature
        if start is not None and count > 1:
            temperature = start + (network.temperature - start) * k / (count - 1)
        if dropping is None or network.drop_path == 0:
            return Mixing(temperature, network.prune_threshold)
        return Mixing(temperature, network.train_threshold, int(torch.randint(2**62, (), generator=dropping)))


@dataclass(frozen=True)
class Step:
    """One step: how far the steps had come (0..1), the rows of the support set it used, the θ and α it was taken at
    and the logarithms of λ and ξ (one a tensor), how its forward pass mixed them, the logits that gave, the loss and
    the loss network's state of them before it, θ and α after it.
    """

    progress: float
    rows: Tensor
    before: tuple[Tensors, Tensors]
    rates: tuple[Tensor, Tensor]
    mixing: Mixing
    logits: Tensor
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
    order: Order = "none",
    batches: Sequence[Tensor] | None = None,
    dropping: torch.Generator | None = None,
    keep_graphs: bool = False,
) -> Iterator[Step]:
    """``count`` steps of Eq. 2 on support images float (n, c, h, w), labels int64 (n,).

    θ_{k+1} = θ_k - λ ∇_θ L_φ, α_{k+1} = α_k - ξ ∇_α L_φ, both gradients from one backward pass, with λ and ξ learned
    per step and tensor (steps beyond those that they were learned for take the last), or by Adam where the config says
    so. ``order``: how far the steps can be differentiated: "none"; "second" through all of them; "first" without the
    dependence of each gradient on the θ and α it was taken at (but with its dependence on φ).
    ``batches``: for each step the rows (int64) of the support set that it uses, all of them by default.
    ``dropping``: where dropped paths come from, in training. ``keep_graphs``: that each step's logits can be
    differentiated once more in ``before``.
    """
    theta, alpha, state = parameters.theta, parameters.alpha, None
    adam = Adam() if learner.config.task_learner.optimizer == "adam" else None
    if order == "none":
        theta, alpha = leaves(theta), leaves(alpha)
    everything = torch.arange(len(support), device=support.device)
    for k in range(count):
        rows = everything if batches is None else batches[k]
        learned = min(k, len(parameters.theta_rates) - 1)
        rates = parameters.theta_rates[learned], parameters.alpha_rates[learned]
        at_theta, at_alpha = (leaves(theta), leaves(alpha)) if order == "first" else (theta, alpha)
        mixing = learner.mixing(k, count, dropping)
        statistics = Statistics(len(rows), twice=order != "none")
        features = learner.embed(at_theta, at_alpha, support[rows], statistics, mixing)
        logits = support_logits(learner.config, at_theta, parameters.log_scale, features, labels[rows], ways)
        known = None if state is None else (state[0][rows], state[1][rows])
        loss, seen = learned_loss(learner, parameters.phi, logits, labels[rows], k / count, known)
        state = _remembered(state, seen, rows, len(support))
        variables = [*at_theta.values(), *at_alpha.values()]
        # Operations that are skipped have no gradient and stay as they are.
        gradients = torch.autograd.grad(
            loss,
            variables,
            create_graph=order != "none",
            retain_graph=keep_graphs or order != "none",
            materialize_grads=True,
        )
        if adam is not None:
            gradients = adam(gradients)
        theta = _moved(theta, gradients[: len(theta)], rates[0])
        alpha = _moved(alpha, gradients[len(theta) :], rates[1])
        if order == "none":
            theta, alpha = leaves(theta), leaves(alpha)
            state = None if state is None else (state[0].detach(), state[1].detach())
        logits = logits if keep_graphs else logits.detach()
        yield Step(k / count, rows, (at_theta, at_alpha), rates, mixing, logits, loss.detach(), known, theta, alpha)


class Adam:
    """Adam with β₁ = 0: each gradient over the root of its squares' running mean (β₂ = 0.999, unbiased, ε 1e-8)."""

    def __init__(self) -> None:
        self.taken = 0
        self.squares: list[Tensor] = []

    def __call__(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self.taken += 1
        if not self.squares:
            self.squares = [torch.zeros_like(gradient) for gradient in gradients]
        for square, gradient in zip(self.squares, gradients, strict=True):
            square.lerp_(gradient.square(), 1 - 0.999)
        unbiased = 1 - 0.999**self.taken
        return tuple(
            gradient / ((square / unbiased).sqrt() + 1e-8)
            for square, gradient in zip(self.squares, gradients, strict=True)
        )


def learned_loss(
    learner: Learner, phi: Tensors, logits: Tensor, labels: Tensor, progress: float, state: State = None
) -> tuple[Tensor, State]:
    """L_φ of logits (n, ways) and labels (n,), and the loss network's state behind it."""
    result: tuple[Tensor, State] = functional_call(learner.loss, phi, (logits, labels, progress, state))
    return result


def _remembered(state: State, seen: State, rows: Tensor, n: int) -> State:
    """The loss network's state of all n examples after a step that saw ``rows`` of them; unseen ones start at 0."""
    if seen is None:
        return None
    if state is None:
        state = (seen[0].new_zeros(n, seen[0].shape[1]), seen[1].new_zeros(n, seen[1].shape[1]))
    return state[0].index_copy(0, rows, seen[0]), state[1].index_copy(0, rows, seen[1])


def leaves(tensors: Tensors) -> Tensors:
    """The same values as new leaves of the graph."""
    return {name: value.detach().requires_grad_() for name, value in tensors.items()}


def _moved(tensors: Tensors, gradients: tuple[Tensor, ...], log_rates: Tensor) -> Tensors:
    # Apart at once: taken one by one, each would have a gradient as long as all of them.
    rates = log_rates.exp().unbind()
    return {
        name: value - rates[i] * gradient
        for i, ((name, value), gradient) in enumerate(zip(tensors.items(), gradients, strict=True))
    }
