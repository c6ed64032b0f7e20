"""What the model says of what is left of an input when only some sites are shown; nothing is asked twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from attrib.binding import BoundTarget
from attrib.methods.passes import pairs
from attrib.metrics.trial import Key, Trial

# (step (rows,), sample (rows,)) -> (rows, *sites) bool, on the CPU: the sites that are left of these samples
Shown = Callable[[Tensor, Tensor], Tensor]


def outcomes(trial: Trial, n: int, shown: Shown, blank: str, read: str = "probability") -> Tensor:
    """(n, batch) float64: as `Trial.outcomes`, of inputs that are blank but where they are shown.

    blank: a name that `Trial.blank` knows. Special tokens and padding always stay.
    """
    found = answers(trial, n, shown, blank)
    return found[..., 1].exp() if read == "probability" and trial.has_probability else found[..., 0]


def logits(trial: Trial, n: int, shown: Shown, blank: str) -> Tensor:
    """(n, batch, classes) float64, of classifiers of texts."""
    return answers(trial, n, shown, blank)[..., 2:]


def everything(trial: Trial) -> Shown:
    """The inputs as they are."""
    return lambda step, sample: trial.allowed[sample]


def answers(trial: Trial, n: int, shown: Shown, blank: str) -> Tensor:
    """(n, batch, 2 or more) float64: score, log-probability (0 where there is none), and logits where they are few."""
    question = replace(trial.question, on_progress=trial.on_progress)
    keys: list[Key] = []
    waiting: dict[Key, Tensor] = {}
    for step, sample in pairs(question, n):
        for row, sites in zip(sample.tolist(), shown(step.cpu(), sample.cpu()), strict=True):
            keys.append(_key(row, sites & trial.allowed[row], trial, blank))
            if keys[-1] not in trial.known:
                waiting.setdefault(keys[-1], sites)
        while len(waiting) >= question.max_rows:
            _ask(trial, {key: waiting.pop(key) for key in list(waiting)[: question.max_rows]}, blank)
    if waiting:
        _ask(trial, waiting, blank)
    return torch.stack([trial.known[key] for key in keys]).reshape(n, len(trial), -1)


def _key(row: int, sites: Tensor, trial: Trial, blank: str) -> Key:
    """Of an input that is shown whole it does not matter what would stand for the rest."""
    whole = torch.equal(sites, trial.allowed[row])
    return row, "" if whole else blank, blake2b(np.packbits(sites.numpy()).tobytes(), digest_size=16).digest()


def _ask(trial: Trial, waiting: dict[Key, Tensor], blank: str) -> None:
    samples = torch.tensor([row for row, *_ in waiting], device=trial.x.device)
    left = torch.stack(list(waiting.values()))

    def ask(rows: Tensor) -> Tensor:
        sample = samples[rows]
        x = trial.mixed(~left[rows.cpu()], trial.x[sample], trial.blank(blank)[sample])
        return _columns(trial, trial.question.outputs(x, sample), sample)

    trial.known.update(zip(waiting, trial.asked(len(waiting), ask).cpu().double(), strict=True))


def _columns(trial: Trial, outputs: Tensor, sample: Tensor) -> Tensor:
    """(rows, 2 or more): see `answers`."""
    scores = trial.question.target.scores(outputs, sample)
    columns = [scores, torch.zeros_like(scores)]
    if trial.has_probability:
        columns[1] = BoundTarget("log_probability", trial.target.positive).scores(outputs, sample)
    if trial.is_text and getattr(trial.model, "task", "") == "classification":
        columns += outputs.unbind(1)
    return torch.stack(columns, 1)
