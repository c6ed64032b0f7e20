"""Small tasks whose truth is known by construction: what a map must show, so that methods can be right or wrong.

`attrib.truth.make(name)` trains a small network (some seconds, once a process and seed) and proves by intervention
that it follows the rule; `attrib.truth.score(truth)` sets every method's maps against what the rule says.
"""

from __future__ import annotations

from functools import cache

from attrib.errors import InputError, UnknownName
from attrib.truth.base import Proof, Task, Truth
from attrib.truth.pictures import COLOUR_RULE, PATTERN_RULE, colour_patch, two_features
from attrib.truth.positions import POSITION_RULE, position_only
from attrib.truth.scoring import fitting, position_share, score
from attrib.truth.texts import NEGATION_RULE, negation

__all__ = ["TASKS", "Proof", "Task", "Truth", "fitting", "make", "position_share", "score"]

TASKS: dict[str, Task] = {
    "colour_patch": Task("colour_patch", COLOUR_RULE, colour_patch),
    "two_features": Task("two_features", PATTERN_RULE, two_features),
    "negation": Task("negation", NEGATION_RULE, negation),
    "position_only": Task("position_only", POSITION_RULE, position_only),
}


@cache
def make(name: str, seed: int = 0, n: int = 32) -> Truth:
    """The task of that name with its trained network and n held-out inputs that it predicts rightly."""
    if name not in TASKS:
        raise UnknownName("task", name, TASKS)
    if n < 1:
        raise InputError(f"n = {n}: explain at least one input")
    return TASKS[name].make(seed, n)
