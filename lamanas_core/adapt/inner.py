"""The task learner Φ_K (inner loop): K gradient steps on θ and α with the learned loss L_φ, φ fixed (Eq. 2)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call

from lamanas_core.adapt.batches import among_themselves
from lamanas_core.adapt.parameters import Parameters, Tensors
from lamanas_core.config import Config
from lamanas_core.heads.base import FittedHead, Head, LossNetwork, Support
from lamanas_core.heads.distances import DistanceHead
from lamanas_core.heads.prototypes import class_sizes
from lamanas_core.heads.registry import make_head
from lamanas_core.losses.invariant import LossState
from lamanas_core.search.mixing import Mixing
from lamanas_core.search.network import Network, NetworkMoments
from lamanas_core.search.normalisation import ALL_ROWS, Batch
from lamanas_core.search.registry import make_network

Order = Literal["none", "first", "second"]
# Of Adam with β₁ = 0.
BETA_2, EPSILON = 0.999, 1e-8


@dataclass(frozen=True)
class TaskLearner:
    """The modules of a meta-model without their parameters, which are arguments of every call."""

    config: Config
    network: Network
    head: Head
    loss: LossNetwork

    @classmethod
    def build(cls, config: Config, device: str = "cpu", *, half_precision: bool = False) -> "TaskLearner":
        """The task learner for ``config``; ``device`` and ``half_precision`` as in ``CellNetwork``."""
        head = make_head(config.network)
        network = make_network(config.network, device, half_precision=half_precision)
        return cls(config, network, head, head.loss_network(config.task_learner, None))

    def embed(
        self,
        theta: Mapping[str, Tensor],
        alpha: Mapping[str, Tensor],
        inputs: Tensor,
        moments: NetworkMoments = None,
        batch: Batch = ALL_ROWS,
        mixing: Mixing | None = None,
    ) -> tuple[Tensor, NetworkMoments]:
        """``Network.inputs`` of n images -> features, float (n, d), and the moments that normalised them.

        ``moments``: the moments to normalise with; None: those of the images, as ``batch`` specifies. ``mixing`` None:
        α at its final temperature, pruned as after adaptation.
        """
        weights = self.network.pruned(alpha) if mixing is None else self.network.weights(alpha, mixing)
        return self.network(theta, weights, inputs, moments, batch)

    def mixing(self, k: int, count: int, dropping: torch.Generator | None) -> Mixing:
        """The mixing of inner step ``k`` (from 0) of ``count``.

        The temperature falls linearly from ``start_temperature`` to the network's. ``dropping``: the generator for
        drop-path in meta-training, where the training threshold applies; None at adaptation.
        """
        network, start = self.config.network, self.config.task_learner.start_temperature
        temperature = network.temperature
        if start is not None and count > 1:
            temperature = start + (network.temperature - start) * k / (count - 1)
        if dropping is None:
            return Mixing(temperature, network.prune_threshold)
        dropped = None if network.drop_path == 0 else int(torch.randint(2**62, (), generator=dropping))
        return Mixing(temperature, network.train_threshold, dropped)

    def support_logits(self, theta: Mapping[str, Tensor], log_scale: Tensor, support: Support) -> Tensor:
        """The logits (n, ways) that L_φ takes in the inner loop: ``Head.support_logits``, times ``logit_scale``."""
        scale = log_scale.exp() * self.config.task_learner.logit_scale
        return self.head.support_logits(theta, support, scale)

    def fitted_head(self, theta: Mapping[str, Tensor], log_scale: Tensor, support: Support) -> FittedHead:
        """The head fitted to a support set, at the calibrated temperature and with the calibrated novelty.

        The temperature is that of the labelled images alone, as calibration has not seen what unlabelled ones add.
        (That of photos rises with the number of images: by that of all, probabilities were too even.)
        """
        sizes = class_sizes(support.labels, support.ways)
        scale = log_scale.exp() / self.temperature(sizes, crops=support.crops is not None)
        head = self.head.fit(theta, support, scale)
        novelty = self.config.calibration.novelty
        if novelty is None or not isinstance(head, DistanceHead):
            return head
        return head.with_novelty(novelty, support)

    def temperature(self, sizes: Tensor, *, crops: bool) -> Tensor:
        """The calibrated temperature for classes of these numbers of images, (ways,), a scalar: that of
        ``config.Calibration`` for their harmonic mean m. ``crops``: for a head that is fitted to crops as well.
        """
        calibration = self.config.calibration
        temperature, spread = calibration.temperature, calibration.temperature_spread
        if calibration.without_crops is not None and not crops:
            temperature, spread = calibration.without_crops
        usual = 1 + sizes.reciprocal().mean()
        return temperature * usual**spread

    def learned_loss(
        self, phi: Tensors, logits: Tensor, labels: Tensor, progress: float, state: LossState = None
    ) -> tuple[Tensor, LossState]:
        """L_φ of logits (n, ways) and labels int64 (n,), a scalar, and the loss network's state after it.

        ``progress``: k / K for inner step k, in 0..1. ``state``: the loss network's state for these examples, None
        before the first step.
        """
        result: tuple[Tensor, LossState] = functional_call(self.loss, phi, (logits, labels, progress, state))
        return result


@dataclass(frozen=True)
class Point:
    """The state of the inner loop: θ_i and α_i, the loss network's state for all n support images, and Adam's running
    mean of squared gradients, (p,) for all p numbers of θ_i and α_i. The latter two are None before the first step and
    where there is none.
    """

    theta: Tensors
    alpha: Tensors
    loss_state: LossState = None
    squares: Tensor | None = None


@dataclass(frozen=True)
class Step:
    """One inner step.

    ``progress``: k / K, in 0..1. ``rows``: the rows of the support set that it used, int64 (b,). ``before``: θ and α at
    which the gradient was taken. ``log_rates``: the log step sizes of θ and α, one per tensor. ``mixing``: of its
    forward pass. ``logits``: (b, ways), from a head that is fitted to the support set only for the classes of
    these rows; ``loss``: L_φ of them, a scalar. ``loss_state``: the loss network's state of these rows before the step.
    ``theta`` and ``alpha``: after the step.
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
    """``count`` steps of Eq. 2 on the support set: the network's inputs, float (n, ...), and labels int64 (n,).

    θ_{k+1} = θ_k - λ_task ∇_θ L_φ and α_{k+1} = α_k - ξ_task ∇_α L_φ, both gradients from one backward pass. The step
    sizes are meta-learned per step and tensor; further steps use the last step's. With ``optimizer`` "adam" each
    gradient is replaced by Adam's direction.

    ``order``: how the steps can be differentiated. "none": not at all; "second": exactly, through all steps; "first":
    without the dependence of each gradient on the θ and α at which it was taken, but with its dependence on φ.
    ``batches``: the rows of the support set (int64) that each step uses; by default all. ``dropping``: the generator of
    drop-path in meta-training. ``keep_graphs``: keep each step's graph, so that its logits can be differentiated with
    respect to ``before`` once more.
    """
    point = Point(parameters.theta, parameters.alpha)
    all_rows = torch.arange(len(support), device=support.device)
    for k in range(count):
        rows = all_rows if batches is None else batches[k]
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
    """Inner step ``k`` (from 0) of ``count`` from ``point``, on the rows ``rows`` of the support set; see ``steps``."""
    theta, alpha = point.theta, point.alpha
    at = (theta, alpha) if order == "second" else (leaves(theta), leaves(alpha))
    state_before = None if point.loss_state is None else (point.loss_state[0][rows], point.loss_state[1][rows])
    batch = Batch(double_backward=order != "none")
    of_rows = labels[rows]
    if learner.head.leaves_one_out and len(rows) < len(support):  # a class without an image here has no mean
        of_rows, ways = among_themselves(of_rows)
    evaluate = loss_at(learner, parameters, ways, k / count, mixing, batch)
    loss, logits, state_after = evaluate(*at, support[rows], of_rows, state_before)
    direction, squares = _direction(learner, loss, at, point.squares, k, order, keep_graphs=keep_graphs)
    log_rates = parameters.log_rates(k)
    if order == "none":
        theta, alpha = at
    moved = moved_along(theta, alpha, direction, log_rates)
    state = _updated_state(point.loss_state, state_after, rows, len(support))
    if order == "none":
        moved = detached(moved[0]), detached(moved[1])
        state = None if state is None else (state[0].detach(), state[1].detach())
        squares = None if squares is None else squares.detach()
    logits = logits if keep_graphs else logits.detach()
    step = Step(k / count, rows, at, log_rates, mixing, logits, loss.detach(), state_before, *moved)
    return step, Point(*moved, state, squares)


