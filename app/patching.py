"""Patching and verifying: from a question to an answer, as plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import attrib
from app import patching_pairs
from app.catalogue import Catalogue
from app.patching_questions import SITE_KINDS, PatchAsk, method_of, model_of, target_of

VERIFIED = 20  # entries that a click verifies
MOST_VERIFIED = 200
Progress = Callable[..., None]


@dataclass(frozen=True)
class PatchAnswer:
    """The effects of one question, and the true ones of the strongest where they were asked for.

    of: the kind of site that was verified; empty: all. checked: the light of the same sites, on entries drawn at
    random, which unlike the strongest may be ones that the estimate missed.
    """

    ask: PatchAsk
    pair: attrib.Pair
    result: attrib.Attribution
    verified: attrib.Verification | None = None
    checked: attrib.Evidence | None = None
    circuit: attrib.Circuit | None = None
    of: str = ""

    @property
    def metric(self) -> tuple[float, float]:
        """The metric's value in the clean and in the corrupted run."""
        parts = self.result.parts or {}
        return float(parts["metric_clean"][0]), float(parts["metric_corrupted"][0])

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(kind_of(name) for name in self.result.sites or ()))

    @property
    def is_estimate(self) -> bool:
        return self.ask.method != "activation_patching"


def patch(ask: PatchAsk, catalogue: Catalogue, on_progress: Progress) -> PatchAnswer:
    """Raises attrib's errors, each one sentence on what is wrong with the question."""
    method = method_of(ask)
    model = model_of(catalogue, ask.model)
    pair = patching_pairs.pair_of(model, ask)
    target = target_of(model, ask)
    return PatchAnswer(ask, pair, attrib.explain(model, pair, method, target, on_progress=on_progress))


def verify(answer: PatchAnswer, catalogue: Catalogue, k: int, of: str, on_progress: Progress) -> PatchAnswer:
    """The answer with the true effects of its k strongest entries, and of some drawn at random.

    of: of this kind of site; empty: of all.

    Raises attrib.UnknownName for a kind that the answer has not, attrib.InputError for a bad k.
    """
    if not 1 <= k <= MOST_VERIFIED:
        raise attrib.InputError(f"k = {k}: from 1 to {MOST_VERIFIED} effects are verified at once")
    if not answer.is_estimate:
        raise attrib.InputError("these effects are true ones already; verify those of an estimate")
    model = model_of(catalogue, answer.ask.model)
    found = of_kind(answer.result, of)
    verified = attrib.verify_effects(model, answer.pair, found, k=k, on_progress=_half(on_progress, 0.0))
    checked = attrib.check(model, answer.pair, found, on_progress=_half(on_progress, 0.5))
    return replace(answer, verified=verified, checked=checked, of=of)


def _half(on_progress: Progress, start: float) -> Progress:
    return lambda fraction, told="": on_progress(start + fraction / 2, told)


def of_kind(result: attrib.Attribution, kind: str) -> attrib.Attribution:
    """The result with the sites of one kind alone; empty: as it is."""
    if not kind:
        return result
    names = result.sites or ()
    places = [i for i, name in enumerate(names) if kind_of(name) == kind]
    if not places:
        raise attrib.UnknownName("kind of site in this result", kind, {kind_of(name) for name in names})
    return replace(result, values=result.values[:, places], sites=tuple(names[i] for i in places))


def kind_of(name: str) -> str:
    """The kind of a site: head.3.2.q is "q"."""
    parts = name.split(".")
    return parts[3] if parts[0] == "head" and len(parts) == 4 else parts[0]


def kind_title(kind: str) -> str:
    return SITE_KINDS[kind][0] if kind in SITE_KINDS else kind
