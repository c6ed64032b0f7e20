"""`python -m benchmarks.families`: sites, patches and edges of every language-model type of transformers.

Each type (of a composed one, its text part) is built small, with random weights in float64, and wrapped. The patch
error is that of activation patching, which replays blocks, against whole forwards, a row for every site and position
(where it is more than float64's rounding: beside what the same forwards differ by, one row at a time); the circuit's,
that of the whole and of the empty circuit against the clean and the corrupted run. Nothing is left out.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

import torch
import transformers
import typer
from torch import Tensor, nn

import attrib
from attrib.methods.activation_patching import prompts_of
from attrib.methods.base import Question
from attrib.methods.pairs import of_rows
from attrib.models.text import TextModel
from attrib.patching.pair import encode_pair
from attrib.patching.probing import structure_of
from attrib.patching.prompt import Patch, Recomputation
from attrib.patching.sites import PatchSite, all_sites, select
from attrib.rows import rows_of
from attrib.rules.shadow import shadow
from benchmarks.time_limit import TooLong, at_most
from benchmarks.tiny_models import built, types, wrapped

ELEVEN = ("embed", "resid_pre", "q", "k", "v", "head", "attn_out", "resid_mid", "neuron", "mlp_out", "resid_post")
TARGET = attrib.LogitDiff(12, 25)
PAIR = attrib.pair([[5, 9, 17, 23, 3, 8]], [[5, 21, 17, 23, 3, 8]])  # 3: the mask
_ROUNDING = 1e-9  # above it, something in the model is in float32, and its rows depend on how many run at once


@dataclass
class Found:
    """What one type gave. failure: why it stopped. error: relative to the strongest patch. dtype: of the logits."""

    label: str
    stage: str = "not built"
    failure: str = ""
    kinds: tuple[str, ...] = ()
    told: str = ""
    error: float | None = None
    patched: str = "not measured"
    edges: int = 0
    remark: str = ""
    dtype: torch.dtype = torch.float64


def whole_forwards(model: TextModel, sites: list[PatchSite], at_once: int = 64) -> Tensor:
    """(sites · positions,) the effect of each patch, a row of a whole forward for each."""
    encoded = encode_pair(model, PAIR)
    rows, bound = rows_of(model, encoded, TARGET)
    twin = shadow(model.module)
    question = Question(model, twin, rows.x, bound, extra=rows.extra, corrupted=encoded.corrupted)
    clean, corrupted = prompts_of(of_rows(question, torch.tensor([0])))
    with torch.no_grad():
        values, _ = clean.values(twin, sites)
        patches = [
            Patch(site, p, values[site.place][0, p, site.part]) for site in sites for p in range(clean.x.shape[1])
        ]
        effects = Recomputation(twin, corrupted, at_once, lambda done: None).scores(patches)
        return effects - corrupted.scores(twin, corrupted.x)


def measured(label: str, seconds: int) -> Found:
    """All that is told of one type, within that time."""
    found = Found(label)
    try:
        with warnings.catch_warnings(), at_most(seconds):
            warnings.simplefilter("ignore")
            _measure(found)
    except (attrib.AttribError, TooLong) as error:
        found.failure = str(error)
    except Exception as error:
        found.failure = f"{type(error).__name__}: {error}"
    return found


def _measure(found: Found) -> None:
    module = built(found.label)
    found.stage = "not wrapped"
    model = _wrapped(found.label, module)
    found.stage = "no sites"
    found.dtype = model.module(torch.tensor(PAIR.clean)).logits.dtype
    sites = all_sites(structure_of(model))
    found.kinds = tuple(dict.fromkeys(site.kind for site in sites))
    found.stage, found.told = "sites", _told(model, found.kinds)
    whole = whole_forwards(model, sites)
    result = attrib.explain(model, PAIR, attrib.ActivationPatching(sites=tuple(site.name for site in sites)), TARGET)
    found.patched = "no patch has an effect"
    if whole.any():
        found.error = _apart(result.values[0].flatten(), whole)
        found.patched = "by whole forwards" if "every patch is a whole forward" in str(result.notes) else "replayed"
        if found.error > _ROUNDING:
            found.patched += f" (one row at a time: {_apart(whole_forwards(model, sites, 1), whole):.0e})"
    found.remark = _edges(found, model)


def _apart(found: Tensor, whole: Tensor) -> float:
    return float((found - whole).abs().max() / whole.abs().max())


def _wrapped(label: str, module: nn.Module) -> TextModel:
    try:
        return wrapped(module)
    except attrib.UnsupportedModel:
        with suppress(attrib.UnsupportedModel):  # some cast to float32 on the way
            return wrapped(built(label, torch.float32))
        raise


def _told(model: TextModel, kinds: tuple[str, ...]) -> str:
    """The sentences on what it has not."""
    structure, told = structure_of(model), []
    for kind in (kind for kind in ELEVEN if kind not in kinds):
        try:
            select(structure, f"head.*.*.{kind}" if kind in ("q", "k", "v") else f"{kind}.*")
        except attrib.AttribError as error:
            told += str(error).partition(": ")[2].split("; ")
    return "; ".join(dict.fromkeys([*told, *structure.missing]))


def _edges(found: Found, model: TextModel) -> str:
    """What is told of its edges: the error of its circuits, or why it has none."""
    try:
        result = attrib.explain(model, PAIR, attrib.RelP(edges=True), TARGET)
    except attrib.AttribError as error:
        return str(error)
    circuit = attrib.circuit(model, PAIR, result, 1.0, sizes=(0,))
    assert result.parts is not None
    empty, full = (float(result.parts[f"metric_{run}"][0]) for run in ("corrupted", "clean"))
    found.edges = circuit.possible
    return f"{circuit.possible}, circuits within {max(abs(circuit.empty - empty), abs(circuit.full - full)):.0e}"


def summary(found: list[Found]) -> str:
    """One line on all types."""
    with_sites = [one for one in found if one.kinds]
    stages = Counter(one.stage for one in found)
    replayed = sum(one.patched.startswith("replayed") for one in found)
    text = (
        f"{len(found)} types of transformers {transformers.__version__} (of composed ones, the text part): "
        f"{len(found) - stages['not built'] - stages['not wrapped']} wrapped "
        f"({stages['not built']} could not be built, {stages['not wrapped']} are refused), "
        f"{len(with_sites)} with sites, {sum(set(ELEVEN) <= set(one.kinds) for one in found)} with all eleven kinds, "
        f"{sum(one.edges > 0 for one in found)} with edges, {replayed} patched block by block"
    )
    for dtype in (torch.float64, torch.float32):
        errors = [(one.error, one.label) for one in with_sites if one.error is not None and one.dtype == dtype]
        if errors:
            text += "; worst relative patch error with {} logits {:.0e} ({})".format(str(dtype)[6:], *max(errors))
    return text + "."


def row(one: Found) -> str:
    """A row of the table."""
    if not one.kinds:
        cells = [one.label, one.stage, one.failure, "", ""]
    else:
        lacks = ", ".join(kind for kind in ELEVEN if kind not in one.kinds)
        dtype = "" if one.dtype == torch.float64 else ", float32 logits"
        error = f"{one.patched}{dtype}" if one.error is None else f"{one.error:.0e} {one.patched}{dtype}"
        cells = [one.label, lacks and f"no {lacks}", one.told, error, one.failure or one.remark]
    return "| " + " | ".join(_short(cell) for cell in cells) + " |"


def _short(text: str) -> str:
    flat = " ".join(text.replace("|", "/").split())
    return flat if len(flat) <= 160 else flat[:159] + "…"


def main(
    only: Annotated[str, typer.Option(help="Types, with commas, as the table calls them; empty: all.")] = "",
    seconds: Annotated[int, typer.Option(min=1, help="The most that one type may take.")] = 60,
) -> None:
    """Print the table as Markdown."""
    torch.set_num_threads(1)
    wanted = [name.strip() for name in only.split(",") if name.strip()] or types()
    if unknown := [name for name in wanted if name not in types()]:
        raise typer.BadParameter(f"no type {unknown[0]!r}; there are {', '.join(types())}")
    began = time.process_time()
    found = [measured(label, seconds) for label in wanted]
    print(summary(found), f"CPU time: {time.process_time() - began:.0f} s.\n")
    print("| type | has not | as told | patch error | edges |\n| --- | --- | --- | --- | --- |")
    print("\n".join(map(row, found)))


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    typer.run(main)
