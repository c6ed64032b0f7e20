"""The network that every method must explain, in several spellings, and methods with cheap settings."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import attrib
from attrib.methods.base import Method
from attrib.models import VisionModel
from attrib.models.text import TextModel

N_CLASSES = 5
METHOD_NAMES = tuple(
    name for name, cls in attrib.METHODS.items() if "image" in cls.applies_to and not cls.needs_attention
)
PAIR_METHODS = tuple(name for name, cls in attrib.METHODS.items() if "pair" in cls.applies_to)
# what makes loops short; only the fields that a method has are set
_CHEAP = {"n_steps": 4, "n_samples": 6, "window": 8, "stride": 8, "n_segments": 4}


class Modules(nn.Module):
    """conv, BatchNorm, ReLU, max-pool, a convolution with BatchNorm used twice, a residual add, pool, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.block = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.block_norm = nn.BatchNorm2d(8)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(8, N_CLASSES)

    def forward(self, x: Tensor) -> Any:
        x = self.pool(self.act(self.norm(self.conv(x))))
        y = self.act(self.block_norm(self.block(x)))
        y = self.block_norm(self.block(y))
        x = self.act(x + y)
        return self.head(self.flatten(self.average(x)))


class Functional(Modules):
    """The same out of functions; nothing happens in place."""

    def forward(self, x: Tensor) -> Any:
        x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
        y = torch.relu(self.block_norm(self.block(x)))
        y = self.block_norm(F.conv2d(y, self.block.weight, padding=1))
        x = torch.add(x, y).relu()
        return F.linear(F.adaptive_avg_pool2d(x, 1).flatten(1), self.head.weight, self.head.bias)


class InPlace(Modules):
    """The same with everything in place that can be."""

    def forward(self, x: Tensor) -> Any:
        x = torch.max_pool2d(self.norm(self.conv(x)).relu_(), 2)
        y = F.relu(self.block_norm(self.block(x)), inplace=True)
        y = self.block_norm(self.block(y))
        y += x
        return self.head(torch.flatten(self.average(torch.relu_(y)), 1))


class Constant(nn.Module):
    """Scores that hang on the input by zeros only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, N_CLASSES)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


class Answering(nn.Module):
    """`inner`, its logits handed to `finish`."""

    def __init__(self, inner: nn.Module, finish: Any) -> None:
        super().__init__()
        self.inner, self.finish = inner, finish

    def forward(self, x: Tensor) -> Any:
        return self.finish(self.inner(x))


def network(cls: type[nn.Module] = Modules, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Seeded weights; BatchNorm statistics as after training, one of its weights negative."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = cls()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, 0.0, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0.0, 0.2)
                module.weight.data[0] *= -1
    return net.to(dtype).eval()


def model(cls: type[nn.Module] = Modules, dtype: torch.dtype = torch.float64) -> VisionModel:
    return attrib.wrap(network(cls, dtype))


def language_model(dtype: torch.dtype = torch.float64) -> TextModel:
    """A GPT-2 of two blocks that takes the words w4 … w29."""
    special = {"[PAD]": 0, "[BOS]": 1, "[EOS]": 2, "[UNK]": 3}
    words = Tokenizer(models.WordLevel(special | {f"w{i}": i for i in range(4, 30)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=16, vocab_size=30, **ids)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = GPT2LMHeadModel(config).double().eval()
        for parameter in module.parameters():
            parameter.data += torch.randn_like(parameter) * (0.3 if parameter.dim() > 1 else 0.1)
    return attrib.wrap(module.to(dtype), tokenizer=tokenizer)


def prompts(batch: int = 3) -> attrib.Pair:
    """Pairs of prompts of 6, 5 and 4 words, and again."""
    rows = [(6, 20), (5, 21), (4, 22)] * 2
    clean = [" ".join(f"w{4 + i + j}" for j in range(n)) for i, (n, _) in enumerate(rows[:batch])]
    corrupted = [text.split(" ") for text in clean]
    for words, (_, other) in zip(corrupted, rows, strict=False):
        words[1] = f"w{other}"
    return attrib.pair(clean, [" ".join(words) for words in corrupted])


def pictures(batch: int = 3, dtype: torch.dtype = torch.float64, side: int = 16) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(7), dtype=torch.float64).to(dtype)


def cheap(name: str, **settings: Any) -> Method:
    """The method with short loops, and those of `settings` that it has fields for."""
    method = attrib.METHODS[name]()
    wanted = _CHEAP | settings
    fields = {field.name for field in dataclasses.fields(method)}  # type: ignore[arg-type]
    return dataclasses.replace(method, **{k: v for k, v in wanted.items() if k in fields})  # type: ignore[type-var]


def state_of(module: nn.Module) -> dict[str, Any]:
    """Everything about a module that an explanation could leave a trace on."""
    state: dict[str, Any] = {"modes on": torch._C._len_torch_function_stack(), "grad": torch.is_grad_enabled()}
    state["rng"] = bytes(torch.get_rng_state().numpy())
    for path, part in module.named_modules():
        own = {k: copy.copy(v) for k, v in part.__dict__.items() if not k.startswith("_")}
        hooks = {k: dict(v) for k, v in part.__dict__.items() if "_hooks" in k and v is not None}
        state[path] = (type(part), id(part), own, hooks, tuple(part.__dict__), id(part.forward.__func__))
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        exact = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        gradient, hooked = tensor.grad, bool(tensor._backward_hooks)
        layout = (tensor.data_ptr(), tensor.stride(), tensor._version, sorted(vars(tensor)))
        state[f"tensor {name}"] = (id(tensor), exact, layout, tensor.requires_grad, gradient, hooked)
    return state


def worst(ours: Tensor, reference: Tensor) -> float:
    """max |difference| / max |reference|."""
    scale = float(reference.double().abs().max())
    return float((ours.double() - reference.double()).abs().max()) / (scale or 1.0)
