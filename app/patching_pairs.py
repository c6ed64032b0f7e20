"""Two prompts as tokens under each other, what the model makes of each, and whether they can be patched."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, NamedTuple

import attrib
from app.patching_questions import MOST_TOKENS, PatchAsk

_PREDICTED = 5


class Column(NamedTuple):
    """One place of the alignment: the token of each prompt there; None where only the other has one."""

    clean: str | None
    corrupted: str | None

    @property
    def differs(self) -> bool:
        return self.clean != self.corrupted


@dataclass(frozen=True)
class Look:
    """What can be said of two prompts before anything is patched.

    clean, corrupted: each run's likeliest next tokens: index, label, probability. problem: why this pair cannot be
    patched, if it cannot. uneven: the prompts have different numbers of tokens, which padding would mend.
    """

    columns: tuple[Column, ...]
    clean: list[dict[str, Any]]
    corrupted: list[dict[str, Any]]
    problem: str = ""
    uneven: bool = False


def look(model: Any, ask: PatchAsk) -> Look:
    """Raises attrib's errors where a prompt by itself is wrong; what is wrong with the two together is in `problem`."""
    given = _prompts(model, ask)
    rows = [model.encode(prompt).token_texts[0] for prompt in given]
    clean, corrupted = (
        [{"index": int(p.index), "label": str(p.label), "probability": float(p.probability)} for p in found]
        for prompt in given for found in model.predict(prompt, k=_PREDICTED)
    )  # fmt: skip
    problem = _problem(given, rows)
    return Look(alignment(*rows), clean, corrupted, problem, len(rows[0]) != len(rows[1]))


def pair_of(model: Any, ask: PatchAsk) -> attrib.Pair:
    """The pair to patch, padded where the question says so. Raises attrib.PromptPairError."""
    given = _prompts(model, ask)
    problem = _problem(given, [model.encode(prompt).token_texts[0] for prompt in given])
    if problem:
        raise attrib.PromptPairError(problem)
    return attrib.pair(*given)


def alignment(clean: tuple[str, ...], corrupted: tuple[str, ...]) -> tuple[Column, ...]:
    """Position by position where both have as many tokens; else equal stretches under each other."""
    if len(clean) == len(corrupted):
        return tuple(map(Column, clean, corrupted))
    found: list[Column] = []
    for _, a, b, c, d in SequenceMatcher(None, clean, corrupted, autojunk=False).get_opcodes():
        size = max(b - a, d - c)
        first, second = ([*part, *[None] * (size - len(part))] for part in (clean[a:b], corrupted[c:d]))
        found += map(Column, first, second)
    return tuple(found)


def _prompts(model: Any, ask: PatchAsk) -> list[Any]:
    """Both prompts as they go into the model: texts, or rows of token ids where they are padded."""
    for name, text in (("clean", ask.clean), ("corrupted", ask.corrupted)):
        if not text.strip():
            raise attrib.InputError(f"write the {name} prompt first, or take an example")
        size = len(model.encode(text).token_ids[0])
        if size > MOST_TOKENS:
            raise attrib.InputError(f"the {name} prompt has {size} tokens; heatmaps show at most {MOST_TOKENS}")
    if not ask.filler:
        return [ask.clean, ask.corrupted]
    padded = attrib.tasks.padded(model, ask.clean, ask.corrupted, ask.filler)
    return [list(padded.clean[0]), list(padded.corrupted[0])]


def _problem(given: list[Any], rows: list[tuple[str, ...]]) -> str:
    if given[0] == given[1]:
        return "Both prompts are the same, so every effect is zero; change the words that decide the answer."
    if len(rows[0]) != len(rows[1]):
        return (
            f"The clean prompt has {len(rows[0])} tokens and the corrupted one {len(rows[1])}; patching needs as many "
            "in both. Take words of as many tokens, or fill up the shorter prompt."
        )
    return ""
