"""The rows of the table: what we run, what the peers run, and how far it should get (issue 2, "Speed and memory")."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

import attrib
from attrib.models import compare_fast, fast
from benchmarks import peers
from benchmarks.cases import Case
from benchmarks.measure import Run

Start = Callable[[Case], Run]
_STEPS, _WINDOW, _STRIDE = 50, 64, 32


@dataclass(frozen=True)
class Limit:
    """What a ratio should not exceed; None: no target."""

    time: float | None = None
    memory: float | None = None


@dataclass(frozen=True)
class Row:
    """One method. limits: by network. long: takes minutes, so it runs once, and at batch 1 unless asked for.

    per: None where ratios are to the bare pass; else the number of forwards that the time is divided by; peers_per:
    that of the peers, where they run fewer.
    remark: a sentence to put below the table. networks: those that it runs on; None: all.
    """

    name: str
    ours: Start
    peers: Mapping[str, Start] = field(default_factory=dict)
    limits: Mapping[str, Limit] = field(default_factory=dict)
    long: bool = False
    per: Callable[[Case], int] | None = None
    peers_per: Callable[[Case], int] | None = None
    remark: Callable[[Case], str] | None = None
    networks: tuple[str, ...] | None = None

    def runs_on(self, network: str) -> bool:
        return self.networks is None or network in self.networks


def explained(method: Any, **options: Any) -> Start:
    """attrib's public call, with all that it does around the method."""
    return lambda case: lambda: attrib.explain(case.wrapped, case.x, method, case.targets, **options)


def fast_saliency(dtype: torch.dtype | None) -> Start:
    def start(case: Case) -> Run:
        copy = fast(case.wrapped, dtype, example=case.x[:1])
        return lambda: attrib.explain(copy, case.x, "saliency", case.targets)

    return start


def _fast_remark(case: Case, dtype: torch.dtype | None) -> str:
    return str(compare_fast(case.wrapped, fast(case.wrapped, dtype, example=case.x[:1]), case.x))


def _kept_weights(case: Case) -> str:
    entries = case.wrapped.weight_cache._entries.values()
    kept, own = sum(e[2].nbytes for e in entries), sum(p.nbytes for p in case.module.parameters())
    return f"the first call leaves {kept / own:.1f}× the weights' memory behind as derived weights, for all later calls"


def _captum_lrp_remark(case: Case) -> str:
    relevance = peers.captum(case, "LRP")().flatten(1).sum(1)
    share = float((relevance / case.module(case.x).gather(1, case.index[:, None])[:, 0]).abs().max())
    return f"captum's LRP gives out up to {share:.3g}× the score that it explains"


def _tolerance_remark(case: Case) -> str:
    """How many steps a tolerance takes, from few to begin with."""
    method = attrib.IntegratedGradients(n_steps=4, tolerance=0.05)
    result = attrib.explain(case.wrapped, case.x[:1], method, case.targets[:1])
    steps = [int(found[1]) for note in result.notes if (found := re.search(r"(\d+) steps", note))]
    doublings = f"{(steps[0] // 4).bit_length() - 1} doublings of 4 steps" if steps else "no step count"
    return f"tolerance=0.05 took {doublings}: {'; '.join(result.notes)}"


def _windows(case: Case) -> int:
    return ((case.size - _WINDOW) // _STRIDE + 1) ** 2


def _cam(name: str, method: Any, theirs: str | None, with_captum: bool = False) -> Row:
    others: dict[str, Start] = {"captum": peers.captum_layer} if with_captum else {}
    if theirs is not None:
        others["grad-cam"] = partial(peers.grad_cam, name=theirs)
    return Row(name, explained(method), others, {"resnet50": Limit(0.6)})


def _captum(name: str, **options: Any) -> dict[str, Start]:
    return {"captum": partial(peers.captum, name=name, **options)}


_SINGLE = dict.fromkeys(("resnet50", "vgg16"), Limit(1.08, 1.15))
_FAST = dict.fromkeys(("resnet50", "vgg16"), Limit(0.8))

ROWS: tuple[Row, ...] = (
    Row("saliency", explained("saliency"), _captum("Saliency"), _SINGLE),
    Row("input_x_gradient", explained("input_x_gradient"), _captum("InputXGradient"), _SINGLE),
    Row(
        "guided_backprop",
        explained("guided_backprop"),
        _captum("GuidedBackprop") | {"zennit": partial(peers.zennit, name="GuidedBackprop")},
        _SINGLE,
    ),
    Row("deconvnet", explained("deconvnet"), _captum("Deconvolution"), _SINGLE),
    Row("excitation_pullback", explained("excitation_pullback"), {}, _SINGLE),
    _cam("grad_cam", "grad_cam", "GradCAM", with_captum=True),
    _cam("grad_cam_plus_plus", "grad_cam_plus_plus", "GradCAMPlusPlus"),
    _cam("layer_cam", "layer_cam", "LayerCAM"),
    _cam("normgrad, last stage", attrib.NormGrad(layers="last"), None),
    Row(
        "lrp epsilon",
        explained(attrib.LRP(preset="epsilon")),
        _captum("LRP"),
        remark=_captum_lrp_remark,
    ),
    Row(
        "lrp epsilon_plus_flat",
        explained(attrib.LRP(preset="epsilon_plus_flat")),
        {"zennit": partial(peers.zennit, name="EpsilonPlusFlat")},
        {"vgg16": Limit(1.6, 2.0), "resnet50": Limit(1.7, 2.0)},
        remark=_kept_weights,
    ),
    Row(
        "lrp epsilon_gamma_box",
        explained(attrib.LRP(preset="epsilon_gamma_box")),
        {"zennit": partial(peers.zennit, name="EpsilonGammaBox")},
        {"vgg16": Limit(1.75, 2.0), "resnet50": Limit(2.3, 2.0)},
        remark=_kept_weights,
    ),
    Row("deeplift", explained("deeplift"), _captum("DeepLift"), dict.fromkeys(("resnet50", "vgg16"), Limit(1.6))),
    Row(
        "integrated_gradients, 50 steps",
        explained(attrib.IntegratedGradients(n_steps=_STEPS)),
        {"captum": partial(peers.captum_integrated, steps=_STEPS)},
        dict.fromkeys(("resnet50", "vgg16"), Limit(44, 5)),
        long=True,
        remark=_tolerance_remark,
    ),
    Row(
        f"occlusion, window {_WINDOW}, stride {_STRIDE}",
        explained(attrib.Occlusion(window=_WINDOW, stride=_STRIDE)),
        _captum("Occlusion", sliding_window_shapes=(3, _WINDOW, _WINDOW), strides=(3, _STRIDE, _STRIDE)),
        dict.fromkeys(("resnet50", "vgg16"), Limit(0.9)),
        long=True,
        per=_windows,
    ),
    Row("saliency, fast copy", fast_saliency(None), {}, _FAST, remark=partial(_fast_remark, dtype=None)),
    Row(
        "saliency, fast copy in bfloat16",
        fast_saliency(torch.bfloat16),
        remark=partial(_fast_remark, dtype=torch.bfloat16),
    ),
)
