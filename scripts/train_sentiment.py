"""Train the head and the last two layers of minilm-sentiment: assets/weights/minilm_sentiment.safetensors.

The data (see `sentiment_data`) are downloaded into a temporary folder and not kept.

Run: python scripts/train_sentiment.py [--validate] [--epochs N] [--out FILE] | --evaluate
--validate holds out a further tenth of the training groups and reports on it instead, for choosing settings.
--evaluate trains nothing: the accuracy of the weights in assets/ on what was held out.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from sentiment_data import DATA, SEED, Snippet, fold, held_negations, negations, snippets
from torch import Tensor, nn
from torch.nn import functional as F

from attrib.models.minilm import TRAINED, minilm_sentiment, untrained
from attrib.models.pull import download

TARGET = Path(__file__).parents[1] / "assets" / "weights" / "minilm_sentiment.safetensors"

LONGEST = 128  # tokens
BATCH = 32
RATE = 1.5e-4
NEGATION_SHARE = 0.12  # of the training data


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
    parser.add_argument("--evaluate", action="store_true")
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=TARGET)
    options = parser.parse_args()
    torch.manual_seed(SEED)
    used, tested = split({2} if options.validate else {0, 1})
    print(f"{len(used)} snippets to train on, {len(tested)} held out")
    if options.evaluate:
        finished = minilm_sentiment()
        report(Upper(finished.module), cached(finished.module, finished.tokenizer, tested))
        return
    used += negations(int(NEGATION_SHARE * len(used)), random.Random(SEED))
    model, tokenizer = untrained()
    data, test = cached(model, tokenizer, used), cached(model, tokenizer, tested)
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


def split(held: set[int]) -> tuple[list[Snippet], list[Snippet]]:
    """The snippets to train on, and those of the folds `held` with the sentences that negate."""
    with tempfile.TemporaryDirectory() as folder:
        found = snippets(download(DATA, Path(folder), lambda part: None))
    used = [s for s in found if fold(s.group) not in {0, 1, *held}]
    tested = [s for s in found if fold(s.group) in held]
    assert not {s.group for s in used} & {s.group for s in tested}
    return used, [*tested, *held_negations()]


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
