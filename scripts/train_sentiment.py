"""Train the head and the last two layers of minilm-sentiment: assets/weights/minilm_sentiment.safetensors.

Data: the snippets of movie reviews, Amazon reviews and tweets, rated by 20 people each, of Hutto & Gilbert (2014),
from the sdist of vaderSentiment 0.5. They are downloaded into a temporary folder and not kept. Label: the sign of the
mean rating where it is at least 0.5 away from zero. A fifth of the groups is held out; a group is an Amazon review
(its sentences stay together) or, where there is no id of one, all snippets with the same words.

Plain negation is rare in these texts, so sentences made from templates are added to the training data ("not good at
all", "never boring"); words and templates for the check of negation are others than those for training.

Run: python scripts/train_sentiment.py [--validate] [--epochs N] [--out FILE]
--validate holds out a further tenth of the training groups and reports on it instead, for choosing settings.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import io
import random
import re
import tarfile
import tempfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.nn import functional as F

from attrib.models.minilm import TRAINED, untrained
from attrib.models.pull import Package, download

DATA = Package("vaderSentiment==0.5", "5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a", 2_448_964)
INNER = "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz"
SOURCES = {"movies": "movieReviewSnippets", "Amazon": "amazonReviewSnippets", "tweets": "tweets"}
TARGET = Path(__file__).parents[1] / "assets" / "weights" / "minilm_sentiment.safetensors"

SEED = 0
LONGEST = 128  # tokens
BATCH = 32
RATE = 1.5e-4
NEGATION_SHARE = 0.12  # of the training data

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


@dataclass
class Cached:
    """Snippets with what the layers that are not trained make of them: (tokens, width) each, half precision."""

    states: list[Tensor]
    labels: Tensor
    sources: list[str]
    texts: list[str]


@torch.no_grad()
def cached(model: Any, tokenizer: Any, parts: list[Snippet]) -> Cached:
    """Run the frozen layers once over every snippet."""
    order = sorted(range(len(parts)), key=lambda i: len(parts[i].text))
    states: list[Tensor] = [torch.empty(0)] * len(parts)
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        batch = tokenizer(
            [parts[i].text for i in rows], padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
        )
        hidden = model.base_model(**batch, output_hidden_states=True).hidden_states[-1 - TRAINED]
        for i, state, mask in zip(rows, hidden, batch["attention_mask"], strict=True):
            states[i] = state[: int(mask.sum())].half()
    labels = torch.tensor([s.label for s in parts])
    return Cached(states, labels, [s.source for s in parts], [s.text for s in parts])


class Upper(nn.Module):
    """What is trained: the last layers, the pooler and the classifier, the very modules of the whole model."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        base = model.base_model
        self.layers = base.encoder.layer[-TRAINED:]
        self.pooler, self.dropout, self.classifier = base.pooler, model.dropout, model.classifier

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        allowed = mask[:, None, None, :].expand(-1, 1, mask.shape[1], -1)
        for layer in self.layers:
            output = layer(states, allowed)
            states = output[0] if isinstance(output, tuple) else output
        logits: Tensor = self.classifier(self.dropout(self.pooler(states)))
        return logits


def batches(data: Cached, size: int, rng: random.Random | None) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
    """(states, mask, rows) of similar length; shuffled with `rng`."""
    order = sorted(range(len(data.states)), key=lambda i: len(data.states[i]) + (rng.random() * 4 if rng else 0))
    groups = [order[i : i + size] for i in range(0, len(order), size)]
    if rng is not None:
        rng.shuffle(groups)
    for rows in groups:
        states = nn.utils.rnn.pad_sequence([data.states[i] for i in rows], batch_first=True).float()
        lengths = torch.tensor([len(data.states[i]) for i in rows])
        yield states, torch.arange(states.shape[1])[None] < lengths[:, None], rows


def train(upper: Upper, data: Cached, epochs: int) -> None:
    """AdamW, a short warm-up, then linearly down to zero."""
    rng = random.Random(SEED)
    steps = epochs * -(-len(data.states) // BATCH)
    optimiser = torch.optim.AdamW(upper.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / (0.1 * steps), (steps - step) / (0.9 * steps))
    )
    upper.train()
    done, begun = 0, time.monotonic()
    for epoch in range(epochs):
        total = 0.0
        for states, mask, rows in batches(data, BATCH, rng):
            loss = F.cross_entropy(upper(states, mask), data.labels[rows], label_smoothing=0.05)
            loss.backward()
            nn.utils.clip_grad_norm_(upper.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            schedule.step()
            total, done = total + loss.item(), done + 1
        print(f"epoch {epoch + 1}: loss {total * epochs / steps:.4f}, {time.monotonic() - begun:.0f} s", flush=True)
    upper.eval()


@torch.no_grad()
def report(upper: Upper, data: Cached) -> None:
    """Accuracy of every source, and the made sentences it gets wrong."""
    upper.eval()
    right: dict[str, list[bool]] = defaultdict(list)
    wrong = []
    for states, mask, rows in batches(data, 64, None):
        probabilities = upper(states, mask).softmax(1)
        for row, p in zip(rows, probabilities, strict=True):
            correct = int(p.argmax()) == int(data.labels[row])
            right[data.sources[row]].append(correct)
            if not correct and data.sources[row] in ("by hand", "negated, made"):
                wrong.append(f"{data.texts[row]!r} positive {float(p[1]):.2f}")
    for source, answers in right.items():
        print(f"  {source}: {sum(answers) / len(answers):.3f} of {len(answers)}")
    for line in wrong:
        print("   wrong:", line)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=TARGET)
    options = parser.parse_args()
    torch.manual_seed(SEED)
    with tempfile.TemporaryDirectory() as folder:
        found = snippets(download(DATA, Path(folder), lambda part: None))
    held = {2} if options.validate else {0, 1}
    used = [s for s in found if fold(s.group) not in {0, 1, *held}]
    tested = [s for s in found if fold(s.group) in held]
    assert not {s.group for s in used} & {s.group for s in tested}
    print(f"{len(used)} snippets to train on, {len(tested)} held out")
    used += negations(int(NEGATION_SHARE * len(used)), random.Random(SEED))
    model, tokenizer = untrained()
    model.eval()
    data, test = cached(model, tokenizer, used), cached(model, tokenizer, [*tested, *held_negations()])
    upper = Upper(model)
    upper.requires_grad_(True)
    train(upper, data, options.epochs)
    report(upper, test)
    state = trained_state(model)
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False)
    print("after rounding to half precision:")
    report(upper, test)
    # one key only: safetensors writes several in no fixed order, and the file is known by its sha256
    origin = {"origin": "attrib's scripts/train_sentiment.py; last layers, pooler and classifier of minilm-sentiment"}
    options.out.write_bytes(to_bytes(state, metadata=origin))
    print(options.out, options.out.stat().st_size, "bytes,", hashlib.sha256(options.out.read_bytes()).hexdigest())


def trained_state(model: Any) -> dict[str, Tensor]:
    """What differs from the encoder's own weights, by the model's names."""
    layers = len(model.base_model.encoder.layer)
    wanted = [f".layer.{i}." for i in range(layers - TRAINED, layers)] + ["pooler.", "classifier."]
    return {
        name: tensor.detach().half().contiguous()
        for name, tensor in sorted(model.state_dict().items())
        if any(part in name for part in wanted)
    }


if __name__ == "__main__":
    main()
