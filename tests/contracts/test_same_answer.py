"""One question has one answer: whatever the thread, batch, chunk, precision, spelling or mode of the model."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from contract_nets import (
    METHOD_NAMES,
    Answering,
    Functional,
    InPlace,
    Modules,
    cheap,
    model,
    network,
    pictures,
    worst,
)
from scipy.stats import spearmanr
from torch import Tensor
from transformers.modeling_outputs import ImageClassifierOutput

import attrib

# float64, so that only the order of sums differs
CLOSE = 1e-9


def assert_same(one: attrib.Attribution, other: attrib.Attribution, close: float = CLOSE) -> None:
    assert one.values.shape == other.values.shape and one.kind == other.kind
    assert worst(one.values, other.values) < close
    assert worst(one.score, other.score) < close
    assert one.target == other.target
    assert (one.ledger is None) == (other.ledger is None)
    for key in set(one.ledger or ()) | set(other.ledger or ()):
        size = float(one.score.abs().max())
        nothing = torch.zeros_like(one.score)
        difference = one.ledger.get(key, nothing).double() - other.ledger.get(key, nothing).double()
        assert float(difference.abs().max()) < max(close, 1e-12) * size, key
    assert (one.coverage is None) == (other.coverage is None)


def equal(one: attrib.Attribution, other: attrib.Attribution) -> bool:
    return torch.equal(one.values, other.values) and torch.equal(one.score, other.score)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_twice(name):
    subject, x = model(), pictures()
    first = attrib.explain(subject, x, cheap(name), 1)
    torch.manual_seed(99)  # nobody may draw from the global generator
    assert equal(first, attrib.explain(subject, x, cheap(name), 1))


def test_in_eight_threads_on_one_model():
    x = pictures(2, torch.float32)
    serial = model(dtype=torch.float32)
    jobs = [(name, target) for name in METHOD_NAMES for target in (0, 1)] * 3
    expected = {job: attrib.explain(serial, x, cheap(job[0]), job[1]) for job in set(jobs)}
    shared = model(dtype=torch.float32)  # its caches are cold: the threads meet in filling them

    def answer(job):
        return attrib.explain(shared, x, cheap(job[0]), job[1])

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(answer, jobs))
    wrong = [job for job, result in zip(jobs, results, strict=True) if not equal(result, expected[job])]
    assert wrong == []


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_in_a_batch_as_alone(name):
    subject, x = model(), pictures()
    together = attrib.explain(subject, x, cheap(name), [2, 0, 1])
    for i, target in enumerate((2, 0, 1)):
        alone = attrib.explain(subject, x[i : i + 1], cheap(name), target)
        assert worst(together.values[i : i + 1], alone.values) < CLOSE
        assert worst(together.score[i : i + 1], alone.score) < CLOSE


@pytest.mark.parametrize("target", [None, [0, 1, 2, 3, 4], attrib.LogitDiff(0, 3), attrib.LogProb(2)], ids=str)
@pytest.mark.parametrize("name", METHOD_NAMES)
def test_at_any_chunk_size(name, target):
    subject, x = model(), pictures(5)
    whole = attrib.explain(subject, x, cheap(name), target, max_memory=2**40)
    row = max(subject.measured_bytes.values())
    for budget in (1, int(2.5 * row * attrib.METHODS[name].memory_factor)):
        part = attrib.explain(subject, x, cheap(name), target, max_memory=budget)
        assert_same(whole, part)
        assert len(part) == len(part.target) == 5


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_when_memory_runs_out(name):
    """An allocator that fails for more than two rows: the chunk is halved until it fits, and nothing else changes."""

    def tight(logits: Tensor) -> Tensor:
        if len(logits) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return logits

    net = network()
    whole = attrib.explain(attrib.wrap(Answering(net, lambda logits: logits)), pictures(5), cheap(name), 1)
    assert_same(whole, attrib.explain(attrib.wrap(Answering(net, tight)), pictures(5), cheap(name), 1))


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_float32_is_nearly_float64(name):
    wide = attrib.explain(model(), pictures(), cheap(name), 1)
    narrow = attrib.explain(model(dtype=torch.float32), pictures(dtype=torch.float32), cheap(name), 1)
    assert narrow.values.dtype == torch.float32 and wide.values.dtype == torch.float64
    assert worst(narrow.values, wide.values) < 1e-4
    assert worst(narrow.score, wide.score) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", METHOD_NAMES)
def test_half_precision_is_finite_and_like_float32(name, dtype):
    narrow = model(dtype=dtype)
    x = pictures(dtype=dtype)
    wide = attrib.wrap(copy.deepcopy(narrow.module).float())
    half = attrib.explain(narrow, x, cheap(name), 1)
    full = attrib.explain(wide, x.float(), cheap(name), 1)
    assert half.values.isfinite().all() and half.score.isfinite().all()
    for ours, theirs in zip(half.values.float(), full.values, strict=True):
        assert spearmanr(ours.flatten(), theirs.flatten()).statistic > 0.9


@pytest.mark.parametrize("other", [Functional, InPlace])
@pytest.mark.parametrize("name", METHOD_NAMES)
def test_in_any_spelling(name, other):
    # where a layer is looked at it is named, as the spellings differ in which modules they have
    method = cheap(name, layer="block_norm", layers=("norm",))
    modules = attrib.explain(model(Modules), pictures(), method, 1)
    assert_same(modules, attrib.explain(model(other), pictures(), method, 1))


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_in_train_mode(name):
    """The model is explained as it would be used, and stays in the mode it is in."""
    subject, x = model(), pictures()
    expected = attrib.explain(subject, x, cheap(name), 1)
    subject.module.train()
    assert equal(attrib.explain(subject, x, cheap(name), 1), expected)
    assert all(part.training for part in subject.module.modules())


@pytest.mark.parametrize(
    "finish",
    [
        lambda logits: {"logits": logits, "loss": None},
        lambda logits: (logits, {"aux": 0}),
        lambda logits: ImageClassifierOutput(logits=logits),
    ],
    ids=["dict", "tuple", "ModelOutput"],
)
@pytest.mark.parametrize("name", METHOD_NAMES)
def test_with_any_kind_of_output(name, finish):
    net, x = network(), pictures()
    expected = attrib.explain(attrib.wrap(net), x, cheap(name))
    assert_same(attrib.explain(attrib.wrap(Answering(net, finish)), x, cheap(name)), expected)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_under_no_grad_and_inference_mode(name):
    subject, x = model(), pictures(1)
    expected = attrib.explain(subject, x, cheap(name), 1)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            assert equal(attrib.explain(subject, x, cheap(name), 1), expected)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_in_any_memory_layout(name):
    subject, x = model(), pictures(2)
    expected = attrib.explain(subject, x, cheap(name), 1)
    packed = attrib.explain(subject, x.contiguous(memory_format=torch.channels_last), cheap(name), 1)
    strided = attrib.explain(subject, x.transpose(2, 3).contiguous().transpose(2, 3), cheap(name), 1)
    assert_same(packed, expected)
    assert_same(strided, expected)
