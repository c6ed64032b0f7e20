"""attrib.circuit: the strongest edges of a result, and what the model does on them alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attrib.attribution import Attribution, labels_of
from attrib.errors import InputError, PromptPairError, UnknownName
from attrib.methods.activation_patching import prompts_of
from attrib.methods.base import Question
from attrib.methods.pairs import of_rows
from attrib.patching.circuit import Circuit, Cut, Size
from attrib.patching.edges import EdgeGraph, edge_graph
from attrib.patching.effects import EdgeEffect
from attrib.patching.on_edges import metrics_on_edges
from attrib.patching.pair import Pair, encode_pair
from attrib.patching.probing import structure_of
from attrib.patching.prompt import Prompt
from attrib.patching.selecting import Keep, Selection, count_of, selected
from attrib.rows import rows_of, says_where
from attrib.rules.shadow import shadow
from attrib.targets import Targets
from attrib.verification import target_of

if TYPE_CHECKING:
    from attrib.models.text import TextModel

ABLATIONS = ("corrupted", "mean")
SIZES: tuple[Keep, ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
_CUT = 5  # edges, the strongest, that are cut out of the whole model one at a time


def circuit(
    model: TextModel,
    inputs: Pair,
    result: Attribution,
    keep: Keep = 0.02,
    *,
    sizes: Sequence[Keep] = SIZES,
    ablation: str = "corrupted",
    target: Targets = None,
    on_progress: Callable[[float, str], None] | None = None,
) -> Circuit:
    """Keep a result's strongest edges and run the model on them: do they carry the difference between the prompts?

    A result holds neither the model nor the prompts' tokens, so they are given as well.
    inputs: pairs to run on: those of the result, or others, to see whether the circuit holds for them too.
    result: of RelP(edges=True) or AttributionPatching(edges=True); an edge's strength is its |mean score| over pairs.
    keep: how many edges (int), or which share of all (float). Edges on no way from embed to the logits are left out
        and counted. sizes: more of the kind, for the curve; `keep` is always on it.
    ablation: what a receiver sees of a sender whose edge is not kept: "corrupted", the corrupted prompt's value, or
        "mean", the mean over the clean prompts, position by position, which must all have as many tokens.
    target: default: the result's, where the pairs are its own.

    Faithfulness of a circuit C is F(C) = (m(C) − m(∅)) / (m(M) − m(∅)), m the mean over the pairs of the metric with
    these edges alone, M the whole model; completeness is F(M ∖ C) (Marks et al. 2024, arXiv:2403.19647). Both are of
    clean prompts. One edge that everything passes is enough to make completeness 0, so the strongest edges are also
    cut out of the whole model one at a time (`Circuit.cuts`). Raises InputError for a result without edges,
    PromptPairError where m(M) = m(∅), UnsupportedModel where the model cannot be run on some of its edges.
    """
    if ablation not in ABLATIONS:
        raise UnknownName("ablation", ablation, ABLATIONS)
    graph = edge_graph(structure_of(model))
    _check(graph, inputs, result)
    prompts = _prompts(model, inputs, result, target)
    mean = result.values.mean(0).cpu().double()
    possible = int(graph.exists.sum())
    counts = sorted({count_of(each, possible) for each in (keep, *sizes)})
    chosen = [selected(graph, mean, count) for count in counts]
    which = counts.index(count_of(keep, possible))
    cuts = _strongest(chosen[which].kept, mean)
    scores, notes = metrics_on_edges(model, graph, prompts, _masks(graph, chosen, cuts), ablation, on_progress)
    return replace(_made(graph, result, chosen, which, cuts, scores, mean, ablation), notes=notes)


def _strongest(kept: Tensor, scores: Tensor) -> list[tuple[int, int]]:
    """(sender, receiver) of a few kept edges, the strongest first; at last the strongest out of the embeddings, the
    first sender, as everything has to leave there."""
    places: list[tuple[int, int]] = [(i, j) for i, j in kept.nonzero().tolist()]
    places.sort(key=lambda place: -abs(float(scores[place])))
    return list(dict.fromkeys([*places[:_CUT], *[place for place in places if place[0] == 0][:1]]))


def _masks(graph: EdgeGraph, chosen: Sequence[Selection], cuts: Sequence[tuple[int, int]]) -> Tensor:
    """(runs, sender, receiver) bool: all edges, none, each circuit and what it leaves out, all but each cut one."""
    masks = [torch.ones_like(graph.exists), torch.zeros_like(graph.exists)]
    masks += [mask for each in chosen for mask in (each.kept, ~each.kept)]
    for cut in cuts:
        masks.append(torch.ones_like(graph.exists))
        masks[-1][cut] = False
    return torch.stack(masks)


def _check(graph: EdgeGraph, inputs: Pair, result: Attribution) -> None:
    if result.kind != "edges":
        raise InputError(f"a result of {result.kind} has no edges; RelP(edges=True) and AttributionPatching have them")
    if not isinstance(inputs, Pair):
        raise InputError(f"give an attrib.pair to run the circuit on, not a {type(inputs).__name__}")
    if (result.sites, result.receivers) != (graph.senders, tuple(r.name for r in graph.receivers)):
        raise InputError(f"the result has other edges than {graph.structure.model}: it is of another model")
    if not bool(result.values[:, graph.exists.to(result.values.device)].isfinite().all()):
        raise InputError("scores of the result are NaN or infinite, so none is the strongest")


def _prompts(model: TextModel, inputs: Pair, result: Attribution, target: Targets) -> list[tuple[Prompt, Prompt]]:
    """The clean and the corrupted prompt of each pair, without padding."""
    wanted = [target_of(described) for described in result.target] if target is None else target
    encoded = encode_pair(model, inputs, says_where(wanted))
    own = encoded.hashes == result.provenance.input_hashes
    if target is None and not own:
        raise InputError("these are other pairs than the result's; give their target as well")
    rows, bound = rows_of(model, encoded, wanted)
    if len(rows.x) != len(inputs) or bound.kind == "predicted":
        raise InputError("give one target for each pair")
    question = Question(model, shadow(model.module), rows.x, bound, extra=rows.extra, corrupted=encoded.corrupted)
    device = rows.x.device
    return [prompts_of(of_rows(question, torch.tensor([row], device=device))) for row in range(len(inputs))]


def _made(
    graph: EdgeGraph,
    result: Attribution,
    chosen: Sequence[Selection],
    which: int,
    cuts: Sequence[tuple[int, int]],
    scores: Tensor,
    mean: Tensor,
    ablation: str,
) -> Circuit:
    full, empty, *others = scores.cpu().double().mean(0).tolist()
    if abs(full - empty) <= 32 * torch.finfo(scores.dtype).eps * max(abs(full), abs(empty)):
        raise PromptPairError(f"the metric is {full:.6g} with all edges and with none: there is nothing to carry")
    change = full - empty
    runs, without = others[: 2 * len(chosen)], others[2 * len(chosen) :]
    curve = [
        Size(each.asked, each.edges, each.nodes, own, rest, (own - empty) / change, (rest - empty) / change)
        for each, own, rest in zip(chosen, runs[::2], runs[1::2], strict=True)
    ]
    lost = zip(cuts, without, strict=True)
    selection = chosen[which]
    places = selection.kept.nonzero().tolist()
    edges = [EdgeEffect(graph.senders[i], graph.receivers[j].name, float(mean[i, j])) for i, j in places]
    structure = graph.structure
    return Circuit(
        edges=tuple(sorted(edges, key=lambda edge: -abs(edge.value))),
        size=curve[which],
        curve=tuple(curve),
        full=full,
        empty=empty,
        pairs=len(scores),
        possible=int(graph.exists.sum()),
        unreached=selection.unreached,
        groups=(structure.heads, structure.kv_heads),
        cuts=tuple(Cut(graph.senders[i], graph.receivers[j].name, (left - empty) / change) for (i, j), left in lost),
        about=_about(result, ablation),
    )


def _about(result: Attribution, ablation: str) -> dict[str, str]:
    return {
        "model": result.provenance.model,
        "method": result.method,
        "ablation": ablation,
        "target": labels_of(result.target)[0],
        "prompt": "".join((result.token_texts or ((),))[0]),
    }
