"""Layer-wise relevance propagation: one backward pass under a table of rules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from attrib.errors import InputError, UnknownName
from attrib.methods.base import Card, Finding, Method, Question, setting
from attrib.methods.bounds import carried, of_inputs
from attrib.methods.composite import explain_with_composite
from attrib.methods.propagation import of_each_sample, propagate
from attrib.methods.with_positions import AGGREGATES, with_positions
from attrib.rules.layer import Bias
from attrib.rules.presets import HALVED_VALUES, PRESETS, preset_named
from attrib.rules.stabiliser import Stabiliser
from attrib.rules.table import Rules

VALUE_PATHS = ("whole", "halved")
_AUTO = {"image": "epsilon_plus_flat", "text": "attn_lrp"}
# of texts: without those whose first rule is for pixels, or which look at the sign of weights alone
_OFFERED = {"image": ("auto", *PRESETS), "text": ("auto", "attn_lrp", "cp_lrp", "epsilon", "gradient")}


@dataclass(frozen=True, eq=False)
class LRP(Method):
    """Relevance of every input, and a ledger of where the rest of the score went. Bach et al. 2015.

    preset: a table of `attrib.rules.presets` by its name, or one of your own; "auto": epsilon_plus_flat for images,
        attn_lrp for texts (one default for both kinds of model, for which one preset would be wrong for one of them).
    rules: a table of your own that overrides the preset's. composite: a zennit composite to run instead.
    positions: transformers only: content and position relevance in `parts`, their sum in `values`.
    value_path: of cp_lrp's attention: "whole" gives values all its relevance; "halved" drops half, which the ledger
        shows, as the published code for ViTs does.
    stabiliser: ε of the preset's denominators, in units of a layer's output, or a Stabiliser.
    bias: "absorbs": biases take their share, which the ledger shows; "excluded": zennit's zero_params=["bias"].
    low, high: bounds of the preprocessed input for z-box, taken as given; None: from the model's preprocessing, else
        each input's own. What the model itself does before its first layer is done to them too.
    """

    name: ClassVar[str] = "lrp"
    applies_to: ClassVar[frozenset[str]] = frozenset({"image", "text"})
    memory_factor: ClassVar[float] = 2.0
    card: ClassVar[Card] = Card(
        title="Layer-wise relevance propagation",
        idea="Hand the score back layer by layer, each neuron giving to its inputs what they contributed.",
        formula="R_i = Σ_j (x_i·ρ(w_ij) / Σ_i x_i·ρ(w_ij)) R_j, ρ chosen per layer by the preset",
        reference="Bach et al. 2015, doi:10.1371/journal.pone.0130140; Montavon et al. 2019 (presets)",
        assumptions="Every operation has a rule; the ledger shows what biases and stabilisers absorbed.",
        misleads="z⁺ rules look alike for every class: compare two targets before reading a map as evidence for one. "
        "Flat and box presets share relevance among the pixels of a receptive field. On transformers AttnLRP "
        "never adds up to the logit: the softmax keeps a remainder, which the ledger shows; CP-LRP gives none to "
        "queries and keys.",
        cost="1 F + 1 B, and one more forward per z⁺ or γ layer",
    )

    preset: str | Rules = setting(
        "auto",
        {
            "image": "Which rule each layer gets; auto: epsilon_plus_flat. The two for transformers: attn_lrp, cp_lrp",
            "text": "Which rule each operation gets; auto: attn_lrp",
        },
        choices=_OFFERED,
    )
    positions: bool = setting(False, "Give relevance to positions too (transformers)")
    low: Any = setting(None, "Lower bound of the preprocessed input (z-box)", advanced=True)
    high: Any = setting(None, "Upper bound of the preprocessed input (z-box)", advanced=True)
    composite: Any = setting(None, "A zennit composite to run instead", advanced=True)
    position_aggregate: str = setting(
        "signed",
        "How the positions of all layers become one number: their sum, or the sum of their sizes",
        choices=AGGREGATES,
        advanced=True,
    )
    value_path: str = setting(
        "whole",
        "cp_lrp's attention hands the values all of its relevance, or half, as the code of PA-LRP for ViTs does",
        choices=VALUE_PATHS,
        advanced=True,
    )
    stabiliser: float | Stabiliser = setting(1e-6, "ε that keeps denominators from zero", low=0.0, advanced=True)
    bias: Bias = setting("absorbs", "Biases take their share, or all relevance goes to the input", advanced=True)
    rules: Rules | None = setting(None, "Rules that override the preset's", advanced=True)

    @property
    def shares_forward(self) -> bool:
        return self.composite is None

    def settled(self, kind: str) -> LRP:
        return replace(self, preset=_AUTO[kind]) if self.preset == "auto" and self.composite is None else self

    def explain(self, question: Question) -> Finding:
        for field, given, known in (
            ("value path", self.value_path, VALUE_PATHS),
            ("aggregate of positions", self.position_aggregate, AGGREGATES),
        ):
            if given not in known:
                raise UnknownName(field, given, known)
        if self.composite is not None:
            return explain_with_composite(self.composite, question)
        settled = self.settled(question.model.kind)
        return of_each_sample(question, settled._explained, settled.preset)

    def _explained(self, question: Question) -> Finding:
        preset = self.preset
        if isinstance(preset, Rules):
            rules = preset
        else:
            rules = preset_named(preset, of_inputs(question, self.low, self.high), self.stabiliser, self.bias)
        if self.value_path == "halved":
            if preset != "cp_lrp":
                raise InputError(f"value_path='halved' is a variant of cp_lrp, and the preset is {preset}")
            rules = rules | HALVED_VALUES
        if self.rules is not None:
            rules = rules | self.rules
        rules, notes = carried(question, rules)
        if self.positions:
            found = with_positions(question, rules, self.position_aggregate)
        else:
            found = propagate(question, rules)
        return replace(found, notes=(*found.notes, *notes))
