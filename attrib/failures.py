"""What a model raises while it runs, told from what attrib raises: memory that ran out, and the model's own failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from attrib.errors import AttribError, UnsupportedModel
from attrib.rules.shadow import failing_module


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator failed: CUDA's has a type of its own, the CPU's only words."""
    words = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return words or isinstance(error, torch.OutOfMemoryError)


@contextmanager
def named_failures(name: str, twin: nn.Module, x: Tensor) -> Iterator[None]:
    """What `twin` raises on x becomes UnsupportedModel; attrib's own errors and running out of memory stay."""
    try:
        yield
    except AttribError:
        raise
    except Exception as error:  # the module is anybody's code
        path = failing_module(error, twin)
        if path is None or is_out_of_memory(error):
            raise
        where = f" in its module {path!r}" if path else ""
        raise UnsupportedModel(
            f"{name} failed{where} on an input of shape {tuple(x.shape)} with {type(error).__name__}: {error}"
        ) from error
