"""Where to look: layers of a model found by name or by a probe, and their activations with gradients."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attrib.errors import InputError, UnsupportedModel
from attrib.outputs import logits_of

# class tokens, distillation tokens and registers in front of the patches
_MOST_PREFIX_TOKENS = 16
_MOST_STAGES = 4
_CHANNELS_FIRST = ("Conv2d", "BatchNorm2d", "InstanceNorm2d", "GroupNorm", "Pool2d")  # whatever their shapes look like
_PASSING = ("Pool", "Dropout", "DropPath", "Identity", "Flatten", "Upsample", "Pad")


@dataclass(frozen=True)
class Grid:
    """How a layer's output becomes (batch, channel, height, width)."""

    layout: str  # "channels_first", "channels_last" or "tokens"
    height: int
    width: int
    prefix: int = 0

    def maps(self, output: Tensor) -> Tensor:
        """The output as (batch, channel, height, width); tokens lose their prefix."""
        if self.layout == "channels_first":
            return output
        if self.layout == "channels_last":
            return output.permute(0, 3, 1, 2)
        return output[:, self.prefix :].transpose(1, 2).reshape(len(output), -1, self.height, self.width)


@dataclass(frozen=True)
class Visit:
    """One call of one module in a forward: when it returned, what, and which tensor that was."""

    path: str
    kind: str  # the module's class name
    shape: tuple[int, ...]
    tensor: int  # equal for calls that returned the very same tensor


