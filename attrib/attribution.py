"""The result of an explanation: raw values, what they add up to, and how they came about."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from attrib.coverage import Coverage
from attrib.errors import InputError
from attrib.heatmaps import heatmaps, sides

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from attrib.metrics.evidence import Evidence
    from attrib.patching.averages import MeanEffects
    from attrib.provenance import Provenance


@dataclass(frozen=True, eq=False)
class Attribution:
    """What a method found, for a batch of inputs.

    values: raw and never normalised. kind "input": (batch, channel, height, width);
        kind "layer": (batch, h, w) at the layer's resolution; kind "tokens": (batch, tokens);
        kind "sites": (batch, site, position);
        kind "edges": (batch, sender, receiver), named `sites` and `receivers`, NaN where there is no edge.
    target: one dict per sample: kind, index, label.
    score: (batch,) the explained number. delta: (batch,) completeness error in its units, or None.
    ledger: where the score went, name → (batch,), adding up to the score; None outside LRP.
    notes: what a reader must know before trusting the map, one sentence each; of one sample alone: `result[i].notes`.
    pictures: (batch, height, width, 3) uint8, what the model saw; None for text.
    reduction: how channels become one number in `heatmap`: "sum", "mean", "max_abs" or "norm".
    words: per sample, the word that each token is a piece of; None for special tokens.
    sites, corrupted_texts: of patching: the sites' names; the corrupted prompts' tokens beside the clean ones in
        token_texts. Then score is the metric's change, parts["metric_clean"] and ["metric_corrupted"] its two values.
    """

    kind: str
    values: Tensor
    target: list[dict[str, Any]]
    score: Tensor
    delta: Tensor | None
    provenance: Provenance
    coverage: Coverage | None = None
    ledger: dict[str, Tensor] | None = None
    parts: dict[str, Tensor] | None = None
    notes: tuple[str, ...] = ()
    pictures: np.ndarray | None = None
    token_texts: tuple[tuple[str, ...], ...] | None = None
    words: tuple[tuple[int | None, ...], ...] | None = None
    reduction: str = "sum"
    signed: bool = True  # False: values are never negative and zero means "nothing"
    sites: tuple[str, ...] | None = None
    corrupted_texts: tuple[tuple[str, ...], ...] | None = None
    receivers: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return int(self.values.shape[0])

    def __getitem__(self, rows: int | slice) -> Attribution:
        """The result of one sample, or of several, as a batch of its own, with notes that are true of it.

        Iterating gives the samples one by one.
        """
        from attrib.doubts import own_notes  # deferred: it knows methods

        rows = _rows_of(rows, len(self))
        own = {name: _rows(getattr(self, name), rows) for name in _PER_SAMPLE}
        hashes = self.provenance.input_hashes[rows]
        chosen = replace(self, **own, provenance=replace(self.provenance, input_hashes=hashes))
        return replace(chosen, notes=own_notes(self, chosen))

    @property
    def method(self) -> str:
        return self.provenance.method

    @property
    def relative_delta(self) -> Tensor | None:
        """|delta| / |score|, (batch,): 0.3 means that 30 % of the score is not accounted for."""
        if self.delta is None:
            return None
        return self.delta.abs() / self.score.abs().clamp_min(1e-12)

    @property
    def evidence(self) -> Evidence:
        """What speaks for and against each map, without any pass of the model; `attrib.check` looks into the rest."""
        from attrib.metrics.evidence import evidence_of  # deferred: it stands on top of this module

        return evidence_of(self)

    def numpy(self) -> np.ndarray:
        """`values` as they are, shaped as they are; bfloat16, which numpy has not, as float32."""
        values = self.values.detach().cpu()
        array: np.ndarray = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype)

    def heatmap(self, size: tuple[int, int] | int | None = None) -> np.ndarray:
        """(batch, height, width) float32: channels reduced, resized bilinearly to `size`.

        size: None = the values' own resolution for input-level maps, the picture's for layer maps.
        """
        if self.kind not in ("input", "layer"):
            raise InputError(f"an attribution of kind {self.kind} has no heatmap; read .values or .tokens()")
        wanted = None if size is None else sides(size)
        if wanted is None and self.kind == "layer" and self.pictures is not None:
            wanted = (self.pictures.shape[1], self.pictures.shape[2])
        return heatmaps(self.values.detach().float().cpu(), self.reduction, wanted).numpy()

    def tokens(self, index: int = 0) -> list[tuple[str, float]]:
        """(token, relevance) pairs of one sample of a text attribution."""
        if self.token_texts is None or self.values.dim() != 2:
            raise InputError(f"an attribution of kind {self.kind} has no tokens; read .heatmap() or .values")
        if not isinstance(index, int) or not -len(self) <= index < len(self):
            raise InputError(f"there is no sample {index!r}; the result has {len(self)}, 0 to {len(self) - 1}")
        return list(zip(self.token_texts[index], self.values[index].tolist(), strict=False))

    # of patching; `patching.effects` knows this module, so it is imported when it is asked for

    def normalised(self) -> Tensor:
        """Effects as shares of the metric's change between the two runs: see `patching.effects`."""
        from attrib.patching.effects import normalised

        return normalised(self)

    def top(self, k: int = 10, index: int | None = 0) -> Any:  # a list of Effect, or of EdgeEffect
        """The k strongest effects of one pair, or of the mean over all (edges only): see `patching.effects`."""
        from attrib.patching.effects import top

        return top(self, k, index)

    def correlation(self, other: Attribution, kind: str | None = None) -> dict[str, float]:
        """Pearson's r between two results' effects, one for each kind of site: see `patching.effects`."""
        from attrib.patching.effects import correlation

        return correlation(self, other, kind)

    def mean(self, confidence: float = 0.95) -> MeanEffects:
        """Effects of sites averaged over the pairs, with their confidence intervals: see `patching.averages`."""
        from attrib.patching.averages import mean

        return mean(self, confidence)

    def plot(self, **options: Any) -> Figure:
        """A matplotlib figure: the picture, the heatmap over it, and a labelled scale.

        options: of patching: rows and columns of its heatmaps, see `render.sites.panels`.
        """
        from attrib.render.figure import figure  # deferred: matplotlib is slow to import

        return figure(self, **options)

    def _repr_html_(self) -> str:
        from attrib.render.html import fragment

        return fragment(self)

    def __repr__(self) -> str:
        names = labels_of(self.target)
        notes = f", notes {list(self.notes)}" if self.notes else ""
        scores = [round(s, 4) for s in self.score.tolist()]
        return f"Attribution({self.method}, values {tuple(self.values.shape)}, target {names}, score {scores}{notes})"

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write values.safetensors and attribution.json into `folder`; each file appears whole or not at all."""
        from attrib.saved import save  # deferred: it knows this module

        return save(self, Path(folder))

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> Attribution:
        """Read what `save` wrote. Raises InputError when the folder is not such a result."""
        from attrib.saved import load

        return load(Path(folder))


_PER_SAMPLE = (
    "values", "target", "score", "delta", "ledger", "parts", "pictures", "token_texts", "words", "corrupted_texts",
)  # fmt: skip


def _rows_of(rows: Any, samples: int) -> slice:
    """The rows of a slice, or of one sample by its number. Raises IndexError past the end, as iterating needs it."""
    if isinstance(rows, slice):
        return rows
    try:
        row = operator.index(rows)
    except TypeError:
        raise InputError(f"a sample is chosen by a whole number or a slice, not {type(rows).__name__}") from None
    if not -samples <= row < samples:
        raise IndexError(f"sample {row} of a result with {samples}")
    return slice(row % samples, row % samples + 1)


def _rows(value: Any, rows: slice) -> Any:
    if isinstance(value, dict):
        return {name: amounts[rows] for name, amounts in value.items()}
    return None if value is None else value[rows]


def labels_of(targets: Sequence[dict[str, Any]]) -> list[str]:
    """How each sample's target is called in a caption."""
    names = []
    for target in targets:
        name = str(target.get("label", target.get("index", target.get("function", "predicted"))))
        versus = target.get("versus_label", target.get("versus"))
        names.append(name if versus is None else f"{name} rather than {versus}")
    return names
