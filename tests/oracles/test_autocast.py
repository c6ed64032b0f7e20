"""Models that switch autocast on inside their forward: rules compute what the model computes, in its precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import attrib


class Lowering(nn.Module):
    """A convolution in bfloat16 between layers in float32."""

    lowers = True

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, 2), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(x))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.lowers):
            y = F.relu(self.mixed(self.inner(y)))
        out: Tensor = self.head(y.float().mean((2, 3)))
        return out

    def mixed(self, y: Tensor) -> Tensor:
        return y


class Attending(Lowering):
    """Attention, a contraction and a product besides."""

    def mixed(self, y: Tensor) -> Tensor:
        tokens = y.flatten(2).transpose(1, 2)
        tokens = F.scaled_dot_product_attention(tokens, tokens, tokens)
        weight = self.inner.weight[:, :, 0, 0]
        tokens = torch.einsum("bnd,de->bne", tokens, weight) + tokens @ weight
        return tokens.transpose(1, 2).unflatten(2, y.shape[2:])


METHODS = ("saliency", "guided_backprop", attrib.LRP(preset="epsilon"), attrib.LRP(), attrib.DeepLift())
NAMES = ("saliency", "guided_backprop", "epsilon", "auto", "deeplift")


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
@pytest.mark.parametrize("make", [Lowering, Attending])
def test_the_score_is_the_models(make: type[Lowering], method: str | attrib.LRP) -> None:
    torch.manual_seed(0)
    net, x = make().eval(), torch.randn(2, 3, 12, 12)
    net.inner.bias.data += 8.0  # of which bfloat16 keeps little
    score = net(x)[:, 1].detach()
    found = attrib.explain(attrib.wrap(net), x, method, target=1)
    net.lowers = False
    in_float32 = (net(x)[:, 1].detach() - score).abs().max()
    assert float((found.score - score).abs().max()) < 0.3 * float(in_float32)
    if found.delta is not None:  # bfloat16 has three digits
        assert float(found.delta.abs().max()) < 0.05


def test_guided_backpropagation_in_bfloat16() -> None:
    torch.manual_seed(0)
    net, x = Lowering().eval(), torch.randn(1, 3, 12, 12)
    wanted = attrib.explain(attrib.wrap(net), x, "saliency", target=1).values
    net.head.weight.data.abs_()
    net.inner.weight.data.abs_()  # all that comes back to a ReLU is positive: the gradient
    found, plain = (attrib.explain(attrib.wrap(net), x, m, target=1).values for m in ("guided_backprop", "saliency"))
    torch.testing.assert_close(found.abs(), plain, rtol=1e-2, atol=1e-4)
    assert not torch.allclose(plain, wanted, rtol=1e-2)
