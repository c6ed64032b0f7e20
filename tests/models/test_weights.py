"""One fingerprint for the provenance's hash and for the rules' derived weights: what it sees, and what it costs."""

from __future__ import annotations

import ctypes
import time

import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib.models import hashing
from attrib.models.hashing import hash_of, tensors_of
from attrib.rules.weights import WeightCache, fingerprint

LARGE = (300, 301)  # far more than is kept bit by bit


def values(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul(50).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("shape", [(), (1,), (7, 3), LARGE])
def test_every_single_element_counts(dtype, shape):
    tensor = values(*shape, dtype=dtype)
    places = range(tensor.numel()) if tensor.numel() < 100 else range(0, tensor.numel(), 1777)
    for place in places:
        before = fingerprint(tensor)
        assert fingerprint(tensor) == before
        flat = tensor.data.view(-1)
        flat[place] = ~flat[place] if dtype == torch.bool else flat[place] + 1
        assert tensor._version == 0  # nothing that autograd counts
        assert fingerprint(tensor) != before


@pytest.mark.parametrize("change", [1e-7, -1e-7])
def test_the_last_bit_counts(change):
    tensor = torch.ones(LARGE)
    before = fingerprint(tensor)
    tensor.data[150, 150] += change
    assert tensor[150, 150] != 1
    assert fingerprint(tensor) != before


def test_a_write_through_a_raw_pointer_counts():
    tensor = values(*LARGE)
    before = fingerprint(tensor)
    place = tensor.data_ptr() + 4 * 40_000
    ctypes.c_float.from_address(place).value += 1.0
    assert tensor._version == 0 and fingerprint(tensor) != before


def test_what_is_moved_counts():
    tensor = values(*LARGE)
    before = fingerprint(tensor)
    tensor.data[[0, 200]] = tensor.data[[200, 0]]  # two rows change places
    assert fingerprint(tensor) != before
    assert fingerprint(values(4, 6)) != fingerprint(values(4, 6).mT)


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t[1:], lambda t: t[:, 1:], lambda t: t.mT, lambda t: t[::2, ::3], lambda t: t.expand(2, *t.shape),
        lambda t: t[:0],
    ],
)  # fmt: skip
def test_tensors_that_lie_in_memory_in_other_ways(view):
    """Odd beginnings, gaps, turned round, repeated, empty."""
    base = values(301, 303)
    seen = view(base)
    before = fingerprint(seen)
    assert fingerprint(view(base)) == before
    if seen.numel():
        base.data[4:, 6:] += 1
        assert fingerprint(seen) != before


def test_half_of_a_words_neighbours():
    packed = values(4, 8, 60, 60).contiguous(memory_format=torch.channels_last)
    before = fingerprint(packed)
    packed.data[3, 7, 59, 59] += 1
    assert fingerprint(packed) != before


def test_the_hash_sees_what_autograd_does_not_count():
    module = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.Flatten(), nn.LazyLinear(4)).eval()
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        module(x)
    model, method = attrib.wrap(module), attrib.LRP("epsilon_plus")
    first = attrib.explain(model, x, method, 1)
    module[2].weight.data[5, 6, 1, 1] += 10.0
    second, fresh = (attrib.explain(m, x, method, 1) for m in (model, attrib.wrap(module)))
    assert first.provenance.weights_hash != second.provenance.weights_hash == hash_of(tensors_of(module))
    assert torch.equal(second.values, fresh.values) and not torch.equal(first.values, fresh.values)


def test_derived_weights_are_kept_until_then():
    cache, weight, made = WeightCache(), values(*LARGE), []

    def derived() -> Tensor:
        return cache.derived("double", (weight,), lambda w: made.append(1) or w * 2)

    assert derived() is derived() and len(made) == 1
    weight.data[17, 17] += 1
    assert torch.equal(derived(), weight * 2) and len(made) == 2


def test_it_reads_at_the_speed_of_memory():
    """Far cheaper than hashing, which would be a third of a ResNet-50's pass."""
    weights = [values(512, 512, 3) for _ in range(24)]  # 75 MB

    def seconds(call) -> float:
        call()
        times = []
        for _ in range(5):
            start = time.process_time()
            call()
            times.append(time.process_time() - start)
        return min(times)

    named = {str(i): weight for i, weight in enumerate(weights)}
    assert seconds(lambda: fingerprint(*weights)) < 0.5 * seconds(lambda: hash_of(named))


def test_large_weights_are_read_once_a_second_and_glanced_at_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    model = attrib.wrap(nn.Sequential(nn.Flatten(), nn.Linear(3072, 3000)).eval())  # 37 MB
    weight = model.module[1].weight
    read = []
    monkeypatch.setattr(hashing, "fingerprint", lambda *tensors: read.append(1) or fingerprint(*tensors))
    first = model.weights_hash
    assert model.weights_hash == first and len(read) == 1
    weight.data.mul_(0.5)  # most values, uncounted: a glance is enough
    second = model.weights_hash
    assert second == hash_of(tensors_of(model.module)) != first
    with torch.no_grad():
        weight[1234, 567] += 1  # one value, counted
    third = model.weights_hash
    assert third == hash_of(tensors_of(model.module)) != second
    weight.data[2345, 678] += 1  # one value, uncounted: the next reading sees it
    monkeypatch.setattr(hashing, "_TRUSTED", 0.0)
    assert model.weights_hash == hash_of(tensors_of(model.module)) != third
