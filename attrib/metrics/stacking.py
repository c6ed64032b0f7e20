"""Maps of many randomised networks at once: a twin that computes every row with the weights of that row's stage.

For networks whose layers treat every row by itself, and methods that ask for one gradient and look at no module:
a batch of stages then is one forward and one backward, where a pass of a single picture leaves most of a machine idle.
What comes before a stage's first random layer is computed once for all of them. All else is explained stage by stage.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from attrib.errors import UnsupportedModel
from attrib.failures import is_out_of_memory, named_failures
from attrib.memory import ChunkPlan, give_back
from attrib.methods.backprop import DeconvNet, GuidedBackprop
from attrib.methods.base import Method, Question
from attrib.methods.gradient import InputXGradient, Saliency
from attrib.methods.passes import about, pack_weights, quick_rows
from attrib.metrics.base import Subject
from attrib.metrics.reseeding import Draw, Stage
from attrib.metrics.trial import Demand, Trial
from attrib.outputs import agree, logits_of
from attrib.rules.products import QuickProducts
from attrib.rules.shadow import shadow

_METHODS = (Saliency, InputXGradient, GuidedBackprop, DeconvNet)
_BY_ROW = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
_CLOSE = 1e-4  # of the largest logit
_known: weakref.WeakKeyDictionary[nn.Module, dict[Any, bool]] = weakref.WeakKeyDictionary()


def maps_of(trial: Trial, subject: Subject, draw: Draw, stages: Sequence[Stage]) -> Iterator[Tensor]:
    """(batch, *sites): the subject's maps anew for every stage, one after the other."""
    method, at_once = subject.method, 1
    if method is not None and _stacks(trial, subject, draw):
        question = replace(trial.question, max_rows=len(stages) * len(trial))  # more at once: each weight is used once
        most = quick_rows(question, question.max_rows)
        plan = ChunkPlan.of(trial.model, Demand(method.memory_factor), trial.encoded, trial.max_memory, most)
        at_once = plan.rows // len(trial)
    if method is None or min(at_once, len(stages)) < 2:
        yield from (_alone(trial, subject, draw, stage) for stage in stages)
        return
    base = shadow(trial.model.module)
    if _packs(trial):
        pack_weights(base)
    for part in parts_of(stages, at_once):
        if _packs(trial):
            for place in {place for stage in part for place in stage.layers}:
                pack_weights(draw.layer(place))
        found = _together(trial, method, draw, part, base)
        yield from (_alone(trial, subject, draw, stage) for stage in part) if found is None else found


def _alone(trial: Trial, subject: Subject, draw: Draw, stage: Stage) -> Tensor:
    return subject.again(trial.with_module(draw.twin(stage.layers)), trial.encoded.x, trial.target)


def _together(
    trial: Trial, method: Method, draw: Draw, stages: Sequence[Stage], base: nn.Module
) -> list[Tensor] | None:
    """Maps of these stages in one pass; None where they do not fit into memory together."""
    batch = len(trial)
    rows = torch.arange(batch, device=trial.encoded.x.device).repeat(len(stages))
    x = trial.encoded.x[rows]
    if _packs(trial):
        x = x.contiguous(memory_format=torch.channels_last)
    twin = stacked(draw, base, [stage.layers for stage in stages], batch)
    question = about(Question(trial.model, twin, trial.encoded.x, trial.target, len(x)), x, rows)
    try:
        with named_failures(trial.model.name, twin, x), QuickProducts():
            finding = method.explain(question)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    else:
        return list(trial.maps(finding).split(batch))
    give_back(x.device)
    return None


