"""Operations that replace torch's own, which crash or are slow."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lamanas_core.config import PRESETS
from lamanas_core.search.operations import DilatedDepthwiseConvolution, PointwiseConvolution
from lamanas_core.search.supernet import Supernet


@pytest.mark.parametrize(("side", "stride"), [(56, 2), (7, 2), (14, 1)])
def test_a_pointwise_convolution_equals_a_strided_one_with_its_gradients(side: int, stride: int) -> None:
    """With side 56 and 8 channels, channels-last, torch's strided convolution caused a segmentation fault."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(10, 8, side, side, generator=source).contiguous(memory_format=torch.channels_last).requires_grad_()
    convolution = PointwiseConvolution(8, 8, stride).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = (x, convolution.weight)
    exact = (x.detach().double().requires_grad_(), convolution.weight.detach().double().requires_grad_())
    y, expected = convolution(x), F.conv2d(exact[0], exact[1], None, stride)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    direction = torch.randn(y.shape, generator=source)
    gradients = torch.autograd.grad(y, inputs, direction)
    for gradient, truth in zip(gradients, torch.autograd.grad(expected, exact, direction.double()), strict=True):
        torch.testing.assert_close(gradient.double(), truth, rtol=1e-5, atol=1e-3)
    assert gradients[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("preset", sorted(name for name, config in PRESETS.items() if config.network.backbone is None))
def test_no_network_has_a_strided_1x1_convolution(preset: str) -> None:
    convolutions = [module for module in Supernet(PRESETS[preset].network).modules() if isinstance(module, nn.Conv2d)]
    assert not [c for c in convolutions if c.kernel_size == (1, 1) and c.stride != (1, 1)]
    assert [c for c in convolutions if isinstance(c, PointwiseConvolution) and c.every == 2]


@pytest.mark.parametrize(("side", "stride"), [(28, 1), (28, 2), (7, 1), (7, 2)])
def test_a_dilated_convolution_equals_that_of_torch_with_its_gradients(side: int, stride: int) -> None:
    source = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, side, side, generator=source, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    convolution = DilatedDepthwiseConvolution(4, stride).double()
    y = convolution(x)
    expected = F.conv2d(x, convolution.weight, None, stride, 2, 2, 4)
    torch.testing.assert_close(y, expected)
    assert y.is_contiguous(memory_format=torch.channels_last)
    direction = torch.randn(y.shape, generator=source, dtype=torch.float64)
    inputs = (x, convolution.weight)
    found, truth = (torch.autograd.grad(output, inputs, direction) for output in (y, expected))
    for gradient, own in zip(found, truth, strict=True):
        torch.testing.assert_close(gradient, own)
