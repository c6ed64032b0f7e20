"""The course of the residual stream by itself: what is added to it and which norms it passes, components left out.

Where norms stand in front of attention and MLP, the stream is one sum. Norms behind a component (Gemma, OLMo2) or on
the stream (BERT, GPT-1) cut it into stretches. An input sees a sender along this course alone: not through what other
components make of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from attrib.patching.places import Place
from attrib.patching.structure import Joining, Norm, Passing, Structure, Weight


@dataclass(frozen=True)
class Stretch:
    """Contributions that are added together. senders: which of them, in the order they are computed.

    places: what adds up to the contributions and their biases. by: what that sum passes before it joins the stream.
    behind: what the stream passes then.
    """

    senders: tuple[int, int]
    places: tuple[Place, ...]
    by: tuple[Passing, ...] = ()
    behind: tuple[Passing, ...] = ()

    @property
    def part(self) -> slice:
        return slice(*self.senders)

    @property
    def norms(self) -> tuple[Place, ...]:
        """Inputs and outputs of the modules that are passed."""
        norms = [step for step in (*self.by, *self.behind) if isinstance(step, Norm)]
        return tuple(place for norm in norms for place in (norm.given, norm.made))


Course = tuple[Stretch, ...]


def courses(structure: Structure, spans: Mapping[Place, tuple[int, int]]) -> dict[Place, Course]:
    """Where inputs read the stream → the stretches up to there. spans: the senders that each joining's place holds.

    Every layer has a course: the caller has looked.
    """
    course: list[Stretch] = [Stretch((0, 1), (structure.layers[0].pre,))]
    found: dict[Place, Course] = {}
    for layer in structure.layers:
        found[layer.pre] = tuple(course)
        for step in layer.course or ():
            if step == "mid":
                found |= {} if layer.mid is None else {layer.mid: tuple(course)}
            elif isinstance(step, Joining):
                course = _joined(course, step, spans[step.place])
            else:
                course[-1] = replace(course[-1], behind=(*course[-1].behind, step))
    return found | {structure.layers[-1].post: tuple(course)}


def _joined(course: list[Stretch], joining: Joining, span: tuple[int, int]) -> list[Stretch]:
    last = course[-1]
    if joining.by or last.by or last.behind:
        return [*course, Stretch(span, (joining.place,), joining.by)]
    senders = (min(last.senders[0], span[0]), max(last.senders[1], span[1]))
    return [*course[:-1], replace(last, senders=senders, places=(*last.places, joining.place))]


def stream(course: Course, twin: nn.Module, added: Callable[[Stretch], Tensor]) -> Tensor:
    """The stream at the end of the course, with what is `added` in each stretch before it passes anything."""
    total: Tensor | None = None
    for stretch in course:
        joining = _passed(twin, stretch.by, added(stretch))
        total = _passed(twin, stretch.behind, joining if total is None else total + joining)
    assert total is not None, "a course begins with the embeddings"
    return total


def _passed(twin: nn.Module, by: Sequence[Passing], tensor: Tensor) -> Tensor:
    for step in by:
        if isinstance(step, Norm):
            tensor = step.of(twin, tensor)
        elif isinstance(step, Weight):
            tensor = tensor * step.of(twin) if step.does == "scale" else tensor + step.of(twin)
        else:
            tensor = tensor * step
    return tensor


def reproduces(course: Course, twin: nn.Module, values: Mapping[Place, Tensor], at: Place) -> bool:
    """Whether what was read in a run, put together along the course, is the stream that was read there.

    Up to rounding, which is far below what a norm left out changes.
    """
    true = values[at]

    def added(stretch: Stretch) -> Tensor:  # some models flatten prompts and tokens
        return torch.stack([values[place].reshape(true.shape) for place in stretch.places]).sum(0)

    with torch.no_grad():
        found = stream(course, twin, added)
    tolerance = math.sqrt(torch.finfo(true.dtype).eps) * float(true.abs().max())
    return float((found - true).abs().max()) <= tolerance


def passed_back(
    course: Course,
    twin: nn.Module,
    coefficients: list[Tensor],
    links: Mapping[Place, GradientEdge],
    values: Mapping[Place, Tensor],
) -> Iterator[tuple[slice, list[Tensor]]]:
    """(senders, their coefficients) of each stretch, from coefficients of the stream at the end of the course.

    links, values: of a graded run, at the stretches' norms. One entry for each input that reads the stream there.
    """
    for stretch in reversed(course):
        coefficients = _back(twin, stretch.behind, coefficients, links, values)
        yield stretch.part, _back(twin, stretch.by, coefficients, links, values)


def _back(
    twin: nn.Module,
    by: Sequence[Passing],
    coefficients: list[Tensor],
    links: Mapping[Place, GradientEdge],
    values: Mapping[Place, Tensor],
) -> list[Tensor]:
    for step in reversed(by):
        if isinstance(step, Norm):
            ends, shape = ([links[step.made]], [links[step.given]]), values[step.made].shape  # some flatten tokens
            coefficients = [torch.autograd.grad(*ends, [c.reshape(shape)], retain_graph=True)[0] for c in coefficients]
        elif not isinstance(step, Weight):
            coefficients = [c * step for c in coefficients]
        elif step.does == "scale":
            coefficients = [c * step.of(twin) for c in coefficients]
    return coefficients
