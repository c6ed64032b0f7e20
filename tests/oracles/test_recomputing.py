"""Blocks that are computed again: the same values, ledger and coverage, in less memory, on a model left alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_transformers import FAMILIES, build, embeddings, seeded
from torch import Tensor, nn
from torchvision.models import VisionTransformer

import attrib
from attrib.memory import activation_bytes
from attrib.models import checkpointed
from attrib.rules.recomputing import _blocks

TARGETS = [1, 0]


class Given(nn.Module):
    """A transformer that is fed embeddings as a picture is fed to a network: (batch, 1, tokens, width)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        output = self.inner(inputs_embeds=x[:, 0])
        logits = output if isinstance(output, Tensor) else output.logits
        return logits[:, -1] if logits.dim() == 3 else logits


def of(family: str, attention: str = "sdpa") -> tuple[nn.Module, Tensor]:
    if family == "vit":
        torch.manual_seed(0)
        x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        return seeded(VisionTransformer(16, 8, 3, 4, 32, 48, num_classes=3)), x
    inner = build(family, attention)
    if hasattr(inner, "config"):
        inner.config.use_cache = False
    return Given(inner), embeddings()[:, None]


def same(a: Any, b: Any) -> None:
    torch.testing.assert_close(a.values, b.values, rtol=1e-9, atol=1e-12)
    assert a.coverage == b.coverage
    assert (a.ledger is None) == (b.ledger is None)
    for name in a.ledger or ():
        torch.testing.assert_close(a.ledger[name], b.ledger[name], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("method", [attrib.LRP("attn_lrp"), attrib.LRP("cp_lrp"), attrib.InputXGradient()])
@pytest.mark.parametrize("family", ["vit", *FAMILIES])
def test_nothing_changes(family, method):
    module, x = of(family, "eager" if family in ("gemma2", "bloom") else "sdpa")
    model = attrib.wrap(module)
    plain, again = (attrib.explain(m, x, method, TARGETS) for m in (model, checkpointed(model)))
    same(plain, again)
    assert plain.values.abs().max() > 0
    assert all("forward" not in vars(part) for part in module.modules())


def test_a_block_that_fills_a_cache_runs_once():
    module, x = of("llama")
    module.inner.config.use_cache = True
    model = attrib.wrap(module)
    same(*(attrib.explain(m, x, attrib.LRP("attn_lrp"), TARGETS) for m in (model, checkpointed(model))))


@pytest.mark.parametrize("preset", ["epsilon_plus_flat", "epsilon_gamma_box"])
def test_convolutional_networks_too(preset):
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model = attrib.wrap(resnet18(num_classes=5).double().eval())
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    same(*(attrib.explain(m, x, attrib.LRP(preset), 1) for m in (model, checkpointed(model))))
    assert activation_bytes(checkpointed(model), x, {}) < activation_bytes(model, x, {})


@pytest.mark.parametrize(
    "method", [attrib.GradCAM(), attrib.AttentionRollout(), attrib.LRP("attn_lrp", positions=True)]
)
def test_methods_that_look_inside_a_block_see_what_is_there(method):
    module, x = of("vit")
    model = attrib.wrap(module)
    plain, again = (attrib.explain(m, x, method, TARGETS) for m in (model, checkpointed(model)))
    torch.testing.assert_close(plain.values, again.values, rtol=1e-9, atol=1e-12)


def test_a_blocks_inside_is_forgotten():
    module, x = of("llama")
    model = attrib.wrap(module)
    kept, forgotten = (activation_bytes(m, x, {}) for m in (model, checkpointed(model)))
    assert forgotten < 0.75 * kept  # one of two blocks


def test_what_a_block_hides_is_reported():
    class Hidden(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad * 2

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return Hidden.apply(self.linear(x))

    model = attrib.wrap(nn.Sequential(nn.Flatten(), nn.Sequential(Block(), Block(), Block())).eval())
    plain, again = (
        attrib.explain(m, torch.ones(1, 1, 2, 2), attrib.LRP("epsilon"), 1) for m in (model, checkpointed(model))
    )
    assert list(plain.coverage.uncovered) == list(again.coverage.uncovered) == ["Hidden (a custom autograd function)"]


def test_blocks_are_the_members_of_outermost_lists():
    module, _ = of("llama")
    assert list(_blocks(module)) == list(module.inner.model.layers)
    with pytest.raises(attrib.NotApplicable, match="no list of blocks"):
        checkpointed(attrib.wrap(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())))
