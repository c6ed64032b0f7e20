"""Gradients of strided convolutions of few channels: what autograd gives, for every way a kernel can meet a stride."""

import itertools

import pytest
import torch
from torch import nn

from attrib.rules.subpixel import input_gradient


@pytest.mark.parametrize("channels", [1, 3, 8])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_input_gradients_are_those_of_autograd(channels, kernel, stride):
    generator = torch.Generator().manual_seed(10 * kernel + stride)
    for padding, side in itertools.product(range(kernel), (8, 9, 10)):
        layer = nn.Conv2d(channels, 4, kernel, stride, (padding, 0), bias=False, dtype=torch.double)
        layer.weight = nn.Parameter(torch.randn(layer.weight.shape, generator=generator, dtype=torch.double))
        x = torch.randn(2, channels, side, 11, generator=generator, dtype=torch.double, requires_grad=True)
        y = layer(x)
        c = torch.randn(y.shape, generator=generator, dtype=torch.double)
        (expected,) = torch.autograd.grad(y, x, c)
        for given in (c, c.contiguous(memory_format=torch.channels_last)):
            found = input_gradient(given, layer, x.shape[2:])
            assert found.shape == x.shape
            assert torch.allclose(found, expected, atol=1e-12)
