"""The result of an explanation: raw values, what they add up to, and how they came about."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from attrib.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from attrib.metrics.evidence import Evidence
    from attrib.patching.effects import MeanEffects

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Coverage:
    """Every operation that relevance passed: how often, and whether a rule covered it.

    Keys are operation names; `uncovered` keys are "operation in module.path".
    """

    ruled: dict[str, int] = field(default_factory=dict)
    linear: dict[str, int] = field(default_factory=dict)
    uncovered: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = f"{sum(self.ruled.values())} ruled, {sum(self.linear.values())} linear"
        return counts + (f", uncovered: {', '.join(self.uncovered)}" if self.uncovered else ", nothing uncovered")


@dataclass(frozen=True)
class Provenance:
    """What is needed to compute the same numbers again, and to tell when they cannot be the same."""

    method: str
    settings: dict[str, Any]
    model: str
    weights_hash: str
    input_hashes: tuple[str, ...]
    versions: dict[str, str]
    device: str
    dtype: str
    seed: int | None
    seconds: float
    peak_memory: int  # bytes: the allocator's peak on CUDA, the process' peak resident size elsewhere
    created: str  # ISO 8601, UTC


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
    notes: what a reader must know before trusting the map, one sentence each.
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

    def heatmap(self, size: tuple[int, int] | int | None = None) -> np.ndarray:
        """(batch, height, width) float32: channels reduced, resized bilinearly to `size`.

        size: None = the values' own resolution for input-level maps, the picture's for layer maps.
        """
        if self.kind not in ("input", "layer"):
            raise InputError(f"a {self.kind} attribution has no heatmap; read .values or .tokens()")
        wanted = (size, size) if isinstance(size, int) else size
        if wanted is None and self.kind == "layer" and self.pictures is not None:
            wanted = (self.pictures.shape[1], self.pictures.shape[2])
        return heatmaps(self.values.detach().float().cpu(), self.reduction, wanted).numpy()

    def tokens(self, index: int = 0) -> list[tuple[str, float]]:
        """(token, relevance) pairs of one sample of a text attribution."""
        if self.token_texts is None or self.values.dim() != 2:
            raise InputError(f"a {self.kind} attribution has no tokens; read .heatmap() or .values")
        return list(zip(self.token_texts[index], self.values[index].tolist(), strict=False))

    def normalised(self) -> Tensor:
        """Effects as shares of the metric's change between the two runs: see `patching.effects`."""
        return _effects().normalised(self)  # type: ignore[no-any-return]

    def top(self, k: int = 10, index: int | None = 0) -> Any:
        """The k strongest effects of one pair, or of the mean over all (edges only): see `patching.effects`."""
        return _effects().top(self, k, index)

    def correlation(self, other: Attribution, kind: str | None = None) -> dict[str, float]:
        """Pearson's r between two results' effects, one for each kind of site: see `patching.effects`."""
        return _effects().correlation(self, other, kind)  # type: ignore[no-any-return]

    def mean(self, confidence: float = 0.95) -> MeanEffects:
        """Effects of sites averaged over the pairs, with their confidence intervals: see `patching.effects`."""
        return _effects().mean(self, confidence)  # type: ignore[no-any-return]

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
        from safetensors.torch import save as to_bytes

        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        _write(path / "values.safetensors", to_bytes(self._tensors()))
        _write(path / "attribution.json", json.dumps(self._document(), indent=1, ensure_ascii=True).encode())
        return path

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {"values": self.values, "score": self.score}
        if self.delta is not None:
            tensors["delta"] = self.delta
        if self.pictures is not None:
            tensors["pictures"] = torch.from_numpy(np.ascontiguousarray(self.pictures))
        tensors |= {f"ledger.{k}": v for k, v in (self.ledger or {}).items()}
        tensors |= {f"parts.{k}": v for k, v in (self.parts or {}).items()}
        return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}

    def _document(self) -> dict[str, Any]:
        return {
            "format": FORMAT_VERSION,
            "kind": self.kind,
            "target": self.target,
            "notes": list(self.notes),
            "token_texts": self.token_texts,
            "words": self.words,
            "sites": self.sites,
            "receivers": self.receivers,
            "corrupted_texts": self.corrupted_texts,
            "reduction": self.reduction,
            "signed": self.signed,
            "coverage": None if self.coverage is None else asdict(self.coverage),
            "provenance": asdict(self.provenance),
        }

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> Attribution:
        """Read what `save` wrote. Raises InputError when the folder is not such a result."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = Path(folder)
        try:
            document = json.loads((path / "attribution.json").read_text())
            tensors = load_file(path / "values.safetensors")
            return _from_parts(document, tensors)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(f"{path} holds no saved attribution: {error}") from error


def _from_parts(document: dict[str, Any], tensors: dict[str, Tensor]) -> Attribution:
    if document["format"] != FORMAT_VERSION:
        raise InputError(f"saved with format {document['format']}, this version reads format {FORMAT_VERSION}")
    provenance = dict(document["provenance"])
    provenance["input_hashes"] = tuple(provenance["input_hashes"])
    pictures = tensors.get("pictures")
    names = {f: None if document.get(f) is None else tuple(document[f]) for f in ("sites", "receivers")}
    return Attribution(
        kind=document["kind"],
        values=tensors["values"],
        target=document["target"],
        score=tensors["score"],
        delta=tensors.get("delta"),
        provenance=Provenance(**provenance),
        coverage=None if document["coverage"] is None else Coverage(**document["coverage"]),
        ledger=_prefixed(tensors, "ledger."),
        parts=_prefixed(tensors, "parts."),
        notes=tuple(document["notes"]),
        pictures=None if pictures is None else pictures.numpy(),
        token_texts=_tuples(document["token_texts"]),
        words=_tuples(document["words"]),
        sites=names["sites"],
        receivers=names["receivers"],
        corrupted_texts=_tuples(document.get("corrupted_texts")),
        reduction=document["reduction"],
        signed=document["signed"],
    )


def _tuples(rows: Any) -> tuple[tuple[Any, ...], ...] | None:
    return None if rows is None else tuple(tuple(row) for row in rows)


def _effects() -> Any:
    from attrib.patching import effects  # deferred: it knows this module

    return effects


def _prefixed(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor] | None:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)} or None


def _write(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part:
        part.write(content)
    os.replace(part.name, path)


_REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda maps: maps.sum(1),
    "mean": lambda maps: maps.mean(1),
    "max_abs": lambda maps: maps.abs().amax(1),
    "norm": lambda maps: torch.linalg.vector_norm(maps, dim=1),
}


def heatmaps(values: Tensor, reduction: str, size: tuple[int, int] | None) -> Tensor:
    """(batch, height, width): channels of `values` reduced, if it has any, and resized bilinearly to `size`."""
    maps = _REDUCTIONS[reduction](values) if values.dim() == 4 else values
    if size is None or tuple(maps.shape[1:]) == tuple(size):
        return maps
    return torch.nn.functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def labels_of(targets: Sequence[dict[str, Any]]) -> list[str]:
    """How each sample's target is called in a caption."""
    names = []
    for target in targets:
        name = str(target.get("label", target.get("index", target.get("function", "predicted"))))
        versus = target.get("versus_label", target.get("versus"))
        names.append(name if versus is None else f"{name} rather than {versus}")
    return names
