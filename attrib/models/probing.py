"""What a language model is, found out from its config and by running it on a few tokens."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attrib.errors import AttribError, UnsupportedModel
from attrib.outputs import agree, logits_of

Task = Literal["classification", "next_token", "masked"]

_TOLERANCE = 1e-3  # relative to the largest logit
_UNLIMITED = 10**9  # tokenizers say "no limit" with an even larger number


def check_supported(module: Any, name: str) -> None:
    """Raise UnsupportedModel for what cannot be explained from embeddings to logits."""
    config = getattr(module, "config", None)
    if config is None or not callable(getattr(module, "get_input_embeddings", None)):
        raise UnsupportedModel(
            f"{name} is no transformers model: it needs a config, get_input_embeddings() and a forward that takes "
            "inputs_embeds instead of input_ids; give a network of your own these three"
        )
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedModel(
            f"{name} is an encoder-decoder model; sequence classifiers, causal and masked language models are supported"
        )
    whole = (t for t in module.parameters() if not t.is_floating_point())
    quantised = getattr(config, "quantization_config", None) is not None or getattr(module, "is_quantized", False)
    if quantised or next(whole, None) is not None or getattr(module, "hf_quantizer", None) is not None:
        raise UnsupportedModel(f"{name} is quantised, so its weights have no gradients; load it in float32 or bfloat16")
    embeddings = module.get_input_embeddings()
    if not isinstance(getattr(embeddings, "weight", None), Tensor) or embeddings.weight.dim() != 2:
        raise UnsupportedModel(
            f"{name} has no table of word embeddings, where every explanation begins: its get_input_embeddings() gives "
            f"a {type(embeddings).__name__}, not a module with a weight (tokens, width)"
        )


def window_of(module: Any, tokenizer: Any) -> int | None:
    """The most tokens the model can take, from its config, its position table and its tokenizer."""
    config = module.config
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    limits = [getattr(config, key, None) for key in ("max_position_embeddings", "n_positions", "max_seq_len")]
    limits.append(getattr(tokenizer, "model_max_length", None))
    known = [int(limit) for limit in limits if limit is not None and 0 < limit < _UNLIMITED]
    for table in module.modules():
        # a table with a padding row counts its positions from behind it
        padded = isinstance(table, nn.Embedding) and table.padding_idx is not None
        if padded and table.num_embeddings == getattr(config, "max_position_embeddings", None):
            known.append(table.num_embeddings - table.padding_idx - 1)
    return min(known, default=None)


def probed(twin: nn.Module, tokenizer: Any, name: str) -> tuple[Task, int]:
    """What the logits are: one row per input, or per token, and whether a token's depend on those after it; how many.

    Raises UnsupportedModel where they are neither, and where word embeddings do not give the same logits as ids.
    """
    ids = _probe(twin, tokenizer)
    with torch.no_grad():
        vectors: Tensor = twin.get_input_embeddings()(ids)  # type: ignore[operator]
    try:
        logits = _run(twin, name, inputs_embeds=vectors)
    except _Failed as failed:
        raise _unusable(twin, name, ids, failed) from failed.__cause__
    per_input = logits.dim() == 2 and len(logits) == 1
    entries = min(len(_table(twin)), len(tokenizer))
    if not per_input and (logits.dim() != 3 or logits.shape[1] != ids.shape[1] or logits.shape[2] < 0.9 * entries):
        raise UnsupportedModel(
            f"{name} returns a tensor of shape {tuple(logits.shape)} for {ids.shape[1]} tokens: neither logits per "
            "class nor logits per token of the vocabulary; load it as a sequence classifier, a causal or a masked "
            "language model"
        )
    expected = _run(twin, name, input_ids=ids)
    if not agree(logits, expected, _TOLERANCE):
        raise UnsupportedModel(
            f"{name} gives other logits from its word embeddings than from token ids: it uses the ids in another way "
            "too, which cannot be explained"
        )
    if per_input:
        return "classification", logits.shape[1]
    changed = torch.cat([vectors[:, :-1], vectors[:, :1] + vectors[:, -1:]], 1)
    other = _run(twin, name, inputs_embeds=changed)
    return "next_token" if agree(other[:, 0], logits[:, 0], 1e-6) else "masked", logits.shape[2]


def _probe(twin: Any, tokenizer: Any) -> Tensor:
    """A few ordinary tokens, (1, 4)."""
    special = set(tokenizer.all_special_ids)
    ordinary = [i for i in range(min(len(_table(twin)), len(tokenizer))) if i not in special]
    ordinary = ordinary or [0]
    picked = [ordinary[len(ordinary) * part // 5] for part in (1, 2, 3, 4)]
    return torch.tensor([picked], device=_table(twin).device)


def _table(twin: Any) -> Tensor:
    weight: Tensor = twin.get_input_embeddings().weight
    return weight


def _run(twin: nn.Module, name: str, **given: Tensor) -> Tensor:
    """The logits for `given`. The mode is no_grad, the module a shadow in eval mode. _Failed where it does not run."""
    try:
        with torch.no_grad():
            outputs = twin(**given)
        if not (isinstance(outputs, (tuple, Tensor)) or hasattr(outputs, "logits") or "logits" in dict(outputs)):
            raise UnsupportedModel(
                f"{name} has no head: it returns {type(outputs).__name__} without logits; load it as a sequence "
                "classifier, a causal or a masked language model"
            )
        return logits_of(outputs).float()
    except (AttribError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the module is anybody's code
        what = " and ".join(given)
        raise _Failed(f"{name} failed when it was given {what}: {type(error).__name__}: {error}") from error


class _Failed(UnsupportedModel):
    """The module's own code failed: `__cause__`."""


def _unusable(twin: nn.Module, name: str, ids: Tensor, failed: _Failed) -> UnsupportedModel:
    """Why a model that fails on word embeddings cannot be explained, and what would help."""
    try:
        _run(twin, name, input_ids=ids)
    except _Failed as also:
        kinds = ", ".join(sorted({str(weight.dtype).removeprefix("torch.") for weight in twin.parameters()}))
        return UnsupportedModel(
            f"{also}; make it run on a few tokens before it is wrapped (its weights are {kinds}; some models compute "
            "in float32 only: module.float())"
        )
    takes = "inputs_embeds" in inspect.signature(twin.forward).parameters
    how = "given inputs_embeds" if takes else "its forward takes no inputs_embeds, and without input_ids"
    error = failed.__cause__
    return UnsupportedModel(
        f"{name} runs from token ids, but not from word embeddings, where every explanation begins: {how} its own code "
        f"fails with {type(error).__name__}: {error}; give it a forward that takes inputs_embeds in place of "
        "input_ids, or take another class of model"
    )
