"""When the device's memory runs out, the chunk is halved until it fits, and the values are the same."""

from __future__ import annotations

import gc

import pytest
import torch
from contract_nets import cheap, pictures, worst
from contract_nets import model as image_model
from machine import device
from moved import TEXTS, on, text_model

import attrib
from attrib.errors import InputError
from attrib.failures import is_out_of_memory
from attrib.metrics.fidelity import Infidelity, RobustFidelity
from attrib.metrics.removal import Deletion
from attrib.metrics.road import ROAD

NO_LIMIT = 2**40  # bytes: all rows at once, whatever is free
# one of each kind: a pass, loops, rules, layers, gates; tests/contracts has the others with a model that raises
NAMES = ("saliency", "integrated_gradients", "occlusion", "lrp", "normgrad", "excitation_pullback")


def bytes_taken(memory, model, inputs, method):
    """(bytes that stay, most bytes during) an explanation of all inputs at once."""
    torch.cuda.reset_peak_memory_stats()
    attrib.explain(model, inputs, method, 1, max_memory=NO_LIMIT)
    gc.collect()
    return memory.live, memory.peak


@pytest.mark.parametrize("name", NAMES)
def test_the_chunk_is_halved(name):
    here, x, method = image_model(dtype=torch.float32), pictures(6, torch.float32), cheap(name)
    expected = attrib.explain(here, x, method, 1, max_memory=NO_LIMIT)
    with device() as memory:
        there = on(here, "cuda")
        _, peak = bytes_taken(memory, there, x, method)
        held, of_one = bytes_taken(memory, there, x[:1], method)
        memory.capacity = held + max((peak - held) * 6 // 10, (of_one - held) * 5 // 4)
        found = attrib.explain(there, x, method, 1, max_memory=NO_LIMIT)
        assert 1 <= memory.ran_out < 9 and memory.peak <= memory.capacity
    assert worst(found.values.inner, expected.values) < 1e-5
    assert [note for note in found.notes if "ran out of memory" in note] and len(found) == 6
    assert [note for note in found.notes if "ran out of memory" not in note] == list(expected.notes)


FORWARDS = (
    Deletion(20),
    Infidelity(20, n_regions=9),
    ROAD((20, 30, 40, 50, 60, 70, 80, 90)),
    RobustFidelity(n_samples=10),
)


@pytest.mark.parametrize("metric", FORWARDS, ids=lambda metric: metric.name)
def test_the_forwards_of_metrics_are_halved(metric):
    here, x = image_model(dtype=torch.float32), pictures(2, torch.float32)
    expected = attrib.evaluate(here, x, "saliency", metric, 1, n_random=1)
    with device() as memory:
        there = on(here, "cuda")
        held = memory.live
        attrib.evaluate(there, x, "saliency", metric, 1, n_random=1, max_memory=NO_LIMIT)
        gc.collect()
        memory.capacity = held + (memory.peak - held) * 6 // 10
        found = attrib.evaluate(there, x, "saliency", metric, 1, n_random=1, max_memory=NO_LIMIT)
        assert 1 <= memory.ran_out < 9 and memory.peak <= memory.capacity
    assert [note for note in found.notes if "ran out of memory" in note]
    for row, known in zip(found.rows, expected.rows, strict=True):
        assert row.value == pytest.approx(known.value, abs=1e-5)


def test_what_is_free_is_asked_first():
    """Without a limit from the caller the chunks are planned, so that nothing runs out."""
    here, x = image_model(dtype=torch.float32), pictures(6, torch.float32)
    with device() as memory:
        there = on(here, "cuda")
        _, peak = bytes_taken(memory, there, x, attrib.Saliency())
        memory.capacity = peak
        whole = attrib.explain(there, x, "saliency", 1)
        assert memory.ran_out == 0 and torch.equal(whole.values.cpu(), attrib.explain(here, x, "saliency", 1).values)


def test_a_text_model():
    here = text_model("gpt2", "next_token", "eager")
    expected = attrib.explain(here, TEXTS * 3, "lrp", 5)
    with device() as memory:
        there = on(here, "cuda")
        held, peak = bytes_taken(memory, there, TEXTS * 3, attrib.LRP())
        memory.capacity = held + (peak - held) * 7 // 10
        found = attrib.explain(there, TEXTS * 3, "lrp", 5, max_memory=NO_LIMIT)
        assert memory.ran_out >= 1
    assert worst(found.values.inner, expected.values) < 1e-3


def test_when_one_input_alone_is_too_much():
    with device() as memory:
        there = on(image_model(dtype=torch.float32), "cuda")
        memory.capacity = memory.live + 30_000
        with pytest.raises(InputError, match="one input alone does not fit"):
            attrib.explain(there, pictures(4, torch.float32), "saliency", 1, max_memory=NO_LIMIT)
        memory.capacity = None
        assert attrib.explain(there, pictures(4, torch.float32), "saliency", 1).values.isfinite().all()


def test_where_only_words_say_that_memory_ran_out():
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB, max allowed: 9 GB)"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("can't allocate memory"))
