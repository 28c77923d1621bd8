"""A straightforward implementation of Algorithms 1 and 2 on the plain reference's network, with double backward.

There is no drop-path, which would compute each path and then multiply it by 0. Queries share a batch, and its
statistics, with the support set.
"""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from benchmarks.plain_reference import PlainLearner
from lamanas_core.adapt.parameters import Parameters, Tensors
from lamanas_core.config import Config, PhiSteps, Proxy
from lamanas_core.data.episodes import Episode


class PlainTrainer(PlainLearner):
    """One task of meta-training. ``moving_loss``: φ as updated by Algorithm 2; the steps use the initial φ."""

    def __init__(self, config: Config, parameters: Parameters) -> None:
        super().__init__(config, parameters)
        self.moving_loss = copy.deepcopy(self.loss)

    def algorithm_1(self, task: Episode, batches: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The exact gradients of the query cross-entropy after one SGD step per batch, in the order θ, α, φ."""
        start = [*self.network.parameters(), *self.alpha.values()]
        theta: Tensors = dict(self.network.named_parameters())
        alpha: Tensors = dict(self.alpha)
        for k, rows in enumerate(batches):
            loss = self._loss_at(theta, alpha, task.support[rows], task.support_labels[rows], k, len(batches))
            gradients = iter(
                torch.autograd.grad(loss, [*theta.values(), *alpha.values()], create_graph=True, materialize_grads=True)
            )
            theta = {name: value - self.task.theta_rate * next(gradients) for name, value in theta.items()}
            alpha = {name: value - self.task.alpha_rate * next(gradients) for name, value in alpha.items()}
        return torch.autograd.grad(
            self._query_loss(task, theta, alpha), [*start, *self.loss.parameters()], materialize_grads=True
        )

    def algorithm_2(
        self, task: Episode, batches: Sequence[Tensor], phi_rate: float, proxy: Proxy, phi_steps: PhiSteps
    ) -> float:
        """Eq. 2's steps on θ and α, and φ's on ``moving_loss``. Returns the query loss.

        ``proxy`` is ``mse`` (Eq. 7) or ``inner_product`` (Eq. 8), on the support set as printed. φ moves by gradient
        descent on the whole support set after all steps ("once", as printed), or by Adam before each.
        """
        if phi_steps == "each_step":
            of_phi: torch.optim.Optimizer = torch.optim.Adam(self.moving_loss.parameters(), phi_rate)
        else:
            of_phi = torch.optim.SGD(self.moving_loss.parameters(), phi_rate)
        count = len(batches)
        for k, rows in enumerate(batches):
            images, labels = task.support[rows], task.support_labels[rows]
            if phi_steps == "each_step":
                self._move_phi(of_phi, self.proxy(images, labels, k, count, proxy))
            self.step(images, labels, k, count)
        if phi_steps == "once":
            self._move_phi(of_phi, self.proxy(task.support, task.support_labels, count - 1, count, proxy))
        with torch.no_grad():
            return float(self._query_loss(task, dict(self.network.named_parameters()), self.alpha))

    def _move_phi(self, of_phi: torch.optim.Optimizer, value: Tensor) -> None:
        of_phi.zero_grad()
        value.backward(inputs=list(self.moving_loss.parameters()))  # type: ignore[no-untyped-call]
        of_phi.step()

    def proxy(self, images: Tensor, labels: Tensor, k: int, count: int, proxy: Proxy) -> Tensor:
        """Eq. 7, or Eq. 8: minus the inner product of the gradients of L_φ and of cross-entropy, in θ and α."""
        variables = [*self.network.parameters(), *self.alpha.values()]
        logits = self.network(images, self.alpha, self.temperature(k, count))
        entropy = F.cross_entropy(logits, labels)
        learned: Tensor = self.moving_loss(logits, labels, k / count, None)[0]
        if proxy == "mse":
            return (learned - entropy.detach()).square()
        fixed = torch.autograd.grad(entropy, variables, retain_graph=True, materialize_grads=True)
        moving = torch.autograd.grad(learned, variables, create_graph=True, materialize_grads=True)
        product: Tensor = -torch.stack([(a * b).sum() for a, b in zip(moving, fixed, strict=True)]).sum()
        return product

    def _loss_at(self, theta: Tensors, alpha: Tensors, images: Tensor, labels: Tensor, k: int, count: int) -> Tensor:
        logits = functional_call(self.network, theta, (images, alpha, self.temperature(k, count)))
        value: Tensor = self.loss(logits, labels, k / count, None)[0]
        return value

    def _query_loss(self, task: Episode, theta: Tensors, alpha: Tensors) -> Tensor:
        together = torch.cat([task.support, task.queries])
        logits = functional_call(self.network, theta, (together, alpha, self.end_temperature))
        return F.cross_entropy(logits[len(task.support) :], task.query_labels)
