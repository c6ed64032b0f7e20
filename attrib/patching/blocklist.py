"""Which modules of a trace are the blocks, and what stands behind the last one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from attrib.errors import UnsupportedModel
from attrib.patching.trace import Trace, Visit


def blocks_of(name: str, twin: nn.Module, trace: Trace) -> list[Visit]:
    """The calls of the largest list of like modules that run one after the other, each once."""
    best: list[Visit] = []
    repeated: list[Visit] = []
    for path, module in twin.named_modules():
        if not isinstance(module, nn.ModuleList) or len({type(m) for m in module}) != 1:
            continue
        inside = {f"{path}.{i}" if path else str(i) for i in range(len(module))}
        visits = [visit for visit in trace.visits if visit.path in inside]
        if len({v.path for v in visits}) < len(visits):
            repeated = max(repeated, visits, key=len)
        elif len(visits) > len(best) and all(v.inputs for v in visits):
            best = visits
    if len(repeated) > len(best):
        raise UnsupportedModel(
            f"{name} runs {repeated[0].path!r} {len(repeated)} times in one forward: its layers share their modules, "
            "so a site cannot be told from the same one of another layer; methods on single texts explain this model"
        )
    if not best:
        raise UnsupportedModel(
            f"{name} has no list of blocks that run one after the other, each once: its layers have no sites"
        )
    return best


def leaves_behind(twin: nn.Module, trace: Trace, last: Visit) -> list[Visit]:
    """Leaf modules that run after the last block."""
    leaf = {path for path, module in twin.named_modules() if next(module.children(), None) is None}
    return [visit for visit in trace.visits[trace.visits.index(last) + 1 :] if visit.path in leaf]


def final_norm_of(twin: nn.Module, trace: Trace, last: Visit, behind: Sequence[Visit]) -> str | None:
    """The norm that reads what the last block puts out, if there is one."""
    norms = (v.path for v in behind if v.inputs[:1] == (last.output,) and _is_norm(twin, trace, v))
    return next(norms, None)


def _is_norm(twin: nn.Module, trace: Trace, visit: Visit) -> bool:
    return trace.nodes[visit.output].kind == "pointwise" and bool(twin.get_submodule(visit.path)._parameters)


def head_of(name: str, trace: Trace, behind: Sequence[Visit]) -> str:
    """The last weight matrix, which makes the logits. Raises UnsupportedModel where there is none."""
    matrices = [visit.path for visit in behind if trace.nodes[visit.output].kind == "matrix"]
    if not matrices:
        raise UnsupportedModel(f"{name} has no head behind its last block: no weight matrix makes its logits")
    return matrices[-1]
