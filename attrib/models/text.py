"""A text model with everything that belongs to it: its tokenizer, what it predicts, how a text becomes its input."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from attrib.errors import InputError, TargetError, UnsupportedModel
from attrib.failures import named_failures
from attrib.models.encoded import EncodedText
from attrib.models.hashing import Hashed, hash_of
from attrib.models.lengths import MASK, by_length, padded_rows
from attrib.models.matching import check_vocabulary, doubts
from attrib.models.probing import Task, check_supported, probed, window_of
from attrib.models.token_names import token_called
from attrib.models.tokenizing import Tokens, tokens_of
from attrib.models.tokens import token_text
from attrib.models.wrapped import Wrapped, refuse_unusable
from attrib.outputs import logits_of
from attrib.rules.recomputing import recompute_blocks
from attrib.rules.shadow import shadow
from attrib.rules.weights import WeightCache

# which position of a language model's output is read; for forward() only, the model does not take it
READ_AT = "read_at"
_TOLERANCE = 1e-3  # of the largest logit: another kernel for another shape, never another position


@dataclass(eq=False, repr=False)
class TextModel(Wrapped):
    """A transformers model and its tokenizer. The module is never changed.

    task: "classification": logits are per class; "next_token": of the token after the last one;
        "masked": of the token at the mask.
    labels: the classes' names by index; None for language models, whose classes are tokens.
    notes: what a reader of any explanation of this model must know.
    """

    kind: ClassVar[Literal["text"]] = "text"

    module: nn.Module
    tokenizer: Any
    name: str
    task: Task
    labels: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    recomputes: bool = False  # see attrib.models.checkpointed
    measured_bytes: dict[Any, int] = field(default_factory=dict, repr=False)
    weight_cache: WeightCache = field(default_factory=WeightCache, init=False, repr=False)
    _hashed: Hashed | None = field(default=None, init=False, repr=False)
    keeps_prefixes: bool | None = field(default=None, init=False, repr=False)  # found out on first use
    _padding_is_harmless: bool | None = field(default=None, init=False, repr=False)

    @property
    def embeddings(self) -> nn.Module:
        """The module that turns token ids into embeddings."""
        found: nn.Module = self.module.get_input_embeddings()  # type: ignore[operator]
        return found

    @cached_property
    def window(self) -> int | None:
        """How many tokens the model can take; None when nothing says so."""
        return window_of(self.module, self.tokenizer)

    @cached_property
    def takes(self) -> frozenset[str]:
        """The names of what the module's forward can be given."""
        return frozenset(inspect.signature(type(self.module).forward).parameters)

    def encode(self, inputs: Any, anywhere: bool = False) -> EncodedText:
        """A text, a list of texts, or token ids (a list or tensor, taken as they are).

        anywhere: the caller says where a masked model is read (`read_at`), so there need not be one mask.
        """
        rows = tokens_of(self.tokenizer, inputs, self.window, len(self._weight), self.name)
        ids = padded_rows([row.ids for row in rows], self._padding).to(self.device)
        with torch.no_grad():
            x = self.embeddings(ids).detach().clone()
        encoded = EncodedText(
            x=x,
            pictures=None,
            hashes=tuple(hash_of({"token ids": torch.tensor(row.ids)}) for row in rows),
            notes=(*self.notes, *dict.fromkeys(note for row in rows for note in row.notes)),
            extra=self._extra(rows, anywhere),
            token_texts=tuple(row.reading.texts for row in rows),
            words=tuple(row.reading.words for row in rows),
            token_ids=tuple(row.ids for row in rows),
        )
        if self._padding_is_harmless is None and MASK in encoded.extra:
            self._padding_is_harmless = self._ignores_padding(encoded)
        return encoded

    @property
    def _weight(self) -> Tensor:
        return self.embeddings.weight  # type: ignore[return-value]

    @property
    def _padding(self) -> int:
        padding = getattr(self.tokenizer, "pad_token_id", None)
        return padding if padding is not None and padding < len(self._weight) else 0

    def _extra(self, rows: Sequence[Tokens], anywhere: bool) -> dict[str, Tensor]:
        lengths = torch.tensor([len(row.ids) for row in rows], device=self.device)
        longest = int(lengths.max())
        extra: dict[str, Tensor] = {}
        if bool((lengths != longest).any()):
            extra[MASK] = (torch.arange(longest, device=self.device)[None] < lengths[:, None]).long()
        if "token_type_ids" in self.takes and any(any(row.types) for row in rows):
            extra["token_type_ids"] = padded_rows([row.types for row in rows], 0).to(self.device)
        if self.task == "next_token":
            extra[READ_AT] = lengths - 1
        if self.task == "masked":
            places = [0 if anywhere else self._mask_in(i, row.ids) for i, row in enumerate(rows)]
            extra[READ_AT] = torch.tensor(places, device=self.device)
        return extra

    def _mask_in(self, index: int, ids: Sequence[int]) -> int:
        mask = getattr(self.tokenizer, "mask_token_id", None)
        found = [i for i, token in enumerate(ids) if token == mask]
        if mask is None or len(found) != 1:
            shown = getattr(self.tokenizer, "mask_token", None)
            raise InputError(
                f"input {index} holds {len(found)} mask tokens where {self.name} needs exactly one: write {shown!r} "
                "where the token to be explained is, or say which position to explain: TokenLogit(token, position)"
            )
        return found[0]

    def forward(self, twin: nn.Module, x: Tensor, extra: dict[str, Tensor]) -> Tensor:
        """Logits (rows, classes) of `twin`, a shadow of the module, from embeddings (rows, tokens, width)."""
        if self.recomputes:
            recompute_blocks(twin)
        if MASK in extra and not self._padding_is_harmless:
            return by_length(partial(self._forward_together, twin), x, extra)
        return self._forward_together(twin, x, extra)

    def _forward_together(self, twin: nn.Module, x: Tensor, extra: dict[str, Tensor]) -> Tensor:
        if len(x) > 1 and self.task == "classification" and getattr(self.module.config, "pad_token_id", None) is None:
            # causal classifiers of transformers then refuse to guess where the rows end
            rows = [{name: value[i : i + 1] for name, value in extra.items()} for i in range(len(x))]
            return torch.cat([self._forward_together(twin, x[i : i + 1], row) for i, row in enumerate(rows)])
        given: dict[str, Any] = {name: value for name, value in extra.items() if name != READ_AT}
        if "use_cache" in self.takes:
            given["use_cache"] = False
        read = extra.get(READ_AT)
        given["inputs_embeds"] = x.clone()  # CTRL multiplies what it is given in place
        if read is None or self.task == "classification":
            return logits_of(twin(**given))
        if "logits_to_keep" in self.takes:
            # only these positions go through the large last layer
            kept, read = torch.unique(read, return_inverse=True)
            given["logits_to_keep"] = kept
        logits = logits_of(twin(**given))
        return logits[torch.arange(len(x), device=x.device), read]

    def _ignores_padding(self, encoded: EncodedText) -> bool:
        """Whether the shortest input gets the logits it gets alone."""
        shortest = int(encoded.extra[MASK].sum(1).argmin())
        x = encoded.x[shortest : shortest + 1]
        extra = {name: value[shortest : shortest + 1] for name, value in encoded.extra.items()}
        twin = shadow(self.module)
        with named_failures(self.name, twin, x), torch.no_grad():
            padded = self._forward_together(twin, x, extra)
            alone = by_length(partial(self._forward_together, twin), x, extra)
        return bool((padded - alone).abs().max() <= _TOLERANCE * alone.abs().max())

    def index_of(self, name: int | str) -> int:
        """The index of a class or, for a language model, a token's id: a str must be exactly one token."""
        if self.labels is not None or isinstance(name, bool):
            return super().index_of(name)
        if self.task == "classification":
            return super().index_of(name)
        if isinstance(name, str):
            return token_called(self.tokenizer, name, self.name)
        try:
            index = operator.index(name)
        except TypeError:
            raise TargetError(f"cannot look up a token by {type(name).__name__} {name!r}; give text or an id") from None
        if not 0 <= index < len(self._weight):
            raise TargetError(f"token {index} is out of range: {self.name} has {len(self._weight)} tokens")
        return index

    def label_of(self, index: int) -> str:
        """The class's name, or the token as text."""
        if self.labels is None and self.task != "classification":
            return token_text(self.tokenizer, index)
        return super().label_of(index)

    def bounds(self) -> None:
        """Embeddings have no lowest and highest value."""
        return


def wrap_text(
    module: Any, tokenizer: Any, *, name: str | None = None, labels: Sequence[str] | None = None
) -> TextModel:
    """A transformers model of one's own; what it predicts is found out by running it on a few tokens.

    labels: of a classifier; default: what its config says. Raises UnsupportedModel for encoder-decoder, quantised
    and headless models, and where the tokenizer is another model's.
    """
    refuse_unusable(module)
    name = name or type(module).__name__
    check_supported(module, name)
    check_vocabulary(module, tokenizer, name)
    task, classes = probed(shadow(module), tokenizer, name)
    names = _labels_of(module, labels, classes) if task == "classification" else None
    return TextModel(module, tokenizer, name, task, names, doubts(module, tokenizer))


def _labels_of(module: Any, labels: Sequence[str] | None, classes: int) -> tuple[str, ...]:
    if labels is None:
        named = getattr(module.config, "id2label", None) or {}
        return tuple(str(named.get(i, i)) for i in range(classes))
    if len(labels) != classes:
        raise UnsupportedModel(f"{len(labels)} labels were given for {classes} classes")
    return tuple(labels)
