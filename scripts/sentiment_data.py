"""The texts that minilm-sentiment's head is trained and tested on, and on which side of the split each one stays.

The snippets of movie reviews, Amazon reviews and tweets, rated by 20 people each, of Hutto & Gilbert (2014), from the
sdist of vaderSentiment 0.5. Label: the sign of the mean rating where it is at least 0.5 away from zero. A fifth of the
groups is held out; a group is an Amazon review (its sentences stay together) or, where there is no id of one, all
snippets with the same words.

Plain negation is rare in these texts, so sentences made from templates are added to the training data ("not good at
all", "never boring"); words and templates for the check of negation are others than those for training.
"""

from __future__ import annotations

import hashlib
import html
import io
import random
import re
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from attrib.models.pull import Package

DATA = Package("vaderSentiment==0.5", "5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a", 2_448_964)
INNER = "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz"
SOURCES = {"movies": "movieReviewSnippets", "Amazon": "amazonReviewSnippets", "tweets": "tweets"}

SEED = 0

POSITIVE = (
    "good great nice wonderful lovely brilliant funny helpful pleasant useful clever charming exciting fast easy "
    "superb excellent fantastic cool sweet perfect smart enjoyable pretty happy impressive comfortable reliable"
)
NEGATIVE = (
    "bad terrible awful boring dull stupid ugly useless poor annoying broken slow confusing ridiculous weak "
    "dreadful lame bland gross cheap mediocre lousy painful irritating pointless tiresome unpleasant rude dirty"
)
HELD_POSITIVE = "amazing interesting beautiful delightful fun"
HELD_NEGATIVE = "horrible tedious disappointing nasty sad"
THINGS = "movie film book phone camera story song food service product game hotel player plot show acting day"
HELD_THINGS = "laptop restaurant novel concert idea"
PLAIN = ("it is {a}", "the {t} was {a}", "{a}", "a {a} {t}", "this {t} is really {a}", "very {a}", "so {a}!")
NEGATED = (
    "not {a}", "not {a} at all", "it is not {a}", "the {t} was not {a}", "it isn't {a}", "this {t} wasn't {a} at all",
    "never {a}", "not a {a} {t}", "the {t} is not very {a}", "far from {a}", "I don't think the {t} is {a}",
    "nothing {a} about this {t}", "it was never {a}", "isn't {a}", "hardly {a}",
)  # fmt: skip
HELD_NEGATED = ("the {t} is not {a} at all", "that {t} isn't {a}", "not really {a}", "it was not a {a} {t}")
LIKING = ("like", "love", "enjoy", "recommend", "want", "trust")
DISLIKING = ("hate", "regret", "dislike", "mind")
VERBS = ("I {v} it", "I {v} this {t}", "we really {v} the {t}")
NEGATED_VERBS = ("I did not {v} it", "I don't {v} this {t}", "we didn't {v} the {t} at all", "I do not {v} the {t}")
BY_HAND = (
    ("not good at all", 0), ("not bad", 1), ("I did not like it", 0), ("never boring", 1), ("good", 1), ("bad", 0),
    ("The food was not good at all.", 0), ("not bad at all", 1), ("I do not recommend this phone.", 0),
    ("I didn't enjoy the film", 0), ("The film is never boring.", 1), ("This is not a good movie.", 0),
    ("It's not terrible", 1), ("I really liked it", 1), ("This movie was a waste of time.", 0),
)  # fmt: skip


@dataclass(frozen=True)
class Snippet:
    """One text with its label (0 negative, 1 positive) and the group that decides on which side it stays."""

    text: str
    label: int
    source: str
    group: str


def snippets(archive: Path) -> list[Snippet]:
    """All rated snippets that are clearly positive or negative."""
    with zipfile.ZipFile(archive) as outer, tarfile.open(fileobj=io.BytesIO(outer.read(INNER))) as inner:
        files = {}
        for source, name in SOURCES.items():
            member = inner.extractfile(f"hutto_ICWSM_2014/{name}_GroundTruth.txt")
            assert member is not None
            files[source] = member.read().decode("utf-8-sig", errors="replace")
    found = []
    for source, content in files.items():
        for line in content.splitlines():
            key, rating, text = line.split("\t", 2)
            text = html.unescape(text.strip())
            if abs(float(rating)) < 0.5 or not text:
                continue
            review = key.split("_")[0] if source == "Amazon" else ""
            words = " ".join(re.findall(r"\w+", text.casefold()))
            found.append(Snippet(text, int(float(rating) > 0), source, f"{source} {review or words}"))
    return _joined_by_words(found)


def _joined_by_words(found: list[Snippet]) -> list[Snippet]:
    """Groups that share a snippet with the same words become one group, so that no text is on both sides."""
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        while parent.setdefault(group, group) != group:
            group = parent[group]
        return group

    first: dict[str, str] = {}
    for s in found:
        words = " ".join(re.findall(r"\w+", s.text.casefold()))
        parent[root(s.group)] = root(first.setdefault(words, s.group))
    return [Snippet(s.text, s.label, s.source, root(s.group)) for s in found]


def fold(group: str) -> int:
    """0 to 9, the same on every machine and in every order of the data."""
    return int(hashlib.sha256(f"{SEED} {group}".encode()).hexdigest(), 16) % 10


def negations(n: int, rng: random.Random) -> list[Snippet]:
    """n sentences from the training templates, each polarity and each of plain and negated equally often."""
    made = []
    for i in range(n):
        label, negated = i % 2, i % 3 != 0
        if rng.random() < 0.25:
            verb = rng.choice(LIKING if label != negated else DISLIKING)
            text = rng.choice(NEGATED_VERBS if negated else VERBS).format(v=verb, t=rng.choice(THINGS.split()))
        else:
            word = rng.choice((POSITIVE if label != negated else NEGATIVE).split())
            text = rng.choice(NEGATED if negated else PLAIN).format(a=word, t=rng.choice(THINGS.split()))
        made.append(Snippet(_spelled(text, rng), label, "made", text))
    return made


def _spelled(text: str, rng: random.Random) -> str:
    text = text.replace(" a a", " an a").replace(" a e", " an e").replace(" a u", " an u")
    return (text[0].upper() + text[1:] if rng.random() < 0.5 else text) + rng.choice(("", "", ".", "!"))


def held_negations() -> list[Snippet]:
    """Words, things and templates that no training sentence has."""
    made = []
    for label, words in ((0, HELD_POSITIVE), (1, HELD_NEGATIVE)):
        for word in words.split():
            for i, template in enumerate(HELD_NEGATED):
                thing = HELD_THINGS.split()[i % 5]
                made.append(Snippet(template.format(a=word, t=thing), label, "negated, made", ""))
    return made + [Snippet(text, label, "by hand", "") for text, label in BY_HAND]
