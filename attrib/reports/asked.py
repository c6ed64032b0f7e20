"""The targets of a report, as text: what a flag, a spec file and a table of inputs can say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from attrib.errors import TargetError
from attrib.targets import Logit, LogitDiff, LogProb

ITEM = "item"  # the input's own target, else the top prediction
PREDICTED = "predicted"
_LOG_PROB, _VERSUS = "log_prob:", " vs "

Asked = Logit | LogitDiff | LogProb


def name_of(text: str | int) -> str | int:
    """A class by label, or by index where the text is a number. Spaces stay: " Paris" and "Paris" are two tokens."""
    return int(text) if isinstance(text, str) and text.strip().isdecimal() else text


def asked(target: str, own: str | int | None) -> Asked | None:
    """What `target` of a spec asks about an input whose own target is `own`; None: the top prediction."""
    if target == PREDICTED or (target == ITEM and own is None):
        return None
    if target == ITEM:
        return Logit(name_of(own if own is not None else ""))
    if target.startswith(_LOG_PROB):
        return LogProb(name_of(target.removeprefix(_LOG_PROB).removeprefix(" ")))
    first, versus, second = target.partition(_VERSUS)
    return LogitDiff(name_of(first), name_of(second)) if versus else Logit(name_of(target))


def settled(question: Asked, index_of: Callable[[int | str], int]) -> Asked:
    """The same with classes as indices; `index_of` looks a label up or raises TargetError."""
    if isinstance(question, LogitDiff):
        return replace(question, positive=index_of(question.positive), negative=index_of(question.negative))
    return replace(question, index=index_of(question.index))


def check_target(target: str) -> None:
    """Raise TargetError for what cannot be a target of any model."""
    question = asked(target, None)
    fields = ("index", "positive", "negative")
    names = [getattr(question, field) for field in fields if hasattr(question, field)]
    if not all(str(name).strip() for name in names):
        raise TargetError(
            f"the target {target!r} names no class; give a label or an index, 'log_prob: LABEL', 'LABEL vs LABEL', "
            "'predicted' or 'item'"
        )
