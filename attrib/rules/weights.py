"""Derived weights (positive parts, BatchNorm folded in), remembered per model and never stale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

_STRETCHES, _SHORT, _GLANCED = 61, 4096, 509
_WORDS = (torch.int64, torch.int32, torch.int16, torch.uint8)
Fingerprint = tuple[object, ...]


def fingerprint(*tensors: Tensor) -> Fingerprint:
    """Changes when a tensor is replaced or changed, also by writes that autograd does not count (`.data`, pointers).

    All values are read, at the speed of memory. Besides address, shape and version, each tensor has its bits, or the
    sums of its bits over 61 stretches, as wrapping whole numbers. What it does not see: uncounted writes to a tensor
    of more than 4096 words of 8 bytes that only reorder such words within a stretch, or cancel in its sum to the bit.
    """
    sums = [part for tensor in tensors if tensor.numel() for part in _sums(tensor.detach())]
    by_device: dict[torch.device, list[Tensor]] = {}
    for part in sums:
        by_device.setdefault(part.device, []).append(part)
    return _places(tensors), *(torch.cat(parts).cpu().numpy().tobytes() for parts in by_device.values())


def glance(*tensors: Tensor) -> Fingerprint:
    """What `fingerprint` would say, from some hundreds of values of each long tensor and none of short ones."""
    return _places(tensors), *(_glanced(tensor.detach()) for tensor in tensors if tensor.nbytes > 8 * _SHORT)


def look(tensor: Tensor) -> Fingerprint:
    """A glance at a long tensor, every value of a short one, whose copies may lie where others lay."""
    return glance(tensor) if tensor.nbytes > 8 * _SHORT else fingerprint(tensor)


def _places(tensors: Sequence[Tensor]) -> tuple[object, ...]:
    return tuple((t.data_ptr(), t.shape, t.stride(), t.dtype, version_of(t)) for t in tensors)


def _glanced(tensor: Tensor) -> bytes:
    words = _words(tensor)
    return words[:: len(words) // _GLANCED + 1].cpu().numpy().tobytes()


def version_of(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _sums(tensor: Tensor) -> list[Tensor]:
    """Sums of the tensor's bits over equal stretches of its memory, and over what is left; of a short one, its bits."""
    words = _words(tensor)
    if len(words) <= _SHORT:
        return [words]
    length = len(words) // _STRETCHES
    whole = length * _STRETCHES
    sums = [words[:whole].view(_STRETCHES, length).sum(1, dtype=torch.int64)]
    return sums if whole == len(words) else [*sums, words[whole:]]


def _words(tensor: Tensor) -> Tensor:
    flat = _as_it_lies(tensor)
    return flat.view(_widest(int(flat.storage_offset()) * flat.itemsize, flat.nbytes))


def _as_it_lies(tensor: Tensor) -> Tensor:
    """Its elements in one row, in the order of its memory where they fill that without gaps."""
    if tensor.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense(tensor) is not True:
        return tensor.reshape(-1)
    return tensor.as_strided((tensor.numel(),), (1,))


def _widest(*bytes_: int) -> torch.dtype:
    """The widest word that all these numbers of bytes are multiples of."""
    return next(word for word in _WORDS if all(count % word.itemsize == 0 for count in bytes_))


def _original(tensor: Tensor) -> Tensor:
    original, version = getattr(tensor, "_attrib_original", (tensor, None))
    return original if version == version_of(tensor) else tensor


class _Entry(NamedTuple):
    """What was computed, from which memory, and what that held."""

    mark: tuple[Fingerprint, ...]
    memory: tuple[StorageWeakRef, ...]
    value: Tensor

    def outlived(self) -> bool:
        """Whether a source is gone, so that its address may be another's."""
        return any(memory.expired() for memory in self.memory)


class WeightCache:
    """What rules know of a model: what they computed from its weights, kept while those stay as they are."""

    def __init__(self) -> None:
        self.followed_by_norm: set[int] = set()  # weights of layers whose output goes into a BatchNorm
        self.hidden: tuple[str, ...] | None = None  # the model's operations that no mode meets, once looked for
        self.mixed: dict[tuple[object, ...], bool] = {}  # rules and shape: whether a ledger mixes the samples
        self._entries: dict[tuple[object, ...], _Entry] = {}

    def derived(self, name: str, sources: tuple[Tensor, ...], compute: Callable[..., Tensor]) -> Tensor:
        """`compute(*sources)`, from memory when no source has changed since.

        Forgotten once a source's memory is free: a model may compute its weights anew in every forward.
        A twin's copy of a buffer stands for the original as long as nothing was written into it.
        """
        sources = tuple(map(_original, sources))
        key = (name, *(source.data_ptr() for source in sources))
        mark = tuple(self._mark(source) for source in sources)
        entry = self._entries.get(key)
        if entry is not None and entry.mark == mark and not entry.outlived():
            return entry.value
        with torch.no_grad():
            value = compute(*sources)
        memory = [source.untyped_storage() for source in sources]
        if value.untyped_storage().data_ptr() not in [m.data_ptr() for m in memory]:  # else it would hold its source
            for known in [k for k, other in list(self._entries.items()) if other.outlived()]:
                self._entries.pop(known, None)
            self._entries[key] = _Entry(mark, tuple(StorageWeakRef(m) for m in memory), value)
        return value

    def _mark(self, source: Tensor) -> Fingerprint:
        return fingerprint(source)


class OnePass(WeightCache):
    """A cache as it is used during one pass, in which weights stay as they are: each is looked at once."""

    def __init__(self, cache: WeightCache) -> None:
        super().__init__()
        self._entries = cache._entries
        self._marks: dict[int, tuple[Tensor, Fingerprint]] = {}  # with the tensor, so that no address is used again

    def _mark(self, source: Tensor) -> Fingerprint:
        place = source.data_ptr()
        if place not in self._marks or self._marks[place][0].shape != source.shape:
            self._marks[place] = (source, fingerprint(source))
        return self._marks[place][1]
