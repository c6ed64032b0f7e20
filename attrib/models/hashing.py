"""Telling weights and inputs apart by their content."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attrib.rules.weights import Fingerprint, fingerprint, glance

_TRUSTED = 1.0  # seconds for which a glance at large weights is enough
_LARGE = 32 << 20  # bytes that are read in a millisecond


@dataclass(frozen=True)
class Hashed:
    """A hash of weights, what they looked like then, and when all of their values were last read."""

    value: str
    glance: Fingerprint
    fingerprint: Fingerprint
    read: float


def hashed(module: nn.Module, known: Hashed | None) -> Hashed:
    """The sha256 of every parameter and buffer with its name; `known`, where they have not changed since.

    Changes that autograd counts are always seen. For others (through `.data`) all values are read; of weights beyond
    32 MB once a second, and in between some hundreds of each long tensor, so that a loop over short texts does not
    spend a tenth of its time on reading weights.
    """
    tensors = tensors_of(module)
    own = {id(tensor): tensor for tensor in tensors.values()}  # tied ones once
    names = tuple((name, id(tensor)) for name, tensor in tensors.items())
    large = sum(tensor.nbytes for tensor in own.values()) > _LARGE
    seen = (names, *glance(*own.values())) if large else ()
    now = time.monotonic()
    if large and known is not None and known.glance == seen and now - known.read < _TRUSTED:
        return known
    mark = (names, *fingerprint(*own.values()))
    value = known.value if known is not None and known.fingerprint == mark else hash_of(tensors)
    return Hashed(value, seen, mark, now)


def hash_of(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, types, shapes and every byte of `tensors`."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by name, tied ones under each of their names."""
    named: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    return named | dict(module.named_buffers(remove_duplicate=False))
