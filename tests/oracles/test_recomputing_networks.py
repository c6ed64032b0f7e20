"""Models that call torch.utils.checkpoint themselves: explained as their twins without it, to the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import attrib


class Checkpointing(nn.Module):
    """Runs its middle again in the backward, as torchvision's memory-efficient DenseNet does."""

    def __init__(self, how: str | None) -> None:
        super().__init__()
        self.how, self.first, self.head = how, nn.Conv2d(3, 8, 3), nn.Linear(8, 5)
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.GELU(), nn.Conv2d(8, 8, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x))
        if self.how is None:
            y = self.middle(y)
        elif self.how == "in pieces":
            y = checkpoint_sequential(self.middle, 2, y, use_reentrant=False)
        else:
            y = checkpoint(lambda z: self.middle(z), y, use_reentrant=self.how == "reentrant")
        answer: Tensor = self.head(y.mean((2, 3)))
        return answer


@pytest.fixture
def plain() -> nn.Module:
    torch.manual_seed(0)
    net = Checkpointing(None).double().eval()
    nn.init.uniform_(net.middle[1].running_var, 0.5, 1.5)
    return net


def same_net(plain: nn.Module, how: str) -> nn.Module:
    net = Checkpointing(how).double().eval()
    net.load_state_dict(plain.state_dict())
    return net


METHODS: tuple[Any, ...] = (
    attrib.Saliency(),
    attrib.IntegratedGradients(n_steps=3),
    attrib.LRP(),
    attrib.LRP(preset="epsilon_gamma_box"),
    attrib.DeepLift(),
    attrib.GuidedBackprop(),
    attrib.GradCAM(layer="middle.4"),
    attrib.GradCAM(layer="first"),
    attrib.SmoothGrad(n_samples=3),
)


@pytest.mark.parametrize("how", ["not reentrant", "in pieces"])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_model_that_recomputes_itself_is_explained(plain: nn.Module, how: str, method: Any) -> None:
    x = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    net = same_net(plain, how)
    first, second = (attrib.explain(attrib.wrap(m), x, method, 1) for m in (plain, net))
    torch.testing.assert_close(first.values, second.values, rtol=1e-10, atol=1e-12)
    if first.ledger is not None:
        assert second.ledger is not None and first.ledger.keys() == second.ledger.keys()
        torch.testing.assert_close(first.ledger, second.ledger, rtol=1e-9, atol=1e-12)
    if first.coverage is not None:
        assert first.coverage == second.coverage


def test_a_reentrant_one_is_refused(plain: nn.Module) -> None:
    """Its second run would not be under the rules, and its backward takes no inputs."""
    x, model = torch.randn(1, 3, 12, 12, dtype=torch.float64), attrib.wrap(same_net(plain, "reentrant"))
    for method in ("saliency", "lrp", "guided_backprop"):
        with pytest.raises(attrib.UnsupportedModel, match="use_reentrant=True"):
            attrib.explain(model, x, method, 1)


def test_its_memory_stays_what_was_asked_for(plain: nn.Module) -> None:
    """The blocks of attrib.models.checkpointed may themselves hold checkpoints."""
    x = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    first = attrib.explain(attrib.wrap(plain), x, "lrp", 1, strict=True)
    second = attrib.explain(attrib.wrap(same_net(plain, "not reentrant")), x, "lrp", 1, strict=True, max_memory=1)
    torch.testing.assert_close(first.values, second.values, rtol=1e-10, atol=1e-12)
