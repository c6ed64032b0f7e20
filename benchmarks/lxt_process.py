"""A process of `benchmarks.lxt`: one model under one transformers, whose calls it runs when it is asked.

    python -m benchmarks.lxt_process ours NETWORK
    python -m benchmarks.lxt_process lxt NETWORK OLD [PRESET]

Each line that it reads is "CALL TOKENS", CALL being a preset or "bare", and is answered with the CPU seconds of it.
LXT patches classes for a whole process: with PRESET it knows that one alone, without it runs the bare pass.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

Start = Callable[[str, int], Callable[[], Any]]  # (call, tokens) -> what is timed
BARE = "bare"
_PATCHES = {"attn_lrp": "attnLRP", "cp_lrp": "cp_LRP"}
_TARGET = 1
_FAMILIES = {
    "bert-base": ("bert", "BertConfig", "BertForSequenceClassification"),
    "gpt2-small": ("gpt2", "GPT2Config", "GPT2LMHeadModel"),
    "smollm2-135m": ("llama", "LlamaConfig", "LlamaForCausalLM"),
}
_LLAMA = {
    "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
    "intermediate_size": 1536, "vocab_size": 49152, "max_position_embeddings": 8192, "rope_theta": 100000,
    "tie_word_embeddings": True,
}  # fmt: skip
_SETTINGS: dict[str, dict[str, Any]] = {"bert": {}, "gpt2": {"vocab_size": 49152}, "llama": _LLAMA}


def main(whose: str, network: str, old: str = "", preset: str = "") -> None:
    """Answer until the lines end."""
    warnings.simplefilter("ignore")
    if whose == "lxt":
        sys.path.insert(0, old)
    import torch

    from benchmarks.measure import seconds_of

    torch.set_num_threads(1)
    start = cache(ours(network) if whose == "ours" else lxt(network, preset))
    for line in sys.stdin:
        call, tokens = line.split()
        print(seconds_of(start(call, int(tokens)), torch.device("cpu")), flush=True)


def ours(network: str) -> Start:
    """attrib's public call, or the bare pass, on the cases of the table of texts."""
    import torch

    import attrib
    from benchmarks.text_cases import TextCase

    whole = TextCase(network, 1, torch.device("cpu"))
    whole.wrapped.module.requires_grad_(False)

    def start(call: str, tokens: int) -> Callable[[], Any]:
        case = TextCase(network, tokens, whole.device)
        case.__dict__["wrapped"] = whole.wrapped
        if call == BARE:
            return case.bare
        return lambda: attrib.explain(case.wrapped, case.ids, attrib.LRP(preset=call), case.target)

    return start


def lxt(network: str, preset: str) -> Start:
    """x ⊙ gradient of the patched model as LXT's examples do it; the gradient alone without a preset."""
    import torch

    model = _old_model(network, preset)
    width = model.config.hidden_size
    keep = {} if network == "bert-base" else {"logits_to_keep": 1, "use_cache": False}

    def start(call: str, tokens: int) -> Callable[[], Any]:
        if call != (preset or BARE):
            raise ValueError(f"this process was patched for {preset or 'nothing'}, not for {call}")
        x = torch.randn(1, tokens, width)

        def run() -> Any:
            leaf = x.clone().requires_grad_()
            score = model(inputs_embeds=leaf, **keep).logits.reshape(-1)[_TARGET]
            gradient = torch.autograd.grad(score, leaf)[0]
            return (leaf * gradient).sum(-1) if preset else gradient

        return run

    return start


def _old_model(network: str, preset: str) -> Any:
    import transformers

    family, config, name = _FAMILIES[network]
    modelling = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    if preset:
        patches = importlib.import_module(f"lxt.efficient.models.{family}")
        modelling = getattr(patches, f"modeling_{family}")
        importlib.import_module("lxt.efficient").monkey_patch(modelling, getattr(patches, _PATCHES[preset]))
    settings = getattr(transformers, config)(**_SETTINGS[family])
    return getattr(modelling, name)(settings).eval().requires_grad_(False)


if __name__ == "__main__":
    main(*sys.argv[1:])