def parts_of(stages: Sequence[Stage], at_once: int) -> Iterator[Sequence[Stage]]:
    """As few parts as have at most `at_once` stages each, of nearly the same size."""
    while stages:
        size = -(-len(stages) // -(-len(stages) // at_once))
        yield stages[:size]
        stages = stages[size:]


def stacked(draw: Draw, base: nn.Module, stages: Sequence[range], batch: int) -> nn.Module:
    """A twin of `base` for stages × batch rows, those of one stage together, in which these layers are random.

    For one forward, of the same inputs in every stage.
    """
    twin = shadow(base)
    swapped: dict[int, nn.Module] = {}
    apart: set[int] = set()
    for place, path in enumerate(draw.paths):
        own = twin.get_submodule(path)
        swapped[id(own)] = _ByRow(
            [draw.layer(place) if place in layers else own for layers in stages], own, batch, apart
        )
    for parent in list(twin.modules()):
        for name, child in parent._modules.items():
            parent._modules[name] = swapped.get(id(child), child)
    return twin


class _ByRow(nn.Module):
    """Each stage's rows by the layer of that stage; rows that are still the same by one of them.

    apart: the stages that have come upon a random layer, which all layers of one twin tell each other.
    """

    def __init__(self, layers: Sequence[nn.Module], own: nn.Module, batch: int, apart: set[int]) -> None:
        super().__init__()
        self.layers, self.own, self.batch, self.apart = list(layers), own, batch, apart

    def forward(self, x: Tensor) -> Tensor:
        if len(x) != len(self.layers) * self.batch:
            raise UnsupportedModel(f"{len(x)} rows where there are {len(self.layers) * self.batch}")
        self.apart |= {stage for stage, layer in enumerate(self.layers) if layer is not self.own}
        runs = [list(run) for _, run in groupby(range(len(self.layers)), key=self._kind)]
        parts = x.split([len(run) * self.batch for run in runs])
        found = [self._ran(self.layers[run[0]], part, run[0]) for run, part in zip(runs, parts, strict=True)]
        return found[0] if len(found) == 1 else torch.cat(found)

    def _kind(self, stage: int) -> tuple[int, bool]:
        return id(self.layers[stage]), stage in self.apart

    def _ran(self, layer: nn.Module, x: Tensor, stage: int) -> Tensor:
        same = stage not in self.apart and len(x) > self.batch and _is_plain(layer)
        found: Tensor = _Once.apply(x, layer, self.batch) if same else layer(x)
        return found


def _is_plain(layer: nn.Module) -> bool:
    return type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and isinstance(layer.padding, tuple)


class _Once(torch.autograd.Function):
    """A convolution of rows that repeat the first `batch`, computed on these; its gradients may differ by row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Conv2d, batch: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.layer = layer
        first: Tensor = layer(x[:batch])
        return torch.cat([first] * (len(x) // batch))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,), layer = ctx.saved_tensors, ctx.layer
        how = (layer.stride, layer.padding, layer.dilation, False, [0, 0], layer.groups, [True, False, False])
        return torch.ops.aten.convolution_backward(gradients[0], x, layer.weight, None, *how)[0], None, None


def _packs(trial: Trial) -> bool:
    x = trial.encoded.x
    return x.device.type == "cpu" and x.dtype == torch.float32 and trial.question.takes_channels_last


def _stacks(trial: Trial, subject: Subject, draw: Draw) -> bool:
    """Whether a stacked twin would give the subject's maps; remembered on behalf of the module per shape."""
    if type(subject.method) not in _METHODS or trial.is_text or trial.target.positive is None:
        return False
    x, module = trial.encoded.x, draw.module
    key = (tuple(x.shape[1:]), x.dtype, x.device.type)
    known = _known.setdefault(module, {})
    if key not in known:
        layers = [module.get_submodule(path) for path in draw.paths]
        known[key] = all(path and isinstance(one, _BY_ROW) for path, one in zip(draw.paths, layers, strict=True)) and (
            _agrees(trial, draw)
        )
    return known[key]


def _agrees(trial: Trial, draw: Draw) -> bool:
    """Whether a trained, a half random and a random network stacked say what each of them says by itself."""
    x, layers = trial.encoded.x[:1], len(draw.paths)
    stages = [range(0), range(0), range(layers // 2), range(layers)]
    base = shadow(draw.module)
    with torch.no_grad():
        try:
            both = logits_of(trial.model.forward(stacked(draw, base, stages, 1), x.repeat(len(stages), 1, 1, 1), {}))
            each = [logits_of(trial.model.forward(draw.twin(stage), x, {})) for stage in stages]
        except Exception:  # the module is anybody's code; what fails by itself too fails again where it is told
            return False
    return agree(both, torch.cat(each), _CLOSE)
