"""How a result came about: settings, hashes, versions, seconds and memory."""

from __future__ import annotations

import dataclasses
import resource
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attrib.methods.base import Method
from attrib.models.hashing import hash_of

if TYPE_CHECKING:
    from attrib.models.text import TextModel
    from attrib.models.vision import VisionModel


@dataclass(frozen=True)
class Provenance:
    """What is needed to compute the same numbers again, and to tell when they cannot be the same.

    settings: as they ran. chosen: of those that attrib chose by itself, what the caller had given: {"preset": "auto"}.
    """

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
    chosen: dict[str, Any] = field(default_factory=dict)


def reset_peak(device: torch.device) -> None:
    """Start counting CUDA's peak anew; elsewhere the process keeps but one peak."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_of(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def provenance_of(
    model: VisionModel | TextModel, method: Method, hashes: tuple[str, ...], seconds: float
) -> Provenance:
    """The provenance of a run that took `seconds` on inputs with these hashes."""
    return Provenance(
        method=method.name,
        settings=plain(method, model.kind),
        model=model.name,
        weights_hash=model.weights_hash,
        input_hashes=hashes,
        versions=versions(),
        device=str(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        seed=getattr(method, "seed", None),
        seconds=seconds,
        peak_memory=_peak_of(model.device),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        chosen=_chosen(method, model.kind),
    )


def plain(value: Any, kind: str | None = None) -> Any:
    """A method's settings as JSON can hold them; kind: of the model, to have them as they ran on it."""
    if isinstance(value, Method):
        ran = value if kind is None else value.settled(kind)
        return {"method": ran.name, **{name: plain(setting, kind) for name, setting in _settings(ran)}}
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)}, sha256 {hash_of({'': value})[:16]}"
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value if isinstance(value, (int, float, str, bool, type(None))) else repr(value)


def _settings(method: Method) -> list[tuple[str, Any]]:
    return [(f.name, getattr(method, f.name)) for f in dataclasses.fields(method)]  # type: ignore[arg-type]


def _chosen(method: Method, kind: str, within: str = "") -> dict[str, Any]:
    """What was given of the settings that are others in the method as it ran; a base method's as "base.preset"."""
    found: dict[str, Any] = {}
    for (name, given), (_, ran) in zip(_settings(method), _settings(method.settled(kind)), strict=True):
        if isinstance(given, Method):
            found |= _chosen(given, kind, f"{within}{name}.")
        elif given is not ran:
            found[within + name] = plain(given)
    return found


@cache
def versions() -> dict[str, str]:
    """Of the packages that decide what numbers come out."""
    found = {}
    for name in ("attrib", "torch", "torchvision", "timm", "transformers", "captum", "zennit", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