Evaluate = Callable[[Tensors, Tensors, Tensor, Tensor, LossState], tuple[Tensor, Tensor, LossState]]


def loss_at(
    learner: TaskLearner, parameters: Parameters, ways: int, progress: float, mixing: Mixing, batch: Batch
) -> Evaluate:
    """A pure function of θ, α, inputs float (n, ...), labels int64 (n,) and the loss network's state before.

    It returns L_φ, a scalar, the logits (n, ways) that L_φ was computed from, and the loss network's state after.
    """

    def evaluate(
        theta: Tensors, alpha: Tensors, inputs: Tensor, labels: Tensor, state: LossState
    ) -> tuple[Tensor, Tensor, LossState]:
        features, _ = learner.embed(theta, alpha, inputs, batch=batch, mixing=mixing)
        logits = learner.support_logits(theta, parameters.log_scale, Support(features, labels, ways))
        loss, after = learner.learned_loss(parameters.phi, logits, labels, progress, state)
        return loss, logits, after

    return evaluate


def _direction(
    learner: TaskLearner,
    loss: Tensor,
    at: tuple[Tensors, Tensors],
    squares: Tensor | None,
    k: int,
    order: Order,
    *,
    keep_graphs: bool,
) -> tuple[Tensor, Tensor | None]:
    """The direction of the step for all numbers of θ, then of α, and Adam's running mean of squares (None with SGD).

    The gradient of skipped operations is 0, so they remain unchanged.
    """
    differentiable = order != "none"
    gradients = torch.autograd.grad(
        loss,
        [*at[0].values(), *at[1].values()],
        create_graph=differentiable,
        retain_graph=keep_graphs or differentiable,
        materialize_grads=True,
    )
    if learner.config.task_learner.optimizer == "sgd":
        return in_a_row(gradients), None
    return adam(in_a_row(gradients), squares, k + 1)


