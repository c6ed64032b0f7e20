"""Maps of many randomised networks at once: a twin that computes every row with the weights of that row's stage.

For networks whose layers treat every row by itself, and methods that ask for one gradient and look at no module:
a batch of stages then is one forward and one backward, where a pass of a single picture leaves most of a machine idle.
What comes before a stage's first random layer is computed once for all of them. All else is explained stage by stage.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from attrib.failures import is_out_of_memory, named_failures
from attrib.memory import ChunkPlan, give_back
from attrib.methods.backprop import DeconvNet, GuidedBackprop
from attrib.methods.base import Method, Question
from attrib.methods.gradient import InputXGradient, Saliency
from attrib.methods.passes import about, quick_rows
from attrib.metrics.base import Subject
from attrib.metrics.reseeding import Draw, Stage
from attrib.metrics.stacked import BY_ROW, stacked
from attrib.metrics.trial import Demand, Trial
from attrib.outputs import logits_of
from attrib.rules.products import QuickProducts

_METHODS = (Saliency, InputXGradient, GuidedBackprop, DeconvNet)
_DENSE = 2  # times as many rows as elsewhere: convolutions are most of what a stacked twin does
_CLOSE = 1e-4  # of the largest logit
_known: weakref.WeakKeyDictionary[nn.Module, dict[Any, bool]] = weakref.WeakKeyDictionary()


def maps_of(trial: Trial, subject: Subject, draw: Draw, stages: Sequence[Stage]) -> Iterator[Tensor]:
    """(batch, *sites): the subject's maps anew for every stage, one after the other."""
    method, at_once = subject.method, 1
    if method is not None and _stacks(trial, subject, draw):
        question = replace(trial.question, max_rows=len(stages) * len(trial))  # more at once: each weight is used once
        most = _DENSE * quick_rows(question, question.max_rows)
        plan = ChunkPlan.of(trial.model, Demand(method.memory_factor), trial.encoded, trial.max_memory, most)
        at_once = plan.rows // len(trial)
    if method is None or min(at_once, len(stages)) < 2:
        yield from (_alone(trial, subject, draw, stage) for stage in stages)
        return
    for part in parts_of(stages, at_once):
        found = _together(trial, method, draw, part)
        yield from (_alone(trial, subject, draw, stage) for stage in part) if found is None else found


def _alone(trial: Trial, subject: Subject, draw: Draw, stage: Stage) -> Tensor:
    return subject.again(trial.with_module(draw.twin(stage.layers)), trial.encoded.x, trial.target)


def _together(trial: Trial, method: Method, draw: Draw, stages: Sequence[Stage]) -> list[Tensor] | None:
    """Maps of these stages in one pass; None where they do not fit into memory together."""
    batch = len(trial)
    rows = torch.arange(batch, device=trial.encoded.x.device).repeat(len(stages))
    x = trial.encoded.x[rows]
    if _packs(trial):
        x = x.contiguous(memory_format=torch.channels_last)
    twin = stacked(draw, [stage.layers for stage in stages], batch)
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
        known[key] = all(path and isinstance(one, BY_ROW) for path, one in zip(draw.paths, layers, strict=True)) and (
            _agrees(trial, draw)
        )
    return known[key]


def _agrees(trial: Trial, draw: Draw) -> bool:
    """Whether a trained, a half random and a random network stacked say what each of them says by itself."""
    x, layers = trial.encoded.x[:1], len(draw.paths)
    stages = [range(0), range(0), range(layers // 2), range(layers)]
    with torch.no_grad():
        try:
            both = logits_of(trial.model.forward(stacked(draw, stages, 1), x.repeat(len(stages), 1, 1, 1), {}))
            each = [logits_of(trial.model.forward(draw.twin(stage), x, {})) for stage in stages]
        except Exception:  # the module is anybody's code; what fails by itself too fails again where it is told
            return False
    known = torch.cat(each)
    near = (both - known).flatten(1).abs().amax(1) <= _CLOSE * known.flatten(1).abs().amax(1)
    return both.shape == known.shape and bool(near.all())
