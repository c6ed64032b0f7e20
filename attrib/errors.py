"""Every error attrib raises on purpose: what happened, the offending value, and what would work."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class AttribError(Exception):
    """The root of all errors that attrib raises on purpose."""


class InputError(AttribError, ValueError):
    """An input that cannot be explained: not an image, wrong shape, NaN, too large."""


class PromptPairError(InputError):
    """A clean and a corrupted prompt that cannot be compared position by position."""


class TargetError(AttribError, ValueError):
    """A target that the model does not have."""


class UnknownName(AttribError, KeyError):
    """A name that is in no table; the message holds the nearest names."""

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        names = sorted(known)
        spelled = {known.lower(): known for known in reversed(names)}
        near = [spelled[found] for found in get_close_matches(str(name).lower(), spelled, n=3, cutoff=0.4)]
        hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(names[:30])}"
        super().__init__(f"no {kind} is called {name!r}; {hint}")

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0])


class UnsupportedModel(AttribError, TypeError):
    """A model that attrib cannot explain."""


class OpaqueModel(UnsupportedModel):
    """A model whose operations cannot be seen: TorchScript, torch.compile."""


class UncoveredOperation(UnsupportedModel):
    """With `strict=True`: relevance met an operation for which the rule table has no rule."""


class NotApplicable(AttribError, TypeError):
    """A method that has no meaning on this kind of model."""


class ModelUnavailable(AttribError):
    """Weights that are not on this machine and could not be fetched."""


class MissingExtra(AttribError, ImportError):
    """An optional dependency that is not installed."""


class Cancelled(AttribError):
    """The caller stopped the explanation between two chunks."""


class ReportError(AttribError):
    """A report that cannot be written, read or gone on with: another report's folder, a full or read-only disk."""
