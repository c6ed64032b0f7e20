"""The pretended device refuses what a real one refuses; otherwise the tests beside this one could not fail."""

from __future__ import annotations

import threading

import pytest
import torch
from machine import device
from moved import on
from pretend import OnDevice
from torch import Tensor, nn

import attrib
from attrib.errors import UnsupportedModel


class Careless(nn.Module):
    """`step`, and a linear layer."""

    def __init__(self, step) -> None:
        super().__init__()
        self.step, self.head = step, nn.Linear(48, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.step(x.flatten(1)))


CARELESS = {
    "a factory without a device": lambda x: x + torch.zeros(48),
    "a mask of the CPU": lambda x: x.masked_fill(torch.zeros(48, dtype=torch.bool), 0.0),
    "two sides in one tensor": lambda x: torch.cat([x[:, :24], torch.ones(len(x), 24)], 1),
    "numpy": lambda x: x + float(x.detach().numpy().sum()),
    "a generator of the CPU": lambda x: x + torch.randn(48, generator=torch.Generator(), device=x.device),
    "an index on the device into a tensor of the CPU": lambda x: x * torch.ones(48)[x.argsort(1)].to(x.device),
}
FINE = {
    "a factory with a device": lambda x: x + torch.zeros(48, device=x.device),
    "torch.tensor": lambda x: x * torch.tensor([2.0], device=x.device),
    "a number of the CPU": lambda x: x * torch.tensor(2.0),
    "an index of the CPU": lambda x: x[:, torch.arange(48)],
    "a list as index": lambda x: torch.cat([x[:, [0, 1]], x[:, 2:]], 1),
    "a list to write to": lambda x: x.clone().index_fill_(1, torch.arange(2, device=x.device), 0.0),
    "a copy": lambda x: x + x.detach().cpu().to(x.device),
    "tolist": lambda x: x * x.detach().sum(0).tolist()[0],
}


@pytest.mark.parametrize("name", CARELESS)
def test_what_fails_on_a_real_device_fails_here(name):
    model, x = attrib.wrap(Careless(CARELESS[name])), torch.ones(2, 3, 4, 4)
    attrib.explain(model, x, "saliency", 0)
    with device(), pytest.raises(UnsupportedModel, match=r"device|numpy|generator"):
        attrib.explain(on(model, "cuda"), x, "saliency", 0)


@pytest.mark.parametrize("name", FINE)
def test_what_works_on_a_real_device_works_here(name):
    model, x = attrib.wrap(Careless(FINE[name])), torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = attrib.explain(model, x, "input_x_gradient", 0)
    with device():
        found = attrib.explain(on(model, "cuda"), x, "input_x_gradient", 0)
        assert isinstance(found.values, OnDevice) and torch.equal(found.values.cpu(), expected.values)


def test_mps_has_no_float64():
    with device("mps", float64=False):
        x = torch.ones(2).to("mps:0")
        for widen in (
            x.double,
            lambda: x.to(torch.float64),
            lambda: torch.zeros(2, dtype=torch.float64, device=x.device),
        ):
            with pytest.raises(TypeError, match="float64"):
                widen()
        assert torch.ones(2, dtype=torch.float64).to("mps:0", torch.float32).dtype == torch.float32
        assert x.cpu().double().dtype == torch.float64


def test_memory_is_counted_and_runs_out():
    with device(capacity=1000) as memory:
        kept = torch.zeros(100, device="cuda:0")
        view, held = kept[10:], memory.live
        assert held == 400 and view.untyped_storage().data_ptr() == kept.data_ptr()
        with pytest.raises(torch.OutOfMemoryError):
            kept.repeat(2)
        del kept, view
        assert memory.live == 0 and memory.ran_out == 1 and memory.peak == 400
        assert torch.zeros(250, device="cuda:0").device == torch.device("cuda", 0)


def test_backward_runs_in_a_thread_of_its_own_under_the_callers_modes():
    seen: list[int] = []
    with device():
        x = torch.ones(2, device="cuda:0").requires_grad_()
        y = x * 2
        y.register_hook(lambda gradient: seen.append(threading.get_ident()))
        torch.autograd.grad(y.sum(), x)
        with pytest.raises(RuntimeError, match="second time"):
            torch.autograd.grad(y.sum(), x)
    assert seen and seen[0] != threading.get_ident()


def test_cudnn_has_no_gradient_of_recurrent_layers_in_eval_mode():
    with device():
        layer, x = (
            nn.LSTM(3, 4, batch_first=True).to("cuda:0").eval(),
            torch.ones(1, 5, 3).to("cuda:0").requires_grad_(),
        )
        with pytest.raises(RuntimeError, match="training mode"):
            torch.autograd.grad(layer(x)[0].sum(), x)


def test_nothing_stays_behind():
    before = (torch.cuda.mem_get_info, torch.autograd._engine_run_backward, torch._C._only_lift_cpu_tensors())
    with device():
        torch.zeros(1, device="cuda:0")
    assert before == (torch.cuda.mem_get_info, torch.autograd._engine_run_backward, torch._C._only_lift_cpu_tensors())
    assert torch.utils._python_dispatch._get_current_dispatch_mode_stack() == []
    with pytest.raises((RuntimeError, AssertionError)):
        torch.zeros(1, device="cuda:0")
