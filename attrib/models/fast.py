"""A faster copy of a model: BatchNorm folded in, weights as the CPU wants them, on request bfloat16.

The copy shares nothing with the original, which stays as it is, and is compared with it before it is handed out.
In float32 its maps are the original's up to rounding (about 5e-7 of their length), until rounding moves a unit past
the kink of a ReLU or another maximum into a window: then the map jumps, by 1e-4 to 5e-3 as measured. The original's
own map in float32 jumps likewise beside its map in float64; without kinks neither does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attrib.errors import InputError, UnsupportedModel
from attrib.models.assets import asset
from attrib.models.folding import fold_norms
from attrib.models.vision import VisionModel
from attrib.outputs import logits_of
from attrib.rules.arranged import arrange
from attrib.rules.shadow import shadow

# largest difference of a logit, as a share of the largest logit
_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}


@dataclass(frozen=True)
class FastReport:
    """What a fast copy changes, one entry per input in the tuples.

    logit_difference: largest difference of a logit, as a share of the largest logit.
    same_top: whether the top prediction is the same.
    map_correlation: Spearman's rank correlation of the saliency maps; 1 = the same order of pixels.
    map_difference: length of the difference of the gradients at the input, as a share of the gradient's length.
    """

    logit_difference: tuple[float, ...]
    same_top: tuple[bool, ...]
    map_correlation: tuple[float, ...]
    map_difference: tuple[float, ...]

    def __str__(self) -> str:
        return (
            f"logits differ by up to {max(self.logit_difference):.1e} of the largest, the top prediction is the same "
            f"for {sum(self.same_top)} of {len(self.same_top)} inputs, gradients differ by up to "
            f"{max(self.map_difference):.1e} of their length, and the rank correlation of the saliency maps is "
            f"{min(self.map_correlation):.3f} or better"
        )


def fast(model: VisionModel, dtype: torch.dtype | None = None, example: Any = None) -> VisionModel:
    """A faster copy of `model`; the original is not touched.

    dtype: None keeps the model's; torch.bfloat16 is faster still, and its effect on the maps is measured on the
        example and goes as a note into every explanation.
    example: inputs to check the copy on; needed only where the model has no preprocessing.
    Raises UnsupportedModel when the copy does not give the original's outputs.
    """
    if dtype is not None and dtype not in _TOLERANCE:
        raise InputError(f"dtype {dtype}: use {', '.join(str(d) for d in _TOLERANCE)}")
    x = model.encode(_example(model) if example is None else example).x
    twin = shadow(model.module)
    fold_norms(twin, x[:1])
    _own_tensors(twin, dtype)
    arrange(twin)
    copy = VisionModel(twin, f"{model.name} (fast)", model.preprocessing, model.labels, model.notes)
    report = _checked(model, copy, x)
    if copy.dtype != model.dtype:
        precision = str(copy.dtype).removeprefix("torch.")
        copy.notes = (*model.notes, f"This model computes in {precision}; on the check input, {report}.")
    return copy


def compare_fast(model: VisionModel, quick: VisionModel, inputs: Any) -> FastReport:
    """What `quick`, a fast copy of `model`, changes on `inputs`."""
    x = model.encode(inputs).x
    logits, gradients = _outputs(model, x)
    top = logits.argmax(1)
    quick_logits, quick_gradients = _outputs(quick, x.to(quick.device, quick.dtype), top)
    return FastReport(
        tuple(_relative(quick_logits, logits)),
        tuple((quick_logits.argmax(1) == top).tolist()),
        tuple(_rank_correlation(a, b) for a, b in zip(_maps(quick_gradients), _maps(gradients), strict=True)),
        tuple(((quick_gradients - gradients).flatten(1).norm(dim=1) / gradients.flatten(1).norm(dim=1)).tolist()),
    )


def _example(model: VisionModel) -> Any:
    if model.preprocessing is None:
        raise InputError(f"{model.name} has no preprocessing; give example=, a float tensor to check the fast copy on")
    return str(asset("photos/persian_cat.jpg"))


def _checked(model: VisionModel, copy: VisionModel, x: Tensor) -> FastReport:
    try:
        report = compare_fast(model, copy, x)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise UnsupportedModel(f"the fast copy of {model.name} cannot run: {error}; use the model as it is") from error
    worst = max(report.logit_difference)
    if not worst <= _TOLERANCE[copy.dtype]:  # also when it is NaN
        raise UnsupportedModel(
            f"the fast copy of {model.name} gives other outputs: a logit differs by {worst:.1e} of the largest one; "
            "use the model as it is"
        )
    return report


def _own_tensors(twin: nn.Module, dtype: torch.dtype | None) -> None:
    """Give the twin copies of all its tensors, images' weights in channels_last."""
    copies: dict[int, Tensor] = {}

    def copied(tensor: Tensor) -> Tensor:
        if id(tensor) not in copies:
            layout = torch.channels_last if tensor.dim() == 4 else torch.preserve_format
            wanted = dtype if tensor.is_floating_point() else None
            copies[id(tensor)] = tensor.detach().to(dtype=wanted, memory_format=layout, copy=True)
        return copies[id(tensor)]

    for module in twin.modules():
        for name, tensor in module._parameters.items():
            if tensor is not None:
                module._parameters[name] = nn.Parameter(copied(tensor), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = copied(buffer)


def _outputs(model: VisionModel, x: Tensor, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient at x of each row's logit `index` (None: the top one), float64 on the CPU."""
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = logits_of(shadow(model.module)(leaf.clone()))
        logits = logits if logits.dim() == 2 else logits.flatten(2).sum(2)
        chosen = logits.argmax(1) if index is None else index.to(logits.device)
        (gradient,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), leaf)
    return logits.detach().cpu().double(), gradient.detach().cpu().double()


def _relative(other: Tensor, reference: Tensor) -> list[float]:
    difference = (other - reference).abs().amax(1)
    return [float(d) for d in difference / reference.abs().amax(1)]


def _maps(gradients: Tensor) -> Tensor:
    return gradients.abs().amax(1).flatten(1)


def _rank_correlation(a: Tensor, b: Tensor) -> float:
    ranks = torch.stack([a.argsort().argsort(), b.argsort().argsort()]).double()
    return float(torch.corrcoef(ranks)[0, 1])
