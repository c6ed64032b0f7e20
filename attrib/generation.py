"""Why a language model wrote what it wrote: every generated token explained by all tokens before it."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from attrib.attribution import Attribution
from attrib.errors import InputError, NotApplicable
from attrib.explain import explain
from attrib.failures import named_failures
from attrib.methods import method_named
from attrib.methods.base import Method
from attrib.models.prefix import Prefix, keeps_prefixes
from attrib.models.tokens import decoded_pieces, token_labels
from attrib.rules.products import QuickProducts
from attrib.rules.shadow import shadow
from attrib.targets import Candidates, Logit, LogitDiff, LogProb, TokenLogit

if TYPE_CHECKING:
    from attrib.models.text import TextModel


def explain_generation(
    model: TextModel,
    prompt: str | Sequence[int],
    method: Method | str = "lrp",
    continuation: str | Sequence[int] | None = None,
    *,
    max_new_tokens: int = 16,
    target: Callable[[int], Any] | None = None,
    **options: Any,
) -> Attribution:
    """Every token of a continuation attributed to all tokens before it: one triangular map.

    continuation: text (with its leading space) or token ids; None: what the model writes greedily, at most
        `max_new_tokens`, until its end of text.
    target: from a generated token's id to what is explained of it; default: its logit. `attrib.LogProb`, or
        `lambda token: attrib.LogitDiff(token, " Rome")`. It is read where the token was generated.
    options: those of `attrib.explain`.

    The result has a row per generated token, in order. Row i reads the prompt and the i tokens generated before it:
    `values[i]` is 0 past them, `token_texts[i]` ends there, `target[i]` is the generated token; its "text" is what the
    token adds to the continuation. Every row takes one backward. One forward serves all of them where the method
    allows (gradients and LRP); else rows are computed together, as many at once as fit into memory.
    """
    if getattr(model, "task", None) != "next_token":
        raise NotApplicable(f"{model.name} does not generate text; explain_generation needs a causal language model")
    before = list(_prompt_ids(model, prompt))
    if continuation is None:
        new, options = _continued(model, before, max_new_tokens, options)
    else:
        new = _continuation_ids(model, continuation)
    if not new:
        raise InputError("no generated token to explain: the model ended the text, or the continuation is empty")
    targets = [token if target is None else target(token) for token in new]
    method = method_named(method)
    placed = [_read(target, len(before) - 1 + i) for i, target in enumerate(targets)]
    if method.shares_forward and None not in placed:
        whole = explain(model, [*before, *new[:-1]], method, Candidates(*placed), **options)
        found = _triangle(whole, len(before))
    else:
        found = explain(model, [[*before, *new[:i]] for i in range(len(new))], method, targets, **options)
    return dataclasses.replace(found, target=_labelled(model, new, found.target))


def _read(target: Any, position: int) -> Any:
    """`target` read at `position`; None where it does not say what it reads."""
    if isinstance(target, (int, str)):
        return TokenLogit(target, position)
    if isinstance(target, Logit):
        return TokenLogit(target.index, position)
    return (
        dataclasses.replace(target, position=position) if isinstance(target, (TokenLogit, LogitDiff, LogProb)) else None
    )


def _triangle(whole: Attribution, before: int) -> Attribution:
    """Row i without the tokens that it cannot see, as if it had been explained without them."""
    lengths = [before + i for i in range(len(whole))]
    texts = [row[:n] for row, n in zip(whole.token_texts or (), lengths, strict=True)]
    words = [row[:n] for row, n in zip(whole.words or (), lengths, strict=True)]
    targets = [{key: value for key, value in row.items() if key != "position"} for row in whole.target]
    return dataclasses.replace(whole, token_texts=tuple(texts), words=tuple(words), target=targets)


def _labelled(model: TextModel, new: list[int], targets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Generated tokens that are parts of a character are called by the character that they make."""
    labels, pieces = token_labels(model.tokenizer, new), decoded_pieces(model.tokenizer, new)
    return [
        row | {"text": label if piece is None else piece} | ({"label": label} if row.get("index") == token else {})
        for row, token, label, piece in zip(targets, new, labels, pieces, strict=True)
    ]


def _prompt_ids(model: TextModel, prompt: str | Sequence[int]) -> tuple[int, ...]:
    encoded = model.encode(prompt)
    if len(encoded.token_ids) != 1:
        raise InputError(f"{len(encoded.token_ids)} prompts were given; explain_generation takes one")
    return encoded.token_ids[0]


def _continuation_ids(model: TextModel, continuation: str | Sequence[int]) -> list[int]:
    if isinstance(continuation, str):
        return list(model.tokenizer.encode(continuation, add_special_tokens=False))
    try:
        return [operator.index(token) for token in continuation]
    except TypeError:
        raise InputError("a continuation is a text, or token ids (a list of ints)") from None


def _continued(
    model: TextModel, before: list[int], most: int, options: dict[str, Any]
) -> tuple[list[int], dict[str, Any]]:
    """What the model writes when it always takes the likeliest token; and the options of the explanation of it.

    Writing is the first half of the progress: what on_progress raises stops it between two tokens.
    """
    if most < 1:
        raise InputError(f"max_new_tokens = {most}: use at least 1")
    tell = options.get("on_progress") or (lambda fraction, message: None)
    new, ends, logits = list[int](), _ends(model), _logits_after(model, shadow(model.module), before)
    while len(new) < most:
        tell(0.5 * len(new) / most, "writing")
        token = int(logits(new).argmax())
        if token in ends:
            break
        new.append(token)
    return new, options | {"on_progress": lambda fraction, message: tell(0.5 + 0.5 * fraction, message)}


def _logits_after(model: TextModel, twin: nn.Module, before: list[int]) -> Callable[[list[int]], Tensor]:
    """new -> logits behind before + new, to be asked with one more token each time; keys and values are kept."""
    x = model.encode(before).x
    prefix = Prefix(model, twin) if keeps_prefixes(model, twin, x) else None

    def logits(new: list[int]) -> Tensor:
        encoded = model.encode([*before, *new])
        with named_failures(model.name, twin, encoded.x), QuickProducts(), torch.no_grad():
            if prefix is not None:
                return prefix.grown(encoded.x[:, prefix.length :])
            return model.forward(twin, encoded.x, encoded.extra)

    return logits


def _ends(model: TextModel) -> set[int]:
    """The ids that end a text."""
    found: set[int] = set()
    for holder in (model.tokenizer, getattr(model.module, "generation_config", None)):
        end = getattr(holder, "eos_token_id", None)
        found.update(end if isinstance(end, (list, tuple)) else [] if end is None else [end])
    return found
