"""`python -m benchmarks.faithfulness`: methods × metrics on the embedded models, with intervals, as Markdown.

Photos: the six that are shipped, on efficientnet-lite0. Texts: held-out snippets that the head of minilm-sentiment
was not trained on (scripts/train_sentiment.py, folds 0 and 1), downloaded into a temporary folder and not kept.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import attrib
from attrib.methods.base import Method
from attrib.metrics.base import Metric
from attrib.metrics.evaluate import cost
from attrib.metrics.evaluation import Evaluation
from attrib.metrics.generated import ActivationCurve, OutputErrorCurve
from attrib.metrics.joining import joined
from attrib.metrics.randomisation import ParameterRandomisation, RandomLogit
from attrib.metrics.removal import Comprehensiveness, Deletion, Insertion, Sufficiency
from attrib.metrics.road import ROAD
from attrib.models import photos

# what takes many passes gets fewer of them than by default, so that the table takes minutes
_SHORTER: dict[str, dict[str, Any]] = {
    "smoothgrad": {"n_samples": 8},
    "vargrad": {"n_samples": 8},
    "integrated_gradients": {"n_steps": 12},
    "gradient_shap": {"n_samples": 6},
    "occlusion": {"window": 56, "stride": 28},
    "kernel_shap": {"n_samples": 64},
}
_OF_PHOTOS: tuple[Metric, ...] = (
    Deletion(12), Insertion(12), ROAD(), ParameterRandomisation(stages=2, draws=2), RandomLogit(),
)  # fmt: skip
_TOGETHER = 8
_OF_TEXTS: tuple[Metric, ...] = (Comprehensiveness(), Sufficiency(), ActivationCurve(), OutputErrorCurve())


def main(
    part: Annotated[str, typer.Option(help="photos, texts or both.")] = "both",
    sentences: Annotated[int, typer.Option(min=3, help="How many held-out texts.")] = 200,
    n_random: Annotated[int, typer.Option(min=1, help="Random maps of each kind per input and metric.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the choice of texts and of all that is random.")] = 0,
    save: Annotated[Path | None, typer.Option(help="A folder for all numbers, curves and the summary.")] = None,
) -> None:
    """Measure and print; a star marks what is better than random maps (sign-flip test over the inputs, p ≤ .05)."""
    torch.set_num_threads(min(2, torch.get_num_threads()))
    if part in ("photos", "both"):
        model, methods = attrib.load("efficientnet-lite0"), _methods("image", ())
        found = _measured(model, list(photos().values()), methods, _OF_PHOTOS, n_random, seed)
        _shown("efficientnet-lite0, six photos", found, methods, save and save / "photos")
    if part in ("texts", "both"):
        lrp = (attrib.LRP("attn_lrp"), attrib.LRP("cp_lrp"), attrib.LRP("attn_lrp", positions=True))
        text_model, methods = attrib.load("minilm-sentiment"), _methods("text", lrp)
        found = _measured(text_model, held_out(sentences, seed), methods, _OF_TEXTS, n_random, seed)
        _shown(f"minilm-sentiment, {sentences} held-out sentences", found, methods, save and save / "texts")


def held_out(n: int, seed: int) -> list[str]:
    """n snippets that training has not seen, drawn at random."""
    from attrib.models.pull import download
    from scripts.train_sentiment import DATA, fold, snippets

    with tempfile.TemporaryDirectory() as folder:
        found = snippets(download(DATA, Path(folder), lambda part: None))
    return random.Random(seed).sample(sorted(s.text for s in found if fold(s.group) in {0, 1}), n)


def _methods(kind: str, lrp: tuple[Method, ...]) -> dict[str, Method]:
    """Label → method: all that explain this kind of model, LRP of texts in its transformer presets."""
    found: dict[str, Method] = {}
    for name, cls in attrib.METHODS.items():
        if kind in cls.applies_to and not (name == "lrp" and lrp) and not (kind == "image" and cls.needs_attention):
            found[name] = cls(**_SHORTER.get(name, {}))
    return found | dict(zip(("lrp attn_lrp", "lrp cp_lrp", "lrp attn_lrp, positions"), lrp, strict=False))


def _measured(
    model: Any, inputs: list[Any], methods: dict[str, Method], metrics: tuple[Metric, ...], n_random: int, seed: int
) -> Evaluation:
    each = cost(model, list(methods.values()), metrics, n_random)
    print(f"{model.name}: at most {each} for each of {len(inputs)} inputs", flush=True)
    told = [time.monotonic()]
    groups = _of_one_length(model, inputs) if model.kind == "text" else [inputs]
    found: list[Evaluation] = []

    def progress(fraction: float, message: str) -> None:
        if time.monotonic() - told[0] > 30:
            told[0] = time.monotonic()
            print(f"  {(len(found) + fraction) / len(groups):.0%} {message}", flush=True)

    chosen = list(methods.values())
    for group in groups:
        found.append(attrib.evaluate(model, group, chosen, metrics, n_random=n_random, seed=seed, on_progress=progress))
    return joined(found)


def _of_one_length(model: Any, texts: list[str]) -> list[list[str]]:
    """Texts of about one length together: what pads the short ones of a batch is computed for nothing."""
    ordered = sorted(texts, key=lambda text: len(model.encode(text).x[0]))
    return [ordered[start : start + _TOGETHER] for start in range(0, len(ordered), _TOGETHER)]


def _shown(title: str, found: Evaluation, methods: dict[str, Method], folder: Path | None) -> None:
    if folder is not None:
        found.save(folder)
    table = found.markdown()
    for name, label in zip(found.methods, methods, strict=True):
        table = table.replace(f"| {name} |", f"| `{label}` |", 1)
    print(f"\n**{title}** ({found.facts['seconds'] / 60:.0f} min)\n\n{table}\n", flush=True)


if __name__ == "__main__":
    typer.run(main)
