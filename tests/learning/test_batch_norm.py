"""The derivatives of batch normalisation equal those of torch and finite differences."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import jvp

from lamanas_core.search.batch_norm import EPSILON, BatchNorm, SupportNorm


def inputs(n: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=source, dtype=torch.float64)

    x = (3 * random(n, 3, 4, 2) + 1).contiguous(memory_format=torch.channels_last)
    return x.requires_grad_(), random(3).requires_grad_(), random(3).requires_grad_()


def fused(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    y: Tensor = BatchNorm.apply(x, weight, bias)[0]  # type: ignore[no-untyped-call]
    return y


def elementwise(x: Tensor, weight: Tensor, bias: Tensor, count: int) -> Tensor:
    """The same with elementwise operations; the moments are those of the first ``count`` rows."""
    var, mean = torch.var_mean(x[:count], dim=(0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / torch.sqrt(var + EPSILON) * weight[:, None, None] + bias[:, None, None]


def test_values_and_moments_are_those_of_the_batch() -> None:
    x, weight, bias = inputs()
    y, mean, scale = BatchNorm.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(y, F.batch_norm(x, None, None, weight, bias, True, 0.0, EPSILON))
    assert y.is_contiguous(memory_format=torch.channels_last)
    var, expected = torch.var_mean(x, dim=(0, 2, 3), correction=0)
    torch.testing.assert_close((mean, scale), (expected, torch.rsqrt(var + EPSILON)))


def test_gradients_of_both_orders_equal_finite_differences() -> None:
    assert gradcheck(fused, inputs())
    assert gradgradcheck(fused, inputs())


def test_second_derivatives_equal_those_of_elementwise_operations() -> None:
    source = torch.Generator().manual_seed(1)
    directions = [torch.randn(shape, generator=source, dtype=torch.float64) for shape in ((5, 3, 4, 2), (3,), (3,))]
    found = []
    for function in (fused, lambda x, weight, bias: elementwise(x, weight, bias, 5)):
        arguments = inputs()
        first = torch.autograd.grad(function(*arguments).square().sum(), arguments, create_graph=True)
        inner = sum((a * b).sum() for a, b in zip(first, directions, strict=True))
        assert isinstance(inner, Tensor)
        found.append(torch.autograd.grad(inner, arguments))
    torch.testing.assert_close(found[0], found[1])
    assert found[0][0].is_contiguous(memory_format=torch.channels_last)


def test_forward_mode_equals_finite_differences() -> None:
    point = tuple(value.detach() for value in inputs())
    source = torch.Generator().manual_seed(1)
    along = tuple(torch.randn(value.shape, generator=source, dtype=torch.float64) for value in point)
    tangent = jvp(fused, point, along)[1]
    ends = [fused(*(value + sign * 1e-6 * step for value, step in zip(point, along, strict=True))) for sign in (1, -1)]
    torch.testing.assert_close(tangent, (ends[0] - ends[1]) / 2e-6, rtol=1e-6, atol=1e-7)


def test_queries_normalised_by_the_support_set_equal_elementwise_operations_with_gradients() -> None:
    x, weight, bias = inputs()
    y, mean, var = SupportNorm.apply(x, weight, bias, 3)  # type: ignore[no-untyped-call]
    expected = elementwise(x, weight, bias, 3)
    torch.testing.assert_close(y, expected)
    assert y.is_contiguous(memory_format=torch.channels_last)
    moments = torch.var_mean(x[:3], dim=(0, 2, 3), correction=0)
    torch.testing.assert_close((var, mean), moments)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, truth = (torch.autograd.grad(output, (x, weight, bias), direction) for output in (y, expected))
    torch.testing.assert_close(found, truth)
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    assert gradcheck(lambda *arguments: SupportNorm.apply(*arguments, 3)[0], inputs())  # type: ignore[no-untyped-call]
