"""One block's call in a base run, made again with other hidden states, from any position on.

Causal attention looks back only, so a block can be run on the tokens from some position on while keys and values of the
tokens before come from the base run: handed over as the cache that transformers' models use for generation
(`past_key_values.update(keys, values, layer)`), whatever attention they run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attrib.errors import AttribError
from attrib.failures import is_out_of_memory
from attrib.patching.caches import Cache, Known, Leaving, Prefix
from attrib.sites import first_tensor

_MASK = "attention_mask"


class NotReplayable(Exception):
    """These blocks cannot be run one by one; the message says why. Caught where full recomputation is the way out."""


@contextmanager
def alone() -> Iterator[None]:
    """Inside, blocks are run by themselves: what their code raises at that becomes NotReplayable, with the reason.

    attrib's own errors stay as they are, and so do memory that ran out and what no model's code raised.
    """
    try:
        yield
    except Exception as error:  # a block is anybody's code
        if isinstance(error, (AttribError, NotReplayable)) or is_out_of_memory(error) or not _in_a_module(error):
            raise
        said = str(error).splitlines()[0] if str(error) else ""
        raise NotReplayable(f"{type(error).__name__}: {said}") from error


def _in_a_module(error: BaseException) -> bool:
    """Whether a module was running when it was raised."""
    traceback = error.__traceback__
    while traceback is not None:
        if isinstance(traceback.tb_frame.f_locals.get("self"), nn.Module):
            return True
        traceback = traceback.tb_next
    return False


@dataclass(frozen=True)
class Call:
    """How the base run called one block with its prompts; others call it with rows, each `of` one of them.

    hidden, made: (prompts, tokens, width), its first argument and its output. output: what it returned around `made`.
    arguments: all but the first, by name; `cache`: which of them is the cache.
    keys, values: (prompts, heads, tokens, …) of its attention; None where they were not handed to a cache.
    folds: whether a bias (heads, …) has to be repeated for every row, as for attention on (rows · heads, …).
    """

    block: nn.Module
    hidden: Tensor
    made: Tensor
    output: Any
    arguments: dict[str, Any]
    cache: str | None
    keys: Tensor | None
    values: Tensor | None
    folds: bool = True

    @property
    def tokens(self) -> int:
        return self.hidden.shape[1]

    def whole(self, hidden: Tensor, of: Tensor | None = None) -> Tensor:
        """The block's output for hidden states (rows, tokens, width) of all positions. of: (rows,), default: all 0."""
        given = {name: value for name, value in self.arguments.items() if name != self.cache}
        of = torch.zeros(len(hidden), dtype=torch.long, device=hidden.device) if of is None else of
        return made_by(self.block(hidden, **self._for_rows(given, of)))

    def onwards(self, hidden: Tensor, start: int, of: Tensor, cache: Cache | None = None) -> Tensor:
        """The same for hidden states (rows, some tokens, width) of positions `start` and following."""
        stop = start + hidden.shape[1]
        given = {name: _cut(value, self.tokens, start, stop) for name, value in self.arguments.items()}
        if stop - start > 1 and given.get(_MASK) is None:
            # without a mask, attention would take its first query for the first token
            seen = torch.ones(self.tokens, self.tokens, dtype=torch.bool, device=hidden.device).tril()
            given[_MASK] = seen[None, None, start:stop, :stop]
        given = self._for_rows(given, of)
        given[str(self.cache)] = cache or self.prefix(start, of)
        return made_by(self.block(hidden, **given))

    def last(self, hidden: Tensor, start: int, of: Tensor) -> Tensor:
        """The output of the last position alone, (rows, 1, width), for hidden states of `start` and all following.

        Of the positions before it only keys and values are computed: the block is left as soon as they are known.
        """
        if hidden.shape[1] == 1:
            return self.onwards(hidden, start, of)
        try:
            self.onwards(hidden, start, of, Leaving())
        except Known as known:
            before = self.prefix(start, of).joined(known.keys[..., :-1, :], known.values[..., :-1, :])
            return self.onwards(hidden[:, -1:], self.tokens - 1, of, Prefix(*before))
        raise NotReplayable("a block does not hand its keys and values to a cache")

    def _for_rows(self, arguments: dict[str, Any], of: Tensor) -> dict[str, Any]:
        """The prompts' arguments for rows: what has an entry for every prompt is taken, all else is shared."""
        prompts = len(self.hidden)

        def taken(value: Any) -> Any:
            if isinstance(value, (tuple, list)):
                return type(value)(taken(part) for part in value)
            if not isinstance(value, Tensor) or value.dim() == 0:
                return value
            if value.dim() == 1:  # one for every prompt, as X-MOD's languages, or for every position
                return value[of] if len(value) == prompts != self.tokens else value
            if value.dim() == 3 and len(value) > prompts and len(value) % prompts == 0:  # a bias: (prompts · heads, …)
                return value.unflatten(0, (prompts, -1))[of].flatten(0, 1) if self.folds else value
            if value.dim() == 4 and len(value) == prompts == 1:  # some want as many masks as rows (XGLM)
                return value.expand(len(of), -1, -1, -1)
            return value[of] if len(value) == prompts > 1 else value

        return {name: taken(value) for name, value in arguments.items()}

    def prefix(self, start: int, of: Tensor) -> Prefix:
        """Keys and values of the base run before `start`, for every row."""
        if self.keys is None or self.values is None:
            raise NotReplayable("a block does not hand its keys and values to a cache")
        return Prefix(self.keys[..., :start, :][of], self.values[..., :start, :][of])


def _cut(value: Any, tokens: int, start: int, stop: int) -> Any:
    """A block's argument for positions start to stop − 1 of `tokens`: queries cut at both ends, keys at the end."""
    if isinstance(value, (tuple, list)):
        return type(value)(_cut(part, tokens, start, stop) for part in value)
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    if value.dim() >= 4:  # a mask or bias: (…, queries, keys)
        queries = slice(start, stop) if value.shape[-2] == tokens else slice(None)
        return value[..., queries, :stop] if value.shape[-1] == tokens else value[..., queries, :]
    place = 0 if value.dim() == 1 else 1
    if value.shape[place] == tokens:  # positions: (batch, queries, …)
        return value[start:stop] if place == 0 else value[:, start:stop]
    return value[..., :stop] if value.shape[-1] == tokens else value  # a bias by key: (heads, 1, keys)


def made_by(output: Any) -> Tensor:
    """The hidden states in what a block returned."""
    tensor = first_tensor(output)
    if tensor is None:
        raise NotReplayable("a block puts out no tensor")
    return tensor
