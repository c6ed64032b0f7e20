"""The targets of a report, as text: what a flag, a spec file and a table of inputs can say."""

from __future__ import annotations

from attrib.errors import TargetError
from attrib.targets import Logit, LogitDiff, LogProb

ITEM = "item"  # the input's own target, else the top prediction
PREDICTED = "predicted"
_LOG_PROB, _VERSUS = "log_prob:", " vs "

Asked = Logit | LogitDiff | LogProb


def name_of(text: str | int) -> str | int:
    """A class by label, or by index where the text is a number."""
    stripped = text.strip() if isinstance(text, str) else text
    return int(stripped) if isinstance(stripped, str) and stripped.isdecimal() else stripped


def asked(target: str, own: str | int | None) -> Asked | None:
    """What `target` of a spec asks about an input whose own target is `own`; None: the top prediction."""
    if target == PREDICTED or (target == ITEM and own is None):
        return None
    if target == ITEM:
        return Logit(name_of(own if own is not None else ""))
    if target.startswith(_LOG_PROB):
        return LogProb(name_of(target.removeprefix(_LOG_PROB)))
    first, versus, second = target.partition(_VERSUS)
    return LogitDiff(name_of(first), name_of(second)) if versus else Logit(name_of(target))


def check_target(target: str) -> None:
    """Raise TargetError for what cannot be a target of any model."""
    question = asked(target, None)
    names = [getattr(question, name) for name in vars(question)] if question is not None else [0]
    if any(name == "" for name in names):
        raise TargetError(
            f"the target {target!r} names no class; give a label or an index, 'log_prob: LABEL', 'LABEL vs LABEL', "
            "'predicted' or 'item'"
        )
