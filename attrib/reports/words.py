"""Which words speak for and against a class, over many texts, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from attrib.reports.statistics import Running
from attrib.reports.store import Row
from attrib.reports.summary import Series

MOST_KNOWN = 4000  # words of a class that are kept at once
MOST_GROUPS = 100
MAX_WORD = 60
MANY_TEXTS = 20  # from here on a word must be in two of them


class WordView(NamedTuple):
    """A word, in how many texts it was, and its mean share of a text's |relevance|, with sign."""

    word: str
    texts: int
    share: float


@dataclass
class Words:
    """Per class the running mean of each word's share. Where there are too many, the rarest are forgotten."""

    known: dict[tuple[Series, str], dict[str, Running]] = field(default_factory=dict)
    texts: dict[tuple[Series, str], int] = field(default_factory=dict)
    forgotten: bool = False

    def add(self, group: tuple[Series, str], row: Row, values: np.ndarray) -> None:
        """The words of one text; a word that is in it twice counts once, with the sum."""
        if group not in self.known and len(self.known) >= MOST_GROUPS:
            self.forgotten = True
            return
        total = float(np.abs(values).sum(dtype=np.float64)) or 1.0
        table = self.known.setdefault(group, {})
        self.texts[group] = self.texts.get(group, 0) + 1
        for word, value in words_of(row, values).items():
            table.setdefault(word[:MAX_WORD], Running()).add(value / total)
        if len(table) > MOST_KNOWN:
            kept = sorted(table.items(), key=lambda w: (-w[1].count, w[0]))[: MOST_KNOWN // 2]
            self.known[group], self.forgotten = dict(kept), True

    def strongest(self, group: tuple[Series, str], most: int = 10) -> tuple[list[WordView], list[WordView]]:
        """Words for the class and words against it, strongest first; of many texts, words of two or more."""
        found = [WordView(w, r.count, float(r.mean)) for w, r in self.known.get(group, {}).items()]
        if self.texts.get(group, 0) >= MANY_TEXTS:
            found = [w for w in found if w.texts > 1]
        ordered = sorted(found, key=lambda w: (-w.share, w.word))
        return [w for w in ordered if w.share > 0][:most], [w for w in reversed(ordered) if w.share < 0][:most]


def words_of(row: Row, values: np.ndarray) -> dict[str, float]:
    """Lower-case word → the sum of its tokens' relevance; special tokens are no words."""
    texts: dict[int, str] = {}
    sums: dict[int, float] = {}
    words = row.words or tuple(range(len(row.tokens)))
    for token, word, value in zip(row.tokens, words, values.tolist(), strict=False):
        if word is not None:
            texts[word] = texts.get(word, "") + token
            sums[word] = sums.get(word, 0.0) + value
    found: dict[str, float] = {}
    for word, text in texts.items():
        name = text.strip().lower()
        if any(c.isalnum() for c in name):
            found[name] = found.get(name, 0.0) + sums[word]
    return found
