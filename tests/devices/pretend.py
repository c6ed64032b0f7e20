"""A device that is not there: tensors that say they are on "cuda" (or "mps") and behave so, computed on the CPU.

A wrapper around a CPU tensor answers every operation through `__torch_dispatch__`. As on the real device, operations
refuse tensors of both sides, numpy refuses the device's, factories need `device=`, generators are the device's own,
memory can run out, cuDNN's recurrent layers have a gradient in training mode only, and MPS has no float64. To C++ the
tensors are meta tensors: what reads their memory behind torch's back fails.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
# operations that take a CPU tensor beside the device's: copies, and those that look numbers up in an index
_CROSSING = {aten._to_copy, aten.copy_, aten.copy}
_INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._unsafe_index, aten._index_put_impl_}
_CUDNN = {torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu}
_WIDE = {torch.float64, torch.complex128}


class OnDevice(Tensor):
    """A tensor of the pretended device; `inner` holds the numbers."""

    inner: Tensor
    memory: Memory

    @staticmethod
    def __new__(cls, inner: Tensor, memory: Memory) -> OnDevice:
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        made = Tensor._make_wrapper_subclass(cls, inner.size(), device="meta", **layout)
        made.inner, made.memory = inner, memory
        memory.taken(made)
        return made

    device = property(lambda self: self.memory.device)
    is_cuda = property(lambda self: self.memory.device.type == "cuda")
    is_mps = property(lambda self: self.memory.device.type == "mps")
    is_meta = is_cpu = property(lambda self: False)

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def untyped_storage(self) -> Any:
        return self.inner.untyped_storage()

    def get_device(self) -> int:
        return 0

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(_lists_as_tensors(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_lists_as_tensors(index), value)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def new_tensor(self, data: Any, *, dtype: Any = None, **_: Any) -> Tensor:
        return torch.tensor(data, dtype=dtype or self.dtype).to(self.device)

    def __format__(self, spec: str) -> str:
        return format(self.cpu(), spec)

    def numpy(self, **_: Any) -> Any:
        raise TypeError(
            f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host "
            "memory first."
        )

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        copied.__dict__.update({key: value for key, value in self.__dict__.items() if key not in copied.__dict__})
        return memo.setdefault(id(self), copied)

    def __repr__(self, **_: Any) -> str:
        return f"tensor({self.inner.tolist()}, device='{self.device}')"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
            if func in _CUDNN and result[0].requires_grad and not args[-3]:
                result[0].register_hook(_refuse_eval)
        return result

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        memory = next(t.memory for t in tree_leaves((args, kwargs or {})) if isinstance(t, OnDevice))
        return memory.computed(func, args, kwargs or {})


def _refuse_eval(gradient: Tensor) -> None:
    if gradient.is_cuda:
        raise RuntimeError("cudnn RNN backward can only be called in training mode")


def _lists_as_tensors(index: Any) -> Any:
    """Lists in an index as CPU tensors, which the device takes too; C++ would make meta tensors of them."""
    if isinstance(index, tuple):
        return tuple(_lists_as_tensors(part) for part in index)
    return torch.tensor(index) if isinstance(index, list) else index


class Memory:
    """The device's: what lives in it, how much it holds, and how operations are computed there.

    capacity: bytes that live tensors may take, None: no limit. float64: whether the device knows it.
    """

    def __init__(self, kind: str = "cuda", capacity: int | None = None, float64: bool = True) -> None:
        self.device, self.capacity, self.float64 = torch.device(kind, 0), capacity, float64
        self.live, self.peak, self.ran_out = 0, 0, 0
        self._holders: dict[int, int] = {}  # address of memory → how many tensors look into it
        self._alive: dict[int, weakref.ref[Any]] = {}

    def free(self) -> int:
        return (1 << 33 if self.capacity is None else self.capacity) - self.live

    def taken(self, tensor: OnDevice) -> None:
        """Count the tensor's memory for as long as any tensor looks into it."""
        if not self.float64 and tensor.dtype in _WIDE:
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. "
                "Please use float32 instead."
            )
        storage = tensor.inner.untyped_storage()
        address, size, key = storage.data_ptr(), storage.nbytes(), id(tensor)
        new = size if address not in self._holders else 0
        if self.capacity is not None and self.live + new > self.capacity:
            self.ran_out += 1
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {new} bytes. GPU 0 is full.")
        self._holders[address] = self._holders.get(address, 0) + 1
        self.live += new
        self.peak = max(self.peak, self.live)

        def freed(_: Any) -> None:
            del self._alive[key]
            self._holders[address] -= 1
            if self._holders[address] == 0:
                del self._holders[address]
                self.live -= size

        self._alive[key] = weakref.ref(tensor, freed)

    def computed(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """What `func` gives, on the side where its tensors are, or where it was told to put it."""
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        assert not any(t.is_meta for t in given), f"{func} was given a tensor without numbers"
        told = kwargs.get("device")
        here = any(isinstance(t, OnDevice) for t in given) if told is None else torch.device(told).type != "cpu"
        self._refuse_mixed(func, args, kwargs)
        if here and isinstance(kwargs.get("generator"), torch.Generator):
            raise RuntimeError(f"Expected a '{self.device.type}' device type for generator but found 'cpu'")
        if told is not None:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        plain_args, plain_kwargs = tree_map_only(OnDevice, lambda t: t.inner, (args, kwargs))
        result = func(*plain_args, **plain_kwargs)
        if torch.Tag.inplace_view in func.tags:  # the shape that C++ knows changes too
            with no_dispatch():
                func(*args, **kwargs)
        if not here:
            return _other_memory(result, given) if func._overloadpacket is aten._to_copy else result
        known = {id(t.inner): t for t in given if isinstance(t, OnDevice)}
        mutated = any(a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments)
        return tree_map_only(
            Tensor, lambda t: known[id(t)] if mutated and id(t) in known else OnDevice(t, self), result
        )

    def _refuse_mixed(self, func: Any, args: Any, kwargs: dict[str, Any]) -> None:
        packet = func._overloadpacket
        if packet in _CROSSING:
            return
        checked = (args[0], *args[2:]) if packet in _INDEXING else args
        tensors = [t for t in tree_leaves((checked, kwargs)) if isinstance(t, Tensor)]
        foreign = [t for t in tensors if not isinstance(t, OnDevice)]
        if packet in _INDEXING and not isinstance(args[0], OnDevice):
            foreign, tensors = [args[0]], tree_leaves((args, kwargs))
        elif torch.Tag.pointwise in func.tags or packet in _INDEXING:  # a single number may come from the CPU
            written = args[0] if func._schema.is_mutable else None
            foreign = [t for t in foreign if t.dim() or t is written]
        if foreign and any(isinstance(t, OnDevice) for t in tensors):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{self.device} and cpu! (when calling {func})"
            )


def _other_memory(result: Any, given: list[Tensor]) -> Any:
    """A tensor that came over must not share memory with what is still on the device."""
    source = given[0].inner if isinstance(given[0], OnDevice) else given[0]
    return result.clone() if result.untyped_storage().data_ptr() == source.untyped_storage().data_ptr() else result