def adam(gradient: Tensor, squares: Tensor | None, taken: int) -> tuple[Tensor, Tensor]:
    """The direction of Adam with β₁ = 0, β₂ = 0.999 and ε = 1e-8, and the new running mean of squared gradients.

    The direction is the gradient over the root of the running mean; ``taken``, the number of steps including this one,
    corrects its bias. ``squares``: the running mean so far; None before the first step.
    """
    before = torch.zeros_like(gradient) if squares is None else squares
    after = torch.lerp(before, gradient.square(), 1 - BETA_2)
    return gradient / ((after / (1 - BETA_2**taken)).sqrt() + EPSILON), after


def in_a_row(tensors: Iterable[Tensor]) -> Tensor:
    """The elements of all tensors as one vector: for hundreds of small tensors, one operation each costs far more."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def _updated_state(state: LossState, of_rows: LossState, rows: Tensor, n: int) -> LossState:
    """The loss network's state of all n examples, updated for ``rows``; examples not used so far have a state of 0."""
    if of_rows is None:
        return None
    if state is None:
        state = (of_rows[0].new_zeros(n, of_rows[0].shape[1]), of_rows[1].new_zeros(n, of_rows[1].shape[1]))
    return state[0].index_copy(0, rows, of_rows[0]), state[1].index_copy(0, rows, of_rows[1])


def leaves(tensors: Tensors) -> Tensors:
    """The same values as new leaf tensors that require gradients."""
    return {name: value.detach().requires_grad_() for name, value in tensors.items()}


def detached(tensors: Tensors) -> Tensors:
    """The same values without a graph."""
    return {name: value.detach() for name, value in tensors.items()}


def moved_along(
    theta: Tensors, alpha: Tensors, direction: Tensor, log_rates: tuple[Tensor, Tensor]
) -> tuple[Tensors, Tensors]:
    """θ and α, each tensor minus its step size times its part of ``direction``, which has all numbers of θ, then of α.

    ``log_rates``: one log step size per tensor of θ, and of α.
    """
    tensors = [*theta.values(), *alpha.values()]
    sizes = [tensor.numel() for tensor in tensors]
    counts = torch.tensor(sizes, device=direction.device)
    rates = torch.cat(log_rates).exp().repeat_interleave(counts, output_size=len(direction))
    parts = torch.split(in_a_row(tensors) - rates * direction, sizes)
    moved = [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
    own = len(theta)
    return dict(zip(theta, moved[:own], strict=True)), dict(zip(alpha, moved[own:], strict=True))
