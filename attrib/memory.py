"""How many rows one pass may hold, so that activations stay under a limit."""

from __future__ import annotations

import gc
import math
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import psutil
import torch
from torch import Tensor

from attrib.apart import NOTES, oddity_of
from attrib.errors import InputError
from attrib.failures import is_out_of_memory, named_failures
from attrib.rules.shadow import shadow

if TYPE_CHECKING:
    from attrib.models.encoded import Encoded
    from attrib.models.text import TextModel
    from attrib.models.vision import VisionModel

_TOO_LARGE = "one input alone does not fit into the device's memory; use a smaller one"
_UNMEASURED = "don't yet support saved tensor hooks"  # what torch.func.grad says, which looks at nothing inside it
_RAN_OUT = "the device ran out of memory"
# more rows at once gain nothing on a CPU and cost memory; a GPU needs many to be busy
_MOST_ROWS = {"cpu": 16, "cuda": 256, "mps": 32}


class Demand(Protocol):
    """What a plan asks of a method, or of anything else that runs the model: see `Method`."""

    @property
    def single_pass(self) -> bool: ...
    @property
    def memory_factor(self) -> float: ...
    @property
    def attention_copies(self) -> float: ...


@dataclass(frozen=True)
class ChunkPlan:
    """rows: how many rows one forward with its backward may hold. notes: what the caller should know."""

    rows: int
    notes: tuple[str, ...] = ()

    @staticmethod
    def of(
        model: VisionModel | TextModel, method: Demand, encoded: Encoded, max_memory: int | None, most: int = 0
    ) -> ChunkPlan:
        """The plan for `method` on the inputs x; a single pass over a single input needs no measuring.

        most: rows that are quickest at once, where that is known to be more than this kind of device's usual number.
        """
        if max_memory is not None and not (isinstance(max_memory, (int, float)) and max_memory > 0):
            given = f"max_memory = {max_memory!r}"
            raise InputError(f"{given}: give bytes, such as 2_000_000_000, or None for half of what is free")
        x = encoded.x
        opened = attention_bytes(model, x) * method.attention_copies
        if opened and opened > free_memory(x.device):  # a system that lends more than it has would end the process
            raise InputError(
                f"{model.name}'s attention over {x.shape[1]} tokens, which this method opens, takes about "
                f"{opened / 1e9:.0f} GB, more than is free; shorten it, or take a method that does not, as lrp"
            )
        most = max(most, _MOST_ROWS.get(x.device.type, 16))
        if len(x) == 1 and method.single_pass and max_memory is None:
            return ChunkPlan(1)
        budget = free_memory(x.device) // 2 if max_memory is None else max_memory
        needed = max(1.0, activation_bytes(model, x, encoded.extra) * method.memory_factor + opened)
        oddity = oddity_of(model.module, lambda: partial(model.forward, shadow(model.module)), x, encoded.extra)
        notes = (NOTES[oddity],) if NOTES[oddity] else ()
        rows = 1 if oddity in ("mixes", "remembers") else int(budget // needed)
        if rows < 1:
            note = f"one input needs {needed / 1e6:.0f} MB, more than the limit of {budget / 1e6:.0f} MB"
            return ChunkPlan(1, (*notes, note))
        return ChunkPlan(min(rows, most), notes)

    def halved(self, error: BaseException, used: int) -> ChunkPlan:
        """The plan to go on with after the device ran out of memory with `used` rows at once."""
        if self.rows == 1 or used == 1:
            raise InputError(_TOO_LARGE) from error
        rows = min(self.rows, used) // 2
        notes = tuple(note for note in self.notes if not note.startswith(_RAN_OUT))
        return replace(self, rows=rows, notes=(*notes, f"{_RAN_OUT}; with {rows} or fewer rows at once it sufficed"))


def give_back(device: torch.device) -> None:
    """Free what a failed run left behind: what only refers to itself, and what torch keeps for later."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on `device`."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def attention_bytes(model: VisionModel | TextModel, x: Tensor) -> int:
    """Bytes of the attention matrices of one row of tokens, all layers and heads; 0 where no config tells."""
    config: Any = getattr(model.module, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    counts = [getattr(config, f"num_{of}", None) for of in ("hidden_layers", "attention_heads")]
    if model.kind != "text" or not all(isinstance(count, int) for count in counts):
        return 0
    return math.prod(counts) * x.shape[1] ** 2 * x.element_size()  # type: ignore[arg-type]


def activation_bytes(model: VisionModel | TextModel, x: Tensor, extra: dict[str, Tensor]) -> int:
    """Bytes that autograd keeps for one row of x: measured once per shape and remembered on the model."""
    key = (tuple(x.shape[1:]), x.dtype, x.device.type)
    if key not in model.measured_bytes:
        try:
            model.measured_bytes[key] = _measure(model, x[:1], {name: value[:1] for name, value in extra.items()})
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise InputError(_TOO_LARGE) from error
            raise
    return model.measured_bytes[key]


def _measure(model: VisionModel | TextModel, x: Tensor, extra: dict[str, Tensor]) -> int:
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Any:
        with suppress(RuntimeError):  # sparse, or it stands for another: inside torch.func and torch.cond
            storage = tensor.untyped_storage()
            if tensor.shape[:1] != () and storage.data_ptr() not in weights:
                storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    twin = shadow(model.module)
    weights = {t.untyped_storage().data_ptr() for t in (*twin.state_dict().values(),)}
    leaf = x.detach().requires_grad_()
    watched = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with named_failures(model.name, twin, x), torch.enable_grad():
        try:
            with watched:
                model.forward(twin, leaf.clone(), extra)
        except RuntimeError as error:
            if _UNMEASURED not in str(error):
                raise
            return free_memory(x.device)  # one row at a time
    return max(sum(storages.values()), math.prod(x.shape) * x.element_size())
