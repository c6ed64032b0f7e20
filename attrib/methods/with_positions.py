"""LRP that gives relevance to positions too. Bakish et al. 2025 (PA-LRP).

Position tensors (learned tables, rotary cos and sin, ALiBi biases) become sources under the same rules for sums
and products: a learned position shares with its token, a rotary one takes half of what the rotated query or key
has.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from attrib.errors import NotApplicable
from attrib.methods.base import Finding, Question
from attrib.methods.merging import merged
from attrib.methods.passes import about
from attrib.methods.propagation import Flow, settled_ledger
from attrib.models.positions import PositionSources, RowsApart, position_sources
from attrib.rules.attention import constant, needs_fused
from attrib.rules.precision import wide
from attrib.rules.shadow import shadow
from attrib.rules.spelled import unite_activations
from attrib.rules.table import Rules

AGGREGATES = ("signed", "absolute")


def with_positions(question: Question, rules: Rules, aggregate: str = "signed") -> Finding:
    """Content and position relevance per token, and their sum.

    aggregate: "signed" conserves; "absolute" adds the sizes of every layer's position tensors, as the authors'
        code does, and conserves nothing.
    """
    unite_activations(question.twin)
    try:
        with position_sources(question.twin, len(question.x)) as sources:
            flows = Flow.each(question, rules, sources.leaves)
    except RowsApart:
        return _one_by_one(question, rules, aggregate)
    if sources.shared and len(question.x) > 1:  # one table for all samples
        return _one_by_one(question, rules, aggregate)
    cuts = rules.table.get("softmax") in (constant, needs_fused)
    return merged([_found(question, flow, sources, aggregate, cuts) for flow in flows])


def _found(question: Question, flow: Flow, sources: PositionSources, aggregate: str, cuts: bool) -> Finding:
    text = question.model.kind == "text"
    tokens = question.x.shape[1] if text else sources.leaves[0][1].shape[1]
    reached = sources.relevance(flow.sources, tokens)
    values = flow.input_relevance()
    by_layer = _by_layer(reached, len(question.x), tokens, values)
    sizes = [relevance.abs() for _, relevance in reached]
    signed = by_layer.sum(1)
    position = signed if aggregate == "signed" or not sizes else torch.stack(sizes).sum(0)
    ledger, delta = settled_ledger({"input": values, "position": signed}, flow)
    content = wide(values).sum(2).to(values.dtype) if text else values
    return Finding(
        content + (position if text else _on_pixels(position, values)),
        flow.score,
        kind="tokens" if text else "input",
        delta=delta,
        ledger=ledger,
        coverage=flow.coverage,
        parts={"content": content, "position": position, "position_by_layer": by_layer},
        notes=_notes(bool(reached), sources, aggregate, cuts),
    )


def _one_by_one(question: Question, rules: Rules, aggregate: str) -> Finding:
    """A pass of its own for each sample, without its padding."""
    rows = torch.arange(len(question.x), device=question.x.device).split(1)
    alone = [_unpadded(_alone(question, row)) for row in rows]
    return merged([_padded(with_positions(one, rules, aggregate), question.x.shape[1]) for one in alone])


def _alone(question: Question, row: Tensor) -> Question:
    """The question about one sample, on a twin of its own."""
    return replace(about(question, question.x[row], row), twin=shadow(question.model.module))


def _unpadded(question: Question) -> Question:
    """The question about one text, cut to its own tokens; pictures as they are."""
    if question.real is None:
        return question
    length = int(question.real.sum())
    extra = {name: value[:, :length] if value.dim() > 1 else value for name, value in question.extra.items()}
    extra.pop("attention_mask")
    return replace(question, x=question.x[:, :length], extra=extra)


def _padded(found: Finding, tokens: int) -> Finding:
    """What was found of one text with zeros behind its own tokens."""
    if found.kind != "tokens" or found.parts is None:
        return found
    missing = tokens - found.values.shape[1]
    parts = {name: pad(part, (0, missing)) for name, part in found.parts.items()}
    return replace(found, values=pad(found.values, (0, missing)), parts=parts)


def _by_layer(reached: list[tuple[str, Tensor]], batch: int, tokens: int, like: Tensor) -> Tensor:
    """(batch, layers, tokens): what was found in the same place (cos and sin) added up."""
    layers: dict[str, Tensor] = {}
    for where, relevance in reached:
        layers[where] = layers[where] + relevance if where in layers else relevance
    return torch.stack(list(layers.values()), 1) if layers else like.new_zeros(batch, 1, tokens)


def _on_pixels(position: Tensor, values: Tensor) -> Tensor:
    """Each patch token's position relevance spread evenly over its pixels; tokens before the grid have none."""
    rows, columns = _patch_grid(position.shape[1], values.shape[2], values.shape[3])
    grid = position[:, -rows * columns :].reshape(-1, 1, rows, columns)
    height, width = values.shape[2] // rows, values.shape[3] // columns
    spread = grid.repeat_interleave(height, 2).repeat_interleave(width, 3) / (height * width * values.shape[1])
    return spread.expand_as(values)


def _patch_grid(tokens: int, height: int, width: int) -> tuple[int, int]:
    """(rows, columns) of the square patches that tile the picture, the fewest tokens before them left over."""
    for count in range(tokens, 0, -1):
        rows = round((count * height / width) ** 0.5)
        columns = count // max(rows, 1)
        fits = rows > 0 and rows * columns == count and height % rows == 0 and width % columns == 0
        if fits and height // rows == width // columns:
            return rows, columns
    raise NotApplicable(f"no grid of square patches on {height} × {width} pixels has {tokens} tokens or fewer")


def _notes(reached: bool, sources: PositionSources, aggregate: str, cuts: bool) -> tuple[str, ...]:
    """cuts: whether the rules take attention weights for constants."""
    notes = []
    if not reached:
        found = ", ".join(dict.fromkeys(where or "the model itself" for where, _ in sources.leaves[:3]))
        why = "CP-LRP cuts queries and keys" if cuts else f"the score does not depend on those found in {found}"
        notes.append(f"no relevance reaches the positions under these rules ({why})")
    if sources.experimental:
        notes.append("the rule for ALiBi positions is experimental: a bias is credited to the key it belongs to")
    if aggregate == "absolute":
        notes.append("positions are added by their size, as the authors' code does: values do not sum to the score")
    return tuple(notes)