@dataclass(frozen=True)
class Survey:
    """What a probe forward saw: module calls in the order of their returns."""

    visits: tuple[Visit, ...]
    size: tuple[int, int]
    n_classes: int

    @property
    def largest(self) -> int:
        """Numbers in the largest output of a layer, for one sample."""
        return max((math.prod(visit.shape) for visit in self.visits), default=0)

    def runs(self, path: str) -> int:
        """How many times the module of that path ran."""
        return sum(visit.path == path for visit in self.visits)

    def grid(self, shape: Sequence[int], path: str) -> Grid:
        """How an output of this shape lies on the picture. InputError where it does not."""
        kind = next((visit.kind for visit in self.visits if visit.path == path), "")
        grid = self._grid(tuple(shape), kind)
        if grid is None:
            raise InputError(
                f"layer {path!r} puts out {tuple(shape)}, which lies on no grid of positions; "
                "give a layer with (batch, channel, height, width) or (batch, tokens, width) output, "
                f"such as {self.last_stage()!r}"
            )
        return grid

    def _grid(self, shape: tuple[int, ...], kind: str = "") -> Grid | None:
        if len(shape) == 4:
            # Swin keeps (batch, height, width, channel): the sides agree with the picture's, the last does not
            last = _alike(shape[1:3], self.size) and not _alike(shape[2:4], self.size)
            last = last and not kind.endswith(_CHANNELS_FIRST)
            return Grid("channels_last", *shape[1:3]) if last else Grid("channels_first", *shape[2:4])
        if len(shape) != 3:
            return None
        seen = {v.shape[2:] for v in self.visits if len(v.shape) == 4 and _alike(v.shape[2:], self.size)}
        for prefix in range(_MOST_PREFIX_TOKENS + 1):
            for height, width in seen:
                if height * width > 1 and height * width + prefix == shape[1]:
                    return Grid("tokens", height, width, prefix)
        for prefix in range(_MOST_PREFIX_TOKENS + 1):
            height = round(max(0, (shape[1] - prefix) * self.size[0] / self.size[1]) ** 0.5)
            if (
                height > 1
                and (shape[1] - prefix) % height == 0
                and _alike((height, (shape[1] - prefix) // height), self.size)
            ):
                return Grid("tokens", height, (shape[1] - prefix) // height, prefix)
        return None

    def last_stage(self) -> str:
        """The layer to look at: a CNN's last features, a transformer's first norm of its last block."""
        return self.stages()[-1]

    def stages(self) -> tuple[str, ...]:
        """At most four layers, shallow to deep: the last features of each resolution, or norms of spread blocks."""
        features = self._features()
        blocks = self._blocks()
        if blocks and (not features or self.visits.index(blocks[-1]) > self.visits.index(features[-1][0])):
            chosen = sorted({(len(blocks) * (i + 1)) // _MOST_STAGES for i in range(_MOST_STAGES)} - {0})
            return tuple(blocks[i - 1].path for i in chosen)
        if not features:
            raise UnsupportedModel(
                "no layer of this model puts out (batch, channel, height, width) or tokens on a grid, "
                "so there is no map to read; use an input-level method such as integrated_gradients"
            )
        return tuple(visit.path for visit in self._outermost_of_each_size(features)[-_MOST_STAGES:])

    def _outermost_of_each_size(self, features: list[tuple[Visit, Grid]]) -> list[Visit]:
        """The last output of each resolution, deep inside a module only where nothing further out has it."""
        chosen: dict[tuple[int, int], Visit] = {}
        for visit, grid in features:
            known = chosen.get((grid.height, grid.width))
            if known is None or visit.path.count(".") <= known.path.count("."):
                chosen[grid.height, grid.width] = visit
        ordered = sorted(chosen.items(), key=lambda item: self.visits.index(item[1]))
        # what grows again on the way is no stage: the table of an attention, say
        smallest = [min(height * width for (height, width), _ in ordered[: i + 1]) for i in range(len(ordered))]
        return [v for ((height, width), v), least in zip(ordered, smallest, strict=True) if height * width == least]

    def _features(self) -> list[tuple[Visit, Grid]]:
        """Outputs with height and width, each under its outermost name, in the order of their last returns."""
        made: dict[int, tuple[Visit, Grid]] = {}
        unwanted: set[int] = set()
        last_linear = max(
            (i for i, v in enumerate(self.visits) if v.kind.endswith("Linear") and len(v.shape) == 2), default=-1
        )
        inside = tuple(f"{path}." for path in self._token_blocks())
        for place, visit in enumerate(self.visits):
            grid = self._grid(visit.shape, visit.kind) if len(visit.shape) == 4 else None
            passing = any(word in visit.kind for word in _PASSING)
            if passing and visit.tensor not in made:
                unwanted.add(visit.tensor)
            if grid is None or grid.height * grid.width == 1 or not _alike((grid.height, grid.width), self.size):
                continue
            channels = visit.shape[1 if grid.layout == "channels_first" else 3]
            is_class_map = channels == self.n_classes and place > last_linear
            if passing or is_class_map or not visit.path or visit.path.startswith(inside) or visit.tensor in unwanted:
                continue
            made.pop(visit.tensor, None)
            made[visit.tensor] = (visit, grid)
        return list(made.values())

    def _token_blocks(self) -> list[str]:
        """Numbered siblings of one kind that put out tokens: the blocks of a transformer, and much inside them."""
        families: dict[tuple[str, str], list[str]] = {}
        for visit in self.visits:
            if visit.path[-1:].isdigit() and len(visit.shape) == 3 and self._grid(visit.shape) is not None:
                families.setdefault((visit.path.rpartition(".")[0], visit.kind), []).append(visit.path)
        return [path for family in families.values() if len(family) > 1 for path in family]

    def _blocks(self) -> list[Visit]:
        """The first norm inside every transformer block, in order."""
        norms = [v for v in self.visits if len(v.shape) == 3 and "Norm" in v.kind and self._grid(v.shape) is not None]
        firsts = [next((n for n in norms if n.path.startswith(path + ".")), None) for path in self._token_blocks()]
        return sorted({id(n): n for n in firsts if n is not None}.values(), key=self.visits.index)


def _alike(sides: Sequence[int], size: Sequence[int]) -> bool:
    """Whether two sides have the proportions of the picture, up to the rounding of one step."""
    height, width = sides[0], sides[1]
    return abs(height * size[1] - width * size[0]) < max(size) * 1.5 and height <= size[0] and width <= size[1]


_surveys: weakref.WeakKeyDictionary[nn.Module, dict[Any, Survey]] = weakref.WeakKeyDictionary()


def survey(model: nn.Module, twin: nn.Module, x: Tensor) -> Survey:
    """What one forward of the twin on the first sample shows; remembered on behalf of `model` per shape."""
    key = (tuple(x.shape[1:]), hash(tuple(name for name, _ in model.named_modules())))
    known = _surveys.setdefault(model, {})
    if key not in known:
        known[key] = _probe(twin, x[:1])
    return known[key]


def _probe(twin: nn.Module, x: Tensor) -> Survey:
    visits: list[Visit] = []
    keep: list[Tensor] = []  # so that no id is used twice
    paths: dict[int, str] = {}
    for path, module in twin.named_modules():
        paths.setdefault(id(module), path)

    def note(module: nn.Module, args: Any, output: Any) -> None:
        tensor = first_tensor(output)
        # attention inside windows has more rows than the one sample has
        if tensor is not None and tensor.shape[:1] == (1,):
            keep.append(tensor)
            visits.append(Visit(paths[id(module)], type(module).__name__, tuple(tensor.shape), id(tensor)))

    with ExitStack() as stack, torch.no_grad():
        for module in twin.modules():
            stack.callback(module.register_forward_hook(note).remove)
        outputs = twin(x.clone())  # which it may change in place
    try:
        n_classes = logits_of(outputs).shape[1]
    except (UnsupportedModel, IndexError):
        n_classes = 0  # a callable target reads what logits_of cannot
    return Survey(tuple(visits), (x.shape[2], x.shape[3]), n_classes)


def first_tensor(output: Any) -> Tensor | None:
    """The output itself, or the first floating tensor of a tuple, list or dict."""
    if isinstance(output, Tensor):
        return output
    values = list(output.values()) if isinstance(output, dict) else output
    if isinstance(values, (tuple, list)):
        return next((v for v in values if isinstance(v, Tensor) and v.is_floating_point()), None)
    return None
