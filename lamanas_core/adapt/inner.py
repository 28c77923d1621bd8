"""The task learner Φ_K: K gradient steps on θ and α with the learned loss, φ fixed (Eq. 2)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call

from lamanas_core.adapt.parameters import Parameters, Tensors
from lamanas_core.config import Config
from lamanas_core.heads import FittedHead, Head, LossNetwork, make_head
from lamanas_core.losses.invariant import LossState
from lamanas_core.search.alpha import cell_weights
from lamanas_core.search.network import Network, NetworkMoments
from lamanas_core.search.normalisation import ALL_ROWS, Batch

Order = Literal["none", "first", "second"]
# Adam's, with β₁ = 0.
BETA_2, EPSILON = 0.999, 1e-8


@dataclass(frozen=True)
class Mixing:
    """How a forward pass weighs operations: temperature and threshold of α's shares, the seed of its dropped paths;
    ``masked``: what is dropped is computed at a weight of 0 (see ``cell_weights``)."""

    temperature: float
    threshold: float
    dropped: int | None = None
    masked: bool = False


@dataclass(frozen=True)
class TaskLearner:
    """What runs the parameters. It holds structure alone: every call is given its tensors."""

    config: Config
    network: Network
    head: Head
    loss: LossNetwork

    @classmethod
    def build(cls, config: Config, device: str = "cpu", *, half_precision: bool = False) -> "TaskLearner":
        """For ``config``; ``device`` and ``half_precision`` as for ``Network``."""
        head = make_head(config.network)
        network = Network(config.network, device, half_precision=half_precision)
        return cls(config, network, head, head.loss_network(config.task_learner, None))

    def embed(
        self,
        theta: Mapping[str, Tensor],
        alpha: Mapping[str, Tensor],
        images: Tensor,
        moments: NetworkMoments | None = None,
        batch: Batch = ALL_ROWS,
        mixing: Mixing | None = None,
    ) -> tuple[Tensor, NetworkMoments]:
        """float images (n, c, h, w) to features (n, d), and the moments that normalised them, through the network as
        α prunes it (``mixing`` None: as served)."""
        network = self.config.network
        if mixing is None:
            mixing = Mixing(network.temperature, network.prune_threshold)
        dropping = None if mixing.dropped is None else torch.Generator().manual_seed(mixing.dropped)
        weights = cell_weights(
            alpha,
            network,
            temperature=mixing.temperature,
            threshold=mixing.threshold,
            dropping=dropping,
            masked=mixing.masked,
        )
        return self.network(theta, weights, images, moments, batch)

    def mixing(self, k: int, count: int, dropping: torch.Generator | None, *, masked: bool = False) -> Mixing:
        """How step ``k`` of ``count`` mixes: the temperature falls linearly to its end; paths drop in training only."""
        network, start = self.config.network, self.config.task_learner.start_temperature
        temperature = network.temperature
        if start is not None and count > 1:
            temperature = start + (network.temperature - start) * k / (count - 1)
        if dropping is None or network.drop_path == 0:
            return Mixing(temperature, network.prune_threshold, masked=masked)
        return Mixing(temperature, network.train_threshold, int(torch.randint(2**62, (), generator=dropping)), masked)

    def support_logits(
        self, theta: Mapping[str, Tensor], log_scale: Tensor, features: Tensor, labels: Tensor, ways: int
    ) -> Tensor:
        """The logits that L_φ is taken on while adapting (``Head.support_logits``), at the scale of the config."""
        scale = log_scale.exp() * self.config.task_learner.logit_scale
        return self.head.support_logits(theta, features, labels, ways, scale)

    def fitted_head(
        self, theta: Mapping[str, Tensor], log_scale: Tensor, features: Tensor, labels: Tensor, ways: int
    ) -> FittedHead:
        """The head for a support set's features (n, d) and labels (n,), at the calibrated scale."""
        scale = log_scale.exp() / self.config.calibration.temperature
        return self.head.fit(theta, features, labels, ways, scale)

    def learned_loss(
        self, phi: Tensors, logits: Tensor, labels: Tensor, progress: float, state: LossState = None
    ) -> tuple[Tensor, LossState]:
        """L_φ of logits (n, ways) and labels (n,), and the loss network's state behind it."""
        result: tuple[Tensor, LossState] = functional_call(self.loss, phi, (logits, labels, progress, state))
        return result


@dataclass(frozen=True)
class Point:
    """Where the steps have come: θ and α, the loss network's state of every support image, Adam's running mean of
    squared gradients. None before the first step."""

    theta: Tensors
    alpha: Tensors
    loss_state: LossState = None
    squares: tuple[Tensor, ...] | None = None


@dataclass(frozen=True)
class Step:
    """One step: how far the steps had come (0..1), the rows of the support set it used, the θ and α it was taken at
    and the logarithms of λ and ξ (one a tensor), how its forward pass mixed them, the logits that gave, the loss and
    the loss network's state of them before it, θ and α after it.
    """

    progress: float
    rows: Tensor
    before: tuple[Tensors, Tensors]
    log_rates: tuple[Tensor, Tensor]
    mixing: Mixing
    logits: Tensor
    loss: Tensor
    loss_state: LossState
    theta: Tensors
    alpha: Tensors


