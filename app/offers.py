"""What a visitor is offered: methods with their usual settings, and examples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import attrib
from app import controls
from app.controls import Control
from attrib.models import photos

# pictures: what beat random maps most often on the shipped photos (`python -m benchmarks.faithfulness`), and Grad-CAM,
# which beat them on insertion and, unlike most, depends on the weights and on the class. Texts: the best of each column
# on 200 held-out sentences by the same command, and what came next to them
DEFAULT_METHODS = {
    "image": ("lrp", "normgrad", "deeplift", "integrated_gradients", "smoothgrad", "grad_cam"),
    "text": ("lrp", "deeplift", "occlusion", "gradient_attention_rollout"),
}
# kind -> method -> values of its controls that suit this kind of input better than the method's defaults
USUAL_SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "image": {},
    "text": {
        "lrp": {"preset": "attn_lrp", "positions": True},
        # from zero, pad and unk the way is so steep on language models that 50 steps miss most of the score
        "integrated_gradients": {"baseline": "noise"},
    },
}
# text, and the model it is for where that is on offer
EXAMPLE_TEXTS: tuple[tuple[str, str], ...] = (
    ("The plot is thin, but the acting is wonderful and I left the cinema smiling.", "minilm-sentiment"),
    ("The food was not good at all, and nobody seemed to care.", "minilm-sentiment"),
    ("I expected to hate this phone. I was wrong.", "minilm-sentiment"),
    ("The capital of France is", "smollm2-135m"),
    ("When Mary and John went to the store, John gave a drink to", "smollm2-135m"),
    ("Roses are red, violets are", "smollm2-135m"),
)


def method_titles(kind: str = "image") -> dict[str, str]:
    """Methods for a kind of input: name to title."""
    return {name: cls.card.title for name, cls in attrib.METHODS.items() if kind in cls.applies_to}


def preselected(kind: str = "image") -> list[str]:
    known = method_titles(kind)
    return [name for name in DEFAULT_METHODS[kind] if name in known] or list(known)[:4]


def controls_of(kind: str, name: str) -> list[Control]:
    """A method's controls with what they show at first: its defaults, or what suits this kind of input better."""
    usual = USUAL_SETTINGS.get(kind, {}).get(name, {})
    found = controls.describe(attrib.METHODS[name], "text" if kind == "pair" else kind)
    own = [c for c in found if kind != "pair" or c.name not in ("sites", "edges")]  # /patch asks for these by itself
    return [replace(c, default=usual.get(c.name, c.default)) for c in own]


def list_methods() -> list[dict[str, Any]]:
    """Every method with its card and its settings for each kind of input, as JSON can hold them."""
    return [
        {
            "name": name,
            "title": title,
            "idea": attrib.METHODS[name].card.idea,
            "formula": attrib.METHODS[name].card.formula,
            "reference": attrib.METHODS[name].card.reference,
            "misleads": attrib.METHODS[name].card.misleads,
            "cost": attrib.METHODS[name].card.cost,
            "settings": {kind: _settings(kind, name) for kind in sorted(attrib.METHODS[name].applies_to)},
        }
        for name, title in (method_titles("image") | method_titles("text") | method_titles("pair")).items()
    ]  # fmt: skip


def _settings(kind: str, name: str) -> list[dict[str, Any]]:
    return [
        {"name": c.name, "kind": c.kind, "default": c.shown, "help": c.help, "choices": list(c.choices),
         "low": c.low, "high": c.high}
        for c in controls_of(kind, name)
    ]  # fmt: skip


def example_photos() -> dict[str, str]:
    """Example photos by name."""
    return {name: str(path) for name, path in photos().items()}
