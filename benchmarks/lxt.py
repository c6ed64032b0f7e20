"""AttnLRP and CP-LRP beside LXT 2.1: seconds of both, and of the bare pass in each one's own transformers.

LXT imports names that newer transformers do not have, and patches classes for a whole process. So it gets its own
transformers, and each of the four (LXT, ours, and a bare pass beside each) a process; these take turns.

    pip install --target OLD --no-deps transformers==4.52.4 "huggingface_hub<1" "tokenizers<0.22" lxt==2.1
    python -m benchmarks.lxt OLD
"""

from __future__ import annotations

import importlib
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOKENS = (32, 128, 512)
PRESETS = {"bert-base": ("attn_lrp",), "gpt2-small": ("attn_lrp", "cp_lrp"), "smollm2-135m": ("attn_lrp", "cp_lrp")}
_THEIRS = {"attn_lrp": "attnLRP", "cp_lrp": "cp_LRP"}
_ROUNDS = 7
_TARGET = 1
_LLAMA = {
    "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
    "intermediate_size": 1536, "vocab_size": 49152, "max_position_embeddings": 8192, "rope_theta": 100000,
    "tie_word_embeddings": True,
}  # fmt: skip


def main(old: str) -> None:
    """Print the table, a row a case, as it grows."""
    print("| preset | network | tokens | LXT | attrib | LXT / its bare pass | attrib / its bare pass | attrib / LXT |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for network, presets in PRESETS.items():
        for tokens in TOKENS:
            for preset in presets:
                print(_row(old, network, tokens, preset), flush=True)


def _row(old: str, network: str, tokens: int, preset: str) -> str:
    seconds = _taking_turns(
        [_Asked(kind, old, network, str(tokens), preset) for kind in ("lxt", "bare of lxt", "ours", "bare of ours")]
    )

    def ratio(above: str, below: str) -> str:
        each = [a / b for a, b in zip(seconds[above], seconds[below], strict=True)]
        return f"{statistics.median(each):.2f}×"

    def middle(kind: str) -> str:
        return f"{1000 * statistics.median(seconds[kind]):.0f} ms"

    return (
        f"| {preset} | {network} | {tokens} | {middle('lxt')} | {middle('ours')} | {ratio('lxt', 'bare of lxt')} "
        f"| {ratio('ours', 'bare of ours')} | {ratio('ours', 'lxt')} |"
    )


class _Asked:
    """A process that runs its call once for each line that it is sent, and answers with the CPU seconds."""

    def __init__(self, kind: str, *case: str) -> None:
        self.kind = kind
        command = [sys.executable, "-m", "benchmarks.lxt", kind, *case]
        root = Path(__file__).parent.parent
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)

    def seconds(self) -> float:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def end(self) -> None:
        self._process.communicate()


def _taking_turns(asked: list[_Asked]) -> dict[str, list[float]]:
    try:
        for one in asked * 2:
            one.seconds()  # caches are warm afterwards
        return {one.kind: list(row) for one, row in zip(asked, zip(*_rounds(asked), strict=True), strict=True)}
    finally:
        for one in asked:
            one.end()


def _rounds(asked: list[_Asked]) -> list[list[float]]:
    return [[one.seconds() for one in asked] for _ in range(_ROUNDS)]


def answer(kind: str, old: str, network: str, tokens: int, preset: str) -> None:
    """What a process of `_Asked` does."""
    warnings.simplefilter("ignore")
    theirs = kind.endswith("lxt")
    if theirs:
        sys.path.insert(0, old)
    import torch

    torch.set_num_threads(1)
    if theirs:
        run = _of_old(network, tokens, None if kind.startswith("bare") else _THEIRS[preset])
    else:
        run = _of_ours(network, tokens, None if kind.startswith("bare") else preset)
    for _ in sys.stdin:
        start = time.process_time()
        run()
        print(time.process_time() - start, flush=True)


def _of_ours(network: str, tokens: int, preset: str | None) -> Callable[[], Any]:
    import torch

    import attrib
    from benchmarks.text_cases import TextCase

    case = TextCase(network, tokens, torch.device("cpu"))
    case.wrapped.module.requires_grad_(False)
    if preset is None:
        return case.bare
    return lambda: attrib.explain(case.wrapped, case.ids, attrib.LRP(preset=preset), case.target)


def _of_old(network: str, tokens: int, preset: str | None) -> Callable[[], Any]:
    """x ⊙ gradient of the patched model as LXT's examples do it; None: the gradient alone, nothing patched."""
    import torch

    model, width = _model(network, preset)
    x = torch.randn(1, tokens, width)
    keep = {} if network == "bert-base" else {"logits_to_keep": 1, "use_cache": False}

    def run() -> Any:
        leaf = x.clone().requires_grad_()
        score = model(inputs_embeds=leaf, **keep).logits.reshape(-1)[_TARGET]
        gradient = torch.autograd.grad(score, leaf)[0]
        return gradient if preset is None else (leaf * gradient).sum(-1)

    return run


def _model(network: str, preset: str | None) -> tuple[Any, int]:
    import transformers

    family, name, width = {
        "bert-base": ("bert", "BertForSequenceClassification", 768),
        "gpt2-small": ("gpt2", "GPT2LMHeadModel", 768),
        "smollm2-135m": ("llama", "LlamaForCausalLM", 576),
    }[network]
    modelling = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    if preset is not None:
        patches = importlib.import_module(f"lxt.efficient.models.{family}")
        modelling = getattr(patches, f"modeling_{family}")
        importlib.import_module("lxt.efficient").monkey_patch(modelling, getattr(patches, preset))
    settings: dict[str, Any] = {"gpt2": {"vocab_size": 49152}, "llama": _LLAMA}.get(family, {})
    config = getattr(transformers, {"bert": "BertConfig", "gpt2": "GPT2Config", "llama": "LlamaConfig"}[family])
    return getattr(modelling, name)(config(**settings)).eval().requires_grad_(False), width


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(str(Path(sys.argv[1]).resolve()))
    else:
        answer(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