def steps(
    learner: TaskLearner,
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
    point = Point(parameters.theta, parameters.alpha)
    everything = torch.arange(len(support), device=support.device)
    for k in range(count):
        rows = everything if batches is None else batches[k]
        mixing = learner.mixing(k, count, dropping)
        step, point = take_step(
            learner, parameters, point, support, labels, ways, k, count, rows, mixing, order, keep_graphs=keep_graphs
        )
        yield step


def take_step(
    learner: TaskLearner,
    parameters: Parameters,
    point: Point,
    support: Tensor,
    labels: Tensor,
    ways: int,
    k: int,
    count: int,
    rows: Tensor,
    mixing: Mixing,
    order: Order,
    *,
    keep_graphs: bool = False,
) -> tuple[Step, Point]:
    """Step ``k`` of ``count`` from ``point`` on, by the images ``rows`` of the support set; see ``steps``."""
    theta, alpha = point.theta, point.alpha
    at = (theta, alpha) if order == "second" else (leaves(theta), leaves(alpha))
    seen = None if point.loss_state is None else (point.loss_state[0][rows], point.loss_state[1][rows])
    batch = Batch(double_backward=order != "none")
    evaluate = loss_at(learner, parameters, ways, k / count, mixing, batch)
    loss, logits, after = evaluate(*at, support[rows], labels[rows], seen)
    gradients, squares = _gradients(learner, loss, at, point.squares, k, order, keep_graphs=keep_graphs)
    log_rates = parameters.log_rates(k)
    if order == "none":
        theta, alpha = at
    moved = (
        moved_along(theta, gradients[: len(theta)], log_rates[0]),
        moved_along(alpha, gradients[len(theta) :], log_rates[1]),
    )
    state = _remembered(point.loss_state, after, rows, len(support))
    if order == "none":
        moved = detached(moved[0]), detached(moved[1])
        state = None if state is None else (state[0].detach(), state[1].detach())
        squares = None if squares is None else tuple(square.detach() for square in squares)
    logits = logits if keep_graphs else logits.detach()
    step = Step(k / count, rows, at, log_rates, mixing, logits, loss.detach(), seen, *moved)
    return step, Point(*moved, state, squares)


Evaluate = Callable[[Tensors, Tensors, Tensor, Tensor, LossState], tuple[Tensor, Tensor, LossState]]


def loss_at(
    learner: TaskLearner, parameters: Parameters, ways: int, progress: float, mixing: Mixing, batch: Batch
) -> Evaluate:
    """A pure function of θ, α, images float (n, c, h, w), labels int64 (n,) and the loss network's state of them:
    L_φ, the logits (n, ways) that it was taken on, the state behind it."""

    def evaluate(
        theta: Tensors, alpha: Tensors, images: Tensor, labels: Tensor, state: LossState
    ) -> tuple[Tensor, Tensor, LossState]:
        features, _ = learner.embed(theta, alpha, images, batch=batch, mixing=mixing)
        logits = learner.support_logits(theta, parameters.log_scale, features, labels, ways)
        loss, after = learner.learned_loss(parameters.phi, logits, labels, progress, state)
        return loss, logits, after

    return evaluate


def _gradients(
    learner: TaskLearner,
    loss: Tensor,
    at: tuple[Tensors, Tensors],
    squares: tuple[Tensor, ...] | None,
    k: int,
    order: Order,
    *,
    keep_graphs: bool,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...] | None]:
    """What θ and α move along, in their order, and Adam's running mean where the config takes it. Operations that are
    skipped have a gradient of 0 and stay as they are."""
    twice = order != "none"
    gradients = torch.autograd.grad(
        loss,
        [*at[0].values(), *at[1].values()],
        create_graph=twice,
        retain_graph=keep_graphs or twice,
        materialize_grads=True,
    )
    if learner.config.task_learner.optimizer == "sgd":
        return gradients, None
    return adam(gradients, squares, k + 1)


def adam(
    gradients: tuple[Tensor, ...], squares: tuple[Tensor, ...] | None, taken: int
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Adam with β₁ = 0: each gradient over the root of its squares' running mean (β₂ = 0.999, unbiased after ``taken``
    steps, ε 1e-8), and that mean."""
    before = squares if squares is not None else tuple(torch.zeros_like(gradient) for gradient in gradients)
    after = tuple(
        torch.lerp(square, gradient.square(), 1 - BETA_2) for square, gradient in zip(before, gradients, strict=True)
    )
    unbiased = 1 - BETA_2**taken
    directions = tuple(
        gradient / ((square / unbiased).sqrt() + EPSILON) for gradient, square in zip(gradients, after, strict=True)
    )
    return directions, after


def _remembered(state: LossState, seen: LossState, rows: Tensor, n: int) -> LossState:
    """The loss network's state of all n examples after a step that saw ``rows`` of them; unseen ones start at 0."""
    if seen is None:
        return None
    if state is None:
        state = (seen[0].new_zeros(n, seen[0].shape[1]), seen[1].new_zeros(n, seen[1].shape[1]))
    return state[0].index_copy(0, rows, seen[0]), state[1].index_copy(0, rows, seen[1])


def leaves(tensors: Tensors) -> Tensors:
    """The same values as new leaves of the graph."""
    return {name: value.detach().requires_grad_() for name, value in tensors.items()}


def detached(tensors: Tensors) -> Tensors:
    """The same values outside of any graph."""
    return {name: value.detach() for name, value in tensors.items()}


def moved_along(tensors: Tensors, gradients: tuple[Tensor, ...], log_rates: Tensor) -> Tensors:
    """Each tensor less its step size times its gradient."""
    # Apart at once: taken one by one, each would have a gradient as long as all of them.
    rates = log_rates.exp().unbind()
    return {
        name: value - rates[i] * gradient
        for i, ((name, value), gradient) in enumerate(zip(tensors.items(), gradients, strict=True))
    }
