"""Prompt pairs for known circuits, made for the tokenizer at hand: every pair agrees token by token.

ioi                     "When Mary and John went to the shop, John gave a book to" → Mary rather than John; in the
                        corrupted prompt Mary gives (Wang et al. 2022, arXiv:2211.00593)
greater_than            "The war lasted from the year 1754 to the year 17" → a later year rather than an earlier one;
                        in the corrupted prompt it began before both (Hanna et al. 2023, arXiv:2305.00586)
gendered_pronoun        a sentence about one person → he rather than she; the corrupted prompt names somebody else
subject_verb_agreement  "The keys near the box" → are rather than is; in the corrupted prompt it is one key

Words are drawn with a seed; words that are several tokens are left out; what the sentences say is of no account.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from random import Random
from typing import TYPE_CHECKING

from attrib.errors import InputError, NotApplicable, UnsupportedModel
from attrib.patching import vocabulary as words
from attrib.patching.drafts import Draft, ending, ids_of, in_tokens
from attrib.patching.pair import Pair, pair
from attrib.targets import LogitDiff

if TYPE_CHECKING:
    from attrib.models.text import TextModel

_FRUITLESS = 1000  # draws in a row that give no new pair, after which there are no more


@dataclass(frozen=True)
class Task:
    """Pairs with their answers. answers, wrong: token ids of the right answer to the clean prompt, and of the wrong
    one, which is right or more nearly so for the corrupted prompt. All pairs have the same number of tokens, with the
    words that matter at the same positions."""

    name: str
    pair: Pair
    answers: tuple[int, ...]
    wrong: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def target(self) -> list[LogitDiff]:
        """What to explain of each pair: logit(answer) − logit(wrong answer)."""
        return [LogitDiff(answer, wrong) for answer, wrong in zip(self.answers, self.wrong, strict=True)]


def ioi(model: TextModel, n: int = 100, seed: int = 0) -> Task:
    """Indirect object identification: who is given something, when the giver is named twice."""

    def draw(random: Random) -> Draft:
        receiver, giver = random.sample(words.NAMES, 2)
        first, second = (receiver, giver) if random.random() < 0.5 else (giver, receiver)
        form = random.choice(words.GIVING)
        slots = {"first": first, "second": second, "place": random.choice(words.PLACES)}
        slots["thing"] = random.choice(words.THINGS)
        clean, corrupted = form.format(giver=giver, **slots), form.format(giver=receiver, **slots)
        return Draft(clean, corrupted, receiver, giver, order="receiver first" if first == receiver else "giver first")

    return _task("ioi", model, n, seed, draw)


def greater_than(model: TextModel, n: int = 100, seed: int = 0) -> Task:
    """A span of years ends after it begins."""

    def draw(random: Random) -> Draft:
        form, noun, century = random.choice(words.SPANS), random.choice(words.EVENTS), random.randint(11, 18)
        begin, other = random.randint(50, 69), random.randint(2, 9)
        later, earlier = random.randint(begin // 10 + 1, 9) * 10 + random.randint(2, 9), random.randint(22, 39)
        clean, corrupted = (form.format(noun=noun, century=century, year=f"{y:02d}") for y in (begin, other))
        return Draft(clean, corrupted, f"{later:02d}", f"{earlier:02d}", whole=False)

    return _task("greater_than", model, n, seed, draw)


def gendered_pronoun(model: TextModel, n: int = 100, seed: int = 0) -> Task:
    """The pronoun that usually goes with a first name."""

    def draw(random: Random) -> Draft:
        names, pronouns = [random.choice(words.HIS), random.choice(words.HERS)], ["he", "she"]
        if random.random() < 0.5:
            names, pronouns = names[::-1], pronouns[::-1]
        form = random.choice(words.ABOUT_ONE)
        clean, corrupted = (form.format(name=name) for name in names)
        return Draft(clean, corrupted, pronouns[0], pronouns[1], order=pronouns[0])

    return _task("gendered_pronoun", model, n, seed, draw)


def subject_verb_agreement(model: TextModel, n: int = 100, seed: int = 0) -> Task:
    """The verb agrees with its subject, not with the noun beside it."""

    def draw(random: Random) -> Draft:
        (one, many), (other, others) = random.sample(words.NOUNS, 2)
        verbs = random.choice(words.VERBS)
        subjects = [one, many]
        if random.random() < 0.5:
            subjects, verbs = subjects[::-1], verbs[::-1]
        form, beside = random.choice(words.BESIDE), random.choice((other, others))
        clean, corrupted = (form.format(subject=subject, beside=beside) for subject in subjects)
        return Draft(clean, corrupted, verbs[0], verbs[1])

    return _task("subject_verb_agreement", model, n, seed, draw)


TASKS: dict[str, Callable[..., Task]] = {
    "ioi": ioi,
    "greater_than": greater_than,
    "gendered_pronoun": gendered_pronoun,
    "subject_verb_agreement": subject_verb_agreement,
}


def padded(model: TextModel, clean: str, corrupted: str, filler: str = " the") -> Pair:
    """The two prompts as token ids, the shorter of two differing spans lengthened so that all positions agree.

    filler: one token, repeated in front of the shorter span. The model reads it: take one that says little, and look
    at both runs' metric before believing the effects. Raises InputError where the filler is not one token.
    """
    token = model.index_of(filler)
    first, second = (list(ids_of(model, text)) for text in (clean, corrupted))
    rows: tuple[list[int], list[int]] = ([], [])
    for _, a, b, c, d in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        spans = first[a:b], second[c:d]
        length = max(map(len, spans))
        for row, span in zip(rows, spans, strict=True):
            row += [token] * (length - len(span)) + span
    return pair(*rows)


def _task(name: str, model: TextModel, n: int, seed: int, draw: Callable[[Random], Draft]) -> Task:
    """n different pairs that share their token positions; the first such group that is complete."""
    if getattr(model, "kind", "") != "text" or model.task == "classification":
        raise NotApplicable(f"{model.name} has no language-model head, so it has no answers in tokens to {name}")
    if n < 1:
        raise InputError(f"n = {n}: ask for at least one pair")
    groups: dict[tuple[object, ...], dict[str, tuple[Draft, int, int]]] = {}
    random, fruitless = Random(seed), 0
    while fruitless < _FRUITLESS:
        draft = draw(random)
        found = in_tokens(model, draft)
        fruitless += 1
        if found is None:
            continue
        layout, answer, wrong = found
        group = groups.setdefault((draft.order, *layout), {})
        fruitless = fruitless if draft.clean in group else 0
        group.setdefault(draft.clean, (draft, answer, wrong))
        if len(group) == n:
            return _made(name, model, list(group.values()))
    most = max(map(len, groups.values()), default=0)
    if most == 0:
        raise UnsupportedModel(f"{model.name} splits the words of {name} in a way that leaves no pair of prompts alike")
    raise InputError(f"only {most} pairs of {name} agree in their tokens for {model.name}; ask for at most that many")


def _made(name: str, model: TextModel, chosen: Sequence[tuple[Draft, int, int]]) -> Task:
    end = ending(model)
    pairs = pair([draft.clean + end for draft, _, _ in chosen], [draft.corrupted + end for draft, _, _ in chosen])
    return Task(name, pairs, tuple(a for _, a, _ in chosen), tuple(w for _, _, w in chosen))
