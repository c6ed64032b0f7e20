"""One question of the patching tab: two prompts, an answer and a wrong one, a method and the sites it looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import attrib
from app import controls, offers
from app.catalogue import Catalogue
from app.questions import of_kind

MODEL = "smollm2-135m"
METHODS = offers.method_titles("pair")
# kind of site -> (what it is called, the pattern that names all of it)
SITE_KINDS: dict[str, tuple[str, str]] = {
    "resid_post": ("Stream behind each block", "resid_post.*"),
    "attn_out": ("Attention outputs", "attn_out.*"),
    "mixer_out": ("Mixer outputs", "mixer_out.*"),
    "mlp_out": ("MLP outputs", "mlp_out.*"),
    "head": ("Heads", "head.*.*"),
    "q": ("Queries", "head.*.*.q"),
    "k": ("Keys", "head.*.*.k"),
    "v": ("Values", "head.*.*.v"),
    "resid_pre": ("Stream before each block", "resid_pre.*"),
    "resid_mid": ("Stream behind attention", "resid_mid.*"),
    "neuron": ("Neurons of each MLP", "neuron.*"),
    "embed": ("Embeddings", "embed"),
}
USUAL_KINDS = ("resid_post", "attn_out", "mlp_out", "head")
NOT_USUAL = ("mixer_out",)  # offered once a model that has them is chosen
_INSTEAD = {"attn_out": "mixer_out", "mixer_out": "attn_out"}
USUAL_FILLER = " the"
EXAMPLES = {
    "ioi": "Who is given something?",
    "greater_than": "Which year is later?",
    "gendered_pronoun": "He or she?",
    "subject_verb_agreement": "Is or are?",
}
MOST_TOKENS = 256  # of a prompt


@dataclass(frozen=True)
class PatchAsk:
    """One question. answer, wrong: a token by its text or index; wrong None: the answer's logit alone.

    kinds: keys of SITE_KINDS. patterns: more sites, by name or pattern. settings: values of the method's controls.
    filler: the token that fills up the shorter prompt; empty: both must have as many tokens.
    """

    clean: str
    corrupted: str
    model: str = MODEL
    answer: int | str | None = None
    wrong: int | str | None = None
    method: str = "relp"
    kinds: tuple[str, ...] = USUAL_KINDS
    patterns: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    filler: str = ""


def controls_of(method: str) -> list[controls.Control]:
    """A method's controls, short of its sites, which the tab asks for in its own way, and of edges between them."""
    return offers.controls_of("pair", method)


def method_of(ask: PatchAsk) -> Any:
    """The method with its sites and settings. Raises attrib.UnknownName, attrib.InputError."""
    if ask.method not in METHODS:
        raise attrib.UnknownName("patching method", ask.method, METHODS)
    unknown = [kind for kind in ask.kinds if kind not in SITE_KINDS]
    if unknown:
        raise attrib.UnknownName("kind of site", unknown[0], SITE_KINDS)
    strange = set(ask.settings) - {control.name for control in controls_of(ask.method)}
    if strange:
        raise attrib.UnknownName(f"setting of {ask.method}", min(strange), [c.name for c in controls_of(ask.method)])
    sites = tuple(dict.fromkeys((*(SITE_KINDS[kind][1] for kind in ask.kinds), *ask.patterns)))
    if not sites:
        raise attrib.InputError("choose at least one kind of site, or write the name of a site such as attn_out.3")
    return controls.build(attrib.METHODS[ask.method], "text", {**ask.settings, "sites": sites})


def model_of(catalogue: Catalogue, name: str) -> Any:
    """A language model. Raises attrib.NotApplicable for a model without a language-model head."""
    model = of_kind(catalogue, name, "text")
    if model.task == "classification":
        raise attrib.NotApplicable(
            f"{name} has no language-model head: it tells classes and says no next token; choose a language model, "
            f"such as {MODEL}"
        )
    return model


def kinds_for(model: Any, chosen: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """(the kinds of sites that the model has, as choices; those chosen among them)."""
    has = attrib.site_kinds(model)
    choices = [(title, kind) for kind, (title, _) in SITE_KINDS.items() if kind in has]
    wanted = [kind if kind in has else _INSTEAD.get(kind, kind) for kind in chosen or USUAL_KINDS]
    return choices, [kind for kind in dict.fromkeys(wanted) if kind in has]


def target_of(model: Any, ask: PatchAsk) -> Any:
    """What is compared in the two runs. Raises attrib.TargetError where a token is none, or both are the same."""
    if ask.answer is None:
        raise attrib.TargetError("choose the answer: click a prediction of the clean run, or write a token")
    answer = model.index_of(ask.answer)
    if ask.wrong is None:
        return attrib.TokenLogit(answer)
    wrong = model.index_of(ask.wrong)
    if answer == wrong:
        raise attrib.TargetError(
            f"answer and wrong answer are both {model.label_of(answer)!r}: their difference is always 0; choose two "
            "different tokens"
        )
    return attrib.LogitDiff(answer, wrong)


def example(catalogue: Catalogue, model: str, task: str, seed: int) -> PatchAsk:
    """A pair of one of attrib's tasks, made for the model's tokens. Raises attrib's errors."""
    if task not in attrib.tasks.TASKS:
        raise attrib.UnknownName("task", task, attrib.tasks.TASKS)
    loaded = model_of(catalogue, model)
    made = attrib.tasks.TASKS[task](loaded, n=1, seed=seed)
    clean, corrupted = str(made.pair.clean[0]), str(made.pair.corrupted[0])
    return PatchAsk(clean, corrupted, model, made.answers[0], made.wrong[0])
