"""Whatever happens during an explanation, the model and the process are bit for bit as before."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from contract_nets import METHOD_NAMES, Answering, cheap, model, network, pictures, state_of
from torch import Tensor

import attrib

pytestmark = pytest.mark.parametrize("name", METHOD_NAMES)


class Raising(torch.autograd.Function):
    """An operation whose backward fails."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise ZeroDivisionError("backward failed")


def fail(logits: Tensor) -> Tensor:
    raise ZeroDivisionError("forward failed")


def test_after_success(name):
    subject, x = model(), pictures()
    given, before = x.clone(), state_of(subject.module)
    attrib.explain(subject, x, cheap(name), [0, 1, 2])
    assert state_of(subject.module) == before
    assert torch.equal(x, given) and not x.requires_grad and x._version == 0


def test_after_success_on_a_model_in_train_mode_with_gradients(name):
    subject = model()
    subject.module.train()
    subject.module.head.weight.grad = torch.ones_like(subject.module.head.weight)
    subject.module.conv.weight.requires_grad_(False)
    before = state_of(subject.module)
    attrib.explain(subject, pictures(2), cheap(name))
    assert state_of(subject.module) == before


def test_after_a_bad_target(name):
    subject = model()
    before = state_of(subject.module)
    for target in (99, [0, 1], "cat", lambda outputs: outputs):
        with pytest.raises(attrib.TargetError):
            attrib.explain(subject, pictures(), cheap(name), target)
        assert state_of(subject.module) == before


def test_after_a_model_that_raises(name):
    subject = attrib.wrap(Answering(network(), fail))
    before = state_of(subject.module)
    with pytest.raises(attrib.UnsupportedModel, match="forward failed"):
        attrib.explain(subject, pictures(), cheap(name), 1)
    assert state_of(subject.module) == before


def test_after_a_backward_that_raises(name):
    subject = attrib.wrap(Answering(network(), Raising.apply))
    before = state_of(subject.module)
    with suppress(attrib.UnsupportedModel):  # methods of forwards only never meet it
        attrib.explain(subject, pictures(), cheap(name), 1)
    assert state_of(subject.module) == before


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_after_cancelling(name, calls):
    subject, reports = model(), []

    def report(fraction, message):
        assert 0 <= fraction <= 1 and message == name
        reports.append(fraction)
        if len(reports) > calls:
            raise attrib.Cancelled("enough")

    before = state_of(subject.module)
    with pytest.raises(attrib.Cancelled):
        attrib.explain(subject, pictures(), cheap(name), 1, on_progress=report, max_memory=1)
    assert len(reports) == calls + 1
    assert state_of(subject.module) == before


def test_progress_never_goes_back_and_ends_at_one(name):
    reports = []
    attrib.explain(
        model(), pictures(), cheap(name), 1, on_progress=lambda fraction, _: reports.append(fraction), max_memory=1
    )
    assert reports == sorted(reports) and reports[0] == 0 and reports[-1] == 1
    assert len(reports) >= 4  # three inputs in three chunks
