"""Maps of many randomised networks at once: a twin that computes every row with the weights of that row's stage.

For networks whose layers treat every row by itself, and methods that ask for one gradient and look at no module:
a batch of stages then is one forward and one backward, where a pass of a single picture leaves most of a machine idle.
All else is explained stage by stage.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
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
from attrib.methods.passes import about, pack_weights
from attrib.metrics.base import Subject
from attrib.metrics.reseeding import Draw, Stage
from attrib.metrics.trial import Demand, Trial
from attrib.rules.products import QuickProducts
from attrib.rules.shadow import shadow
from attrib.targets import logits_of

_METHODS = (Saliency, InputXGradient, GuidedBackprop, DeconvNet)
_BY_ROW = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
_CLOSE = 1e-4  # of the largest logit
_known: weakref.WeakKeyDictionary[nn.Module, dict[Any, bool]] = weakref.WeakKeyDictionary()


def maps_of(trial: Trial, subject: Subject, draw: Draw, stages: Sequence[Stage]) -> Iterator[Tensor]:
    """(batch, *sites): the subject's maps anew for every stage, one after the other."""
    method, at_once = subject.method, 1
    if method is not None and _stacks(trial, subject, draw):
        plan = ChunkPlan.of(trial.model, Demand(method.memory_factor), trial.encoded, trial.max_memory)
        at_once = plan.rows // len(trial)
    if method is None or min(at_once, len(stages)) < 2:
        yield from (_alone(trial, subject, draw, stage) for stage in stages)
        return
    base = shadow(trial.model.module)
    if _packs(trial):
        pack_weights(base)
    for start in range(0, len(stages), at_once):
        part = stages[start : start + at_once]
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


def stacked(draw: Draw, base: nn.Module, stages: Sequence[range], batch: int) -> nn.Module:
    """A twin of `base` for stages × batch rows, those of one stage together, in which these layers are random."""
    twin = shadow(base)
    swapped: dict[int, nn.Module] = {}
    for place, path in enumerate(draw.paths):
        random = [place in layers for layers in stages]
        if any(random):
            own, drawn = twin.get_submodule(path), draw.layer(place)
            swapped[id(own)] = _ByRow([drawn if one else own for one in random], batch)
    for parent in list(twin.modules()):
        for name, child in parent._modules.items():
            parent._modules[name] = swapped.get(id(child), child)
    return twin


class _ByRow(nn.Module):
    """Each stage's rows by the layer of that stage."""

    def __init__(self, layers: Sequence[nn.Module], batch: int) -> None:
        super().__init__()
        runs = [list(run) for _, run in groupby(layers, key=id)]
        self.layers = nn.ModuleList(run[0] for run in runs)
        self.rows = [len(run) * batch for run in runs]

    def forward(self, x: Tensor) -> Tensor:
        if len(x) != sum(self.rows):
            raise UnsupportedModel(f"{len(x)} rows where there are {sum(self.rows)}")
        parts = x.split(self.rows)
        if len(parts) == 1:
            return self.layers[0](x)  # type: ignore[no-any-return]
        return torch.cat([layer(part) for layer, part in zip(self.layers, parts, strict=True)])


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
    """Whether a trained and a random network stacked say what each of them says by itself."""
    x, whole = trial.encoded.x[:1], range(len(draw.paths))
    base = shadow(draw.module)
    with torch.no_grad():
        try:
            both = logits_of(trial.model.forward(stacked(draw, base, [range(0), whole], 1), x.repeat(2, 1, 1, 1), {}))
            each = [logits_of(trial.model.forward(twin, x, {})) for twin in (base, draw.twin(whole))]
        except Exception:  # the module is anybody's code; what fails by itself too fails again where it is told
            return False
    known = torch.cat(each)
    near = (both - known).flatten(1).abs().amax(1) <= _CLOSE * known.flatten(1).abs().amax(1)
    return both.shape == known.shape and bool(near.all())
