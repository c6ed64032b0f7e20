"""The rows of the table of texts, and how far each should get (issue 3, "Speed and memory")."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from captum import attr

import attrib
from benchmarks.measure import Run
from benchmarks.rows import Limit, Row
from benchmarks.text_cases import NETWORKS, TextCase

Start = Callable[[TextCase], Run]
_STEPS = 50
_GENERATED = 16


def explained(method: Any, **options: Any) -> Start:
    return lambda case: lambda: attrib.explain(case.wrapped, case.ids, method, case.target, **options)


def captum(name: str, **options: Any) -> Start:
    """captum's class `name` on the embeddings, with a forward that takes them."""

    def start(case: TextCase) -> Run:
        own = case.copied()
        method = getattr(attr, name)(own.score)
        return lambda: method.attribute(own.x.clone().requires_grad_(), **options)

    return start


def captum_words(case: TextCase) -> Run:
    """captum's ablation of the first words and of all others as one, eight at once: each costs it a whole forward."""
    own = case.copied()
    words = own.wrapped.encode(own.ids).words
    rest = captum_parts(case) - 1
    numbers = torch.tensor([rest if word is None else min(word, rest) for word in (words or ((),))[0]])
    mask = numbers[None, :, None].expand_as(own.x)
    return lambda: attr.FeatureAblation(own.score).attribute(own.x, feature_mask=mask, perturbations_per_eval=8)


def captum_parts(case: TextCase) -> int:
    """How many parts `captum_words` covers: all words would take minutes."""
    return min(case.words, 16)


def lxt(case: TextCase) -> Run:
    """LXT 2.1 imports what transformers 5 does not have; ImportError then, and where it is not installed."""
    from lxt.efficient import monkey_patch  # noqa: F401

    raise NotImplementedError("LXT patches classes for the whole process, ours with them")


def generation(case: TextCase) -> Run:
    ids = case.ids
    prompt, new = ids[:-_GENERATED], ids[-_GENERATED:]
    return lambda: attrib.explain_generation(case.wrapped, prompt, "lrp", new)


def _tolerance_remark(case: TextCase) -> str:
    result = attrib.explain(case.wrapped, case.ids, attrib.IntegratedGradients(tolerance=1e-3), case.target)
    steps = [found[1] for note in result.notes if (found := re.search(r"(\d+) steps", note))]
    return f"tolerance=1e-3: {'; '.join(result.notes)}" if steps else "tolerance=1e-3: no step count"


def _limits(time: float | None, memory: float | None = None, networks: tuple[str, ...] = NETWORKS) -> dict[str, Limit]:
    return dict.fromkeys(networks, Limit(time, memory))


_CAUSAL, _RANDOM = NETWORKS[1:], NETWORKS[:2]

TEXT_ROWS: tuple[Row, ...] = (
    Row("saliency", explained("saliency"), {"captum": captum("Saliency")}),
    Row("lrp attn_lrp", explained(attrib.LRP(preset="attn_lrp")), {"LXT": lxt}, _limits(1.15, 1.25)),
    Row("lrp cp_lrp", explained(attrib.LRP(preset="cp_lrp")), {"LXT": lxt}, _limits(1.15, 1.25)),
    Row("lrp attn_lrp, positions", explained(attrib.LRP(preset="attn_lrp", positions=True)), {}, _limits(1.3)),
    Row(
        "integrated_gradients, tolerance 1e-3",
        explained(attrib.IntegratedGradients(tolerance=1e-3)),
        {},
        _limits(10, networks=_RANDOM),
        long=True,
        remark=_tolerance_remark,
    ),
    Row(
        f"integrated_gradients, {_STEPS} steps",
        explained(attrib.IntegratedGradients(n_steps=_STEPS)),
        {"captum": captum("IntegratedGradients", n_steps=_STEPS, internal_batch_size=4)},
        _limits(44, 5),
        long=True,
    ),
    Row(
        "occlusion, by word",
        explained("occlusion"),
        {"captum": captum_words},
        _limits(0.6),
        long=True,
        per=lambda case: case.words,
        peers_per=captum_parts,
    ),
    Row(f"lrp of {_GENERATED} generated tokens", generation, long=True, networks=_CAUSAL),
)
