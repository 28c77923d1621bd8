"""Batch normalisation with first and second derivatives that need few passes over memory.

torch has fused kernels for the forward pass and its gradient. Second derivatives, forward-mode derivatives and batches
in which only a part determines the moments would be composed of many elementwise operations, some twenty passes over
memory; here they are written out.

Notation: x is float (n, c, h, w). Per channel, x̂ = (x - μ) s with s = 1 / sqrt(σ² + ε), and y = w x̂ + b. Σ is the sum
and ⟨ ⟩ the mean over all dimensions except the channels. All tensors of a call have the same dtype.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

EPSILON = 1e-5
Three = tuple[Tensor, Tensor, Tensor]


class BatchNorm(torch.autograd.Function):
    """(x, w, b) -> (y, μ, s) with the moments of x; w, b, μ and s are (c,).

    y can be differentiated twice with respect to x, w and b; μ and s are not differentiable.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Three:
        y, mean, scale = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, EPSILON)
        return y, mean, scale

    @staticmethod
    def setup_context(ctx: Any, inputs: Three, output: Three) -> None:
        _, mean, scale = output
        ctx.mark_non_differentiable(mean, scale)
        ctx.save_for_backward(*inputs[:2], mean, scale)
        ctx.save_for_forward(*inputs[:2], mean, scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return BatchNormGradient.apply(gradients[0], *ctx.saved_tensors)  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Any:
        along_x, _, _ = _gradient(tangents[0], *ctx.saved_tensors)
        x, _, mean, scale = ctx.saved_tensors
        return _plus_affine(along_x, x, mean, scale, tangents[1], tangents[2]), None, None


class BatchNormGradient(torch.autograd.Function):
    """(g, x, w, μ, s) -> (∂x, ∂w, ∂b): the gradients of x, w and b for the gradient g of y.

    ∂x = w s (g - ⟨g⟩ - x̂ ⟨g x̂⟩), ∂w = Σ g x̂, ∂b = Σ g.
    """

    @staticmethod
    def forward(g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, scale: Tensor) -> Three:
        return _gradient(g, x, weight, mean, scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Three) -> None:
        ctx.save_for_backward(*inputs, *output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor, v_weight: Tensor, v_bias: Tensor) -> Any:
        """The gradients of v · ∂x + v_weight · ∂w + v_bias · ∂b, linear in g; v · ∂x is symmetric in v and g."""
        g, x, weight, mean, scale, of_weight, of_bias = ctx.saved_tensors
        n = x.numel() / x.shape[1]
        along_x, v_hat, v_sum = _gradient(v, x, weight, mean, scale)
        to_g = _plus_affine(along_x, x, mean, scale, v_weight, v_bias)
        # ⟨g⟩, ⟨g x̂⟩, ⟨v⟩, ⟨v x̂⟩, and ⟨v g⟩ - ⟨v⟩⟨g⟩ - ⟨v x̂⟩⟨g x̂⟩, each per channel.
        g_mean, g_hat, v_mean, v_hat = of_bias / n, of_weight / n, v_sum / n, v_hat / n
        residual = (v * g).sum((0, 2, 3)) / n - v_mean * g_mean - v_hat * g_hat
        curved = weight * scale.square()
        by_v = -curved * g_hat
        by_g = v_weight * scale - curved * v_hat
        by_x = scale * (curved * (2 * g_hat * v_hat - residual) - v_weight * scale * g_hat)
        rest = -by_v * v_mean - by_g * g_mean - by_x * mean
        to_x = torch.addcmul(_wide(rest), x, _wide(by_x)).addcmul_(v, _wide(by_v)).addcmul_(g, _wide(by_g))
        return to_g, to_x, scale * n * residual, None, None


class SupportNorm(torch.autograd.Function):
    """(x, w, b, count) -> (y, μ, σ²) with the moments of the first ``count`` rows of x; w, b, μ and σ² are (c,).

    y can be differentiated once; μ and σ² are not differentiable. The gradients of the other rows reach the first rows
    through the moments: ∂μ = -w s Σ g and ∂σ² = -w s² Σ g x̂ / 2, where Σ is over the other rows.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, count: int) -> Three:
        y = torch.empty_like(x)
        y[:count], mean, scale = torch.native_batch_norm(x[:count], weight, bias, None, None, True, 0.0, EPSILON)
        var = scale.pow(-2) - EPSILON
        y[count:] = torch.native_batch_norm(x[count:], weight, bias, mean, var, False, 0.0, EPSILON)[0]
        ctx.count = count
        ctx.mark_non_differentiable(mean, var)
        ctx.save_for_backward(x, weight, mean, scale)
        return y, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, *_: Tensor) -> Any:
        x, weight, mean, scale = ctx.saved_tensors
        first, others = x[: ctx.count], x[ctx.count :]
        to_first, of_weight, of_bias = _gradient(g[: ctx.count], first, weight, mean, scale)
        to_others, g_hat, g_sum = _gradient(g[ctx.count :], others, weight, mean, scale, fixed=True)
        n = first.numel() / first.shape[1]
        by_x = -weight * scale.square() * g_hat / n
        rest = -weight * scale * g_sum / n - by_x * mean
        to_x = torch.empty_like(x)
        torch.addcmul(to_first, first, _wide(by_x), out=to_x[: ctx.count])
        to_x[: ctx.count] += _wide(rest)
        to_x[ctx.count :] = to_others
        return to_x, of_weight + g_hat, of_bias + g_sum, None


def _gradient(g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, scale: Tensor, *, fixed: bool = False) -> Three:
    """See ``BatchNormGradient``. ``fixed``: the moments do not depend on x, so that ∂x = w s g."""
    moments = (mean, scale.pow(-2) - EPSILON, None, None) if fixed else (None, None, mean, scale)
    result: Three = torch.ops.aten.native_batch_norm_backward(g, x, weight, *moments, not fixed, EPSILON, [True] * 3)
    return result


def _plus_affine(to: Tensor, x: Tensor, mean: Tensor, scale: Tensor, by: Tensor, shift: Tensor) -> Tensor:
    """``to`` + ``by`` x̂ + ``shift``, in place."""
    slope = by * scale
    return to.addcmul_(x, _wide(slope)).add_(_wide(shift - slope * mean))


def _wide(channels: Tensor) -> Tensor:
    return channels[None, :, None, None]
