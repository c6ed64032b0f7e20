"""What patching costs: estimates in bare passes, activation patching in forwards."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch
import transformers as tr
from tokenizers import Tokenizer, models, pre_tokenizers

import attrib
from attrib.patching.tasks import Task
from attrib.rules.shadow import shadow
from benchmarks.measure import Run, compare, seconds_of

_CPU = torch.device("cpu")
_TOKENS, _ROUNDS, _PAIRS = 16, 5, 8
_ESTIMATES: tuple[Any, ...] = (attrib.RelP(), attrib.AttributionPatching())
_EVERY = ("embed", "resid_*.*", "attn_out.*", "mlp_out.*", "head.*.*", "neuron.*")


def costs(subject: Any, made: Task) -> str:
    """All rows, as Markdown. subject: a wrapped language model; made: pairs for it."""
    gpt2 = random_gpt2()
    rows = [["what", "model", "cost", "in"], ["---"] * 4]
    both = ((subject.name, subject, *_ids(subject, made)), ("GPT-2 small", gpt2, *_drawn()))
    for name, model, clean, corrupted in both:
        rows += [[what, name, f"{ratio:.2f}×", unit] for what, ratio, unit in estimates(model, clean, corrupted)]
    forwards = in_forwards(gpt2, *_drawn())
    rows.append(["activation patching, 12 × 12 heads × 16 positions", "GPT-2 small", f"{forwards:.0f}", "forwards"])
    for pairs, told in ((1, ""), (min(_PAIRS, len(made)), f", {_PAIRS} pairs together, a pair")):
        what = f"activation patching, residual, attention and MLP × positions{told}"
        rows.append([what, subject.name, f"{whole_prompt(subject, made, pairs):.1f} s", "CPU time"])
    grid = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return (
        f"One pair, one thread, process CPU time, taking turns with the bare passes, medians of {_ROUNDS}. 2 F + 1 B: "
        "two forwards and one backward to the embeddings of the plain model with frozen parameters; logits of all "
        f"positions, or of the last alone. GPT-2 small: its shape with random weights, {_TOKENS} tokens that all "
        f"differ; a forward is the plain model's. {subject.name}: the first pair of {made.name}.\n\n{grid}"
    )


def estimates(model: Any, clean: list[int], corrupted: list[int]) -> list[tuple[str, float, str]]:
    """(what, ratio, unit) of RelP and AtP beside two forwards and one backward."""
    given, target = attrib.pair(clean, corrupted), attrib.LogitDiff(5, 17)
    calls: dict[str, Run] = {}
    for method in _ESTIMATES:
        calls[method.name] = partial(attrib.explain, model, given, method, target)
        everywhere = type(method)(sites=_EVERY)
        calls[f"{method.name}, every site"] = partial(attrib.explain, model, given, everywhere, target)
    frozen = shadow(model.module)
    found = []
    for unit, keep in (("2 F + 1 B", 0), ("2 F + 1 B, last logits", 1)):
        bare = partial(_bare, frozen, model, clean, corrupted, keep)
        measured = compare(bare, calls, _ROUNDS, _CPU)
        found += [(name, cost.time_ratio, unit) for name, cost in measured.items()]
    return found


def in_forwards(model: Any, clean: list[int], corrupted: list[int]) -> float:
    """Activation patching of all heads at all positions, in forwards of the plain model."""
    method = attrib.ActivationPatching(sites="head.*.*")
    ids = torch.tensor([corrupted])

    def forward() -> None:
        with torch.no_grad():
            model.module(ids)

    call = partial(attrib.explain, model, attrib.pair(clean, corrupted), method, attrib.LogitDiff(5, 17))
    forward()
    ratios = []
    for _ in range(3):
        own = [seconds_of(forward, _CPU) for _ in range(7)]
        taken = seconds_of(call, _CPU)
        own += [seconds_of(forward, _CPU) for _ in range(7)]
        ratios.append(taken / sorted(own)[7])
    return sorted(ratios)[1]


def whole_prompt(model: Any, made: Task, pairs: int = 1) -> float:
    """Seconds a pair for all residual, attention and MLP sites at every position of the first pairs."""
    given = attrib.pair(made.pair.clean[:pairs], made.pair.corrupted[:pairs])
    method = attrib.ActivationPatching(sites=("embed", "resid_*.*", "attn_out.*", "mlp_out.*"))
    began = time.process_time()
    attrib.explain(model, given, method, made.target[:pairs])
    return (time.process_time() - began) / pairs


def _bare(frozen: Any, model: Any, clean: list[int], corrupted: list[int], keep: int) -> None:
    more = {"logits_to_keep": keep} if keep else {}
    with torch.no_grad():
        frozen(inputs_embeds=model.embeddings(torch.tensor([clean])), use_cache=False, **more)
    x = model.embeddings(torch.tensor([corrupted])).detach().requires_grad_()
    logits = frozen(inputs_embeds=x, use_cache=False, **more).logits[:, -1]
    torch.autograd.grad(logits[:, 5].sum() - logits[:, 17].sum(), x)


def _ids(subject: Any, made: Task) -> tuple[list[int], list[int]]:
    first, second = (subject.tokenizer(t)["input_ids"] for t in (made.pair.clean[0], made.pair.corrupted[0]))
    return first, second


def _drawn() -> tuple[list[int], list[int]]:
    """Two prompts without a common token at any position, so that every patch has to be run."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randperm(50257, generator=generator)[: 2 * _TOKENS].view(2, _TOKENS)
    return ids[0].tolist(), ids[1].tolist()


def random_gpt2() -> Any:
    """GPT-2 small's shape with random weights, larger than the initialiser's, and a tokenizer of numbered words."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = tr.GPT2LMHeadModel(tr.GPT2Config()).eval()
        for parameter in module.parameters():
            parameter.data += torch.randn_like(parameter) * 0.02
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(50257)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return attrib.wrap(module, tokenizer=tr.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0"))
