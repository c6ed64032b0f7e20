"""What a model raises while it runs, told from what attrib raises: memory that ran out, and the model's own failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from attrib.errors import AttribError, UnsupportedModel
from attrib.rules.shadow import failing_module

_NO_MEMORY = ("can't allocate memory", "MPS backend out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator failed: CUDA's has a type of its own, those of the CPU, of MPS and of cuBLAS only words."""
    words = isinstance(error, RuntimeError) and any(word in str(error) for word in _NO_MEMORY)
    return words or isinstance(error, torch.OutOfMemoryError)


def _raised_in_backward(error: BaseException) -> bool:
    """Whether autograd's backward was running: an in-place change of what it needs, a custom function that fails."""
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code is torch.autograd.graph._engine_run_backward.__code__:
            return True
        traceback = traceback.tb_next
    return False


def _first_sentence(error: BaseException) -> str:
    return str(error).split("\n", 1)[0].split(". Hint", 1)[0].rstrip(".")


def _refuse_grown(name: str, twin: nn.Module) -> None:
    """A twin's own weights are plain tensors: a parameter on it was made by its forward, and is not the model's."""
    grown = [path for path, p in twin.named_parameters() if isinstance(p, nn.Parameter) and p.requires_grad]
    if grown:
        raise UnsupportedModel(
            f"{name} makes its parameter {grown[0]!r} in its forward, so that nobody has its values yet; run the model "
            "once on an input before it is explained"
        )


@contextmanager
def named_failures(name: str, twin: nn.Module, x: Tensor) -> Iterator[None]:
    """What `twin` raises on x becomes UnsupportedModel; attrib's own errors and running out of memory stay."""
    try:
        yield
        _refuse_grown(name, twin)
    except AttribError:
        raise
    except Exception as error:  # the module is anybody's code
        path = failing_module(error, twin)
        if is_out_of_memory(error):
            raise
        if path is None:
            if not _raised_in_backward(error):
                raise
            raise UnsupportedModel(f"{name} {_without_gradient(error)}") from error
        where = f" in its module {path!r}" if path else ""
        raise UnsupportedModel(
            f"{name} failed{where} on an input of shape {tuple(x.shape)} with {type(error).__name__}: {error}"
        ) from error


def _without_gradient(error: Exception) -> str:
    """What a model did whose backward raised this, and the way out."""
    if isinstance(error, CheckpointError):
        return (
            "runs parts of itself again in the backward (torch.utils.checkpoint), where rules cannot follow; switch "
            "its checkpointing off, or ask for less memory with attrib.models.checkpointed"
        )
    if "use_reentrant=True" in str(error):
        return (
            "checkpoints parts of itself with use_reentrant=True, through which no gradient at the input can be asked "
            "for; set use_reentrant=False, or switch its checkpointing off"
        )
    return (
        f"has no gradient that autograd can compute: {type(error).__name__}: {_first_sentence(error)}; "
        "occlusion and kernel_shap need none"
    )
