"""A machine with the pretended device: factories reach it, torch.cuda answers for it, backward passes have a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from pretend import Memory, OnDevice
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack
from torch.utils._pytree import tree_leaves


class _Reach(TorchDispatchMode):
    """The device in reach: inside `with`, this thread's factories make tensors on it, and torch.cuda answers for it."""

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self.memory = memory

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        told = (kwargs or {}).get("device")
        on_it = any(isinstance(t, OnDevice) for t in tree_leaves((args, kwargs)))
        if on_it or (told is not None and torch.device(told).type != "cpu"):
            return self.memory.computed(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


@contextmanager
def device(kind: str = "cuda", **settings: Any) -> Iterator[Memory]:
    """A pretended device while the `with` lasts; settings: those of Memory. Name it "cuda:0", with its index."""
    memory = Memory(kind, **settings)
    answers: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "is_available": lambda: kind == "cuda",
        "device_count": lambda: int(kind == "cuda"),
        "current_device": lambda: 0,
        "get_device_name": lambda *_: "pretended",
        "mem_get_info": lambda *_: (memory.free(), memory.capacity or 1 << 33),
        "max_memory_allocated": lambda *_: memory.peak,
        "reset_peak_memory_stats": lambda *_: setattr(memory, "peak", memory.live),
        "get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda *_: None,
        "manual_seed_all": lambda seed: None,
        "synchronize": lambda *_: None,
        "empty_cache": lambda: None,
    }
    only_cpu = torch._C._only_lift_cpu_tensors()
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        stack.enter_context(mock.patch.object(torch.backends.cudnn, "is_acceptable", return_value=False))
        stack.enter_context(mock.patch.object(torch.autograd, "_engine_run_backward", _in_a_thread))
        stack.callback(torch._C._set_only_lift_cpu_tensors, only_cpu)
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor then builds here and moves, through the dispatcher
        stack.enter_context(_Reach(memory))
        yield memory


_run_backward = torch.autograd._engine_run_backward


def _in_a_thread(*args: Any, **kwargs: Any) -> Any:
    """Autograd gives each GPU a thread, which takes over the caller's modes but not its Python frames or locals."""
    functions, dispatch = _get_current_function_mode_stack(), _get_current_dispatch_mode_stack()
    disabled, ended = torch._C._is_torch_function_all_disabled(), []

    def run() -> None:
        try:
            with ExitStack() as stack:
                for mode in dispatch:
                    stack.enter_context(mode)
                for mode in functions:
                    stack.enter_context(mode)
                if disabled:
                    stack.enter_context(torch._C.DisableTorchFunction())
                ended.append((_run_backward(*args, **kwargs), None))
        except BaseException as error:
            ended.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    ((result, error),) = ended
    if error is not None:
        raise error
    return result
