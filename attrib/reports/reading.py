"""One input's part of a batch's result: its values, and the strongest regions or words in short."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attrib.attribution import Attribution, labels_of
from attrib.models.wrapped import Prediction

_GRID = 8  # regions of a picture: a grid of so many rows and columns
_MOST = 5  # of them are kept


def one_map(result: Attribution) -> Attribution:
    """The same with each map as `heatmap` shows it: (batch, height, width), channels reduced."""
    if result.kind != "input":
        return result
    signed = result.signed and result.reduction in ("sum", "mean")
    values = torch.from_numpy(result.heatmap())
    return dataclasses.replace(result, kind="layer", values=values, signed=signed)


def own_values(result: Attribution, index: int) -> dict[str, Tensor]:
    """ "values" and "parts.…" of one input, on the CPU; texts without their batch's padding."""
    tensors = {"values": result.values} | {f"parts.{k}": v for k, v in (result.parts or {}).items()}
    length = None if result.token_texts is None else len(result.token_texts[index])
    return {name: tensor[index, ..., :length].detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def found_in(result: Attribution, index: int, predictions: list[Prediction], notes: tuple[str, ...]) -> dict[str, Any]:
    """What a `Row` tells of one input, as JSON holds it, less what is empty, and less its files."""
    found = {
        "predictions": [[p.label, p.index, p.probability] for p in predictions],
        "target_label": labels_of(result.target)[index],
        "target_index": result.target[index].get("index"),
        "score": float(result.score[index]),
        "delta": None if result.delta is None else float(result.delta[index]),
        "ledger": {name: float(amount[index]) for name, amount in (result.ledger or {}).items()},
        "settled": {name: result.provenance.settings[name] for name in result.provenance.chosen},
        "top": list(strongest(result, index)),
        "notes": list(notes),
        "map_kind": result.kind,
        "reduction": result.reduction,
        "signed": result.signed,
        "uncovered": list(result.coverage.uncovered) if result.coverage else [],
        "tokens": [] if result.token_texts is None else list(result.token_texts[index]),
        "words": [] if result.words is None else list(result.words[index]),
        "input_hash": result.provenance.input_hashes[index],
    }
    return {name: value for name, value in found.items() if value is not None and value != [] and value != {}}


def strongest(result: Attribution, index: int) -> tuple[dict[str, Any], ...]:
    """The strongest parts of one input, strongest first; as `Row.top` has them."""
    if result.kind == "tokens":
        found = _words(result, index)
    elif result.kind in ("input", "layer"):
        found = _regions(result, index)
    else:
        return ()
    found = [part for part in found if part["relevance"] and math.isfinite(part["relevance"])]
    total = sum(abs(part["relevance"]) for part in found)
    found.sort(key=lambda part: -abs(part["relevance"]))
    return tuple(part | {"share": abs(part["relevance"]) / total} for part in found[:_MOST])


def _words(result: Attribution, index: int) -> list[dict[str, Any]]:
    """Words by the sum of their tokens; special tokens stand for themselves."""
    texts = () if result.token_texts is None else result.token_texts[index]
    words = (None,) * len(texts) if result.words is None else result.words[index]
    found: dict[Any, dict[str, Any]] = {}
    for place, (text, word) in enumerate(zip(texts, words, strict=True)):
        part = found.setdefault(("token", place) if word is None else word, {"word": "", "relevance": 0.0})
        part["word"] += text
        part["relevance"] += float(result.values[index, place])
    return [part | {"word": part["word"].strip()} for part in found.values()]


def _regions(result: Attribution, index: int) -> list[dict[str, Any]]:
    """Cells of a grid over the picture by the sum of the map in them."""
    one = dataclasses.replace(
        result,
        values=result.values[index : index + 1],
        pictures=None if result.pictures is None else result.pictures[index : index + 1],
    )
    heat = one.heatmap()[0].astype(np.float64)
    height, width = heat.shape
    rows = np.linspace(0, height, min(_GRID, height) + 1).round().astype(int)
    columns = np.linspace(0, width, min(_GRID, width) + 1).round().astype(int)
    sums = np.add.reduceat(np.add.reduceat(heat, rows[:-1], 0), columns[:-1], 1)
    return [
        {
            "box": [int(columns[c]), int(rows[r]), int(columns[c + 1]), int(rows[r + 1])],
            "relevance": float(sums[r, c]),
        }
        for r in range(len(rows) - 1)
        for c in range(len(columns) - 1)
    ]
