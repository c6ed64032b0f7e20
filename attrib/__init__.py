"""attrib shows why a neural network decided what it did.

    import attrib

    model = attrib.load("efficientnet-lite0")  # or attrib.wrap(module), attrib.wrap(module, tokenizer=tokenizer)
    result = attrib.explain(model, "cat.jpg", "lrp")  # a name from attrib.METHODS, or attrib.LRP("epsilon_plus")
    result.values, result.score, result.delta, result.notes
    result.plot()

Models: `load`, `wrap`, `models`. Explanations: `explain`, `compare`, `explain_generation`; the methods are classes with
a `card` that says what they assume and when they mislead. Targets: `Logit`, `LogitDiff`, `LogProb`, `TokenLogit`,
`Candidates`. Prompts and circuits: `pair`, `tasks`, `site_kinds`, `verify_effects`, `sampled_correlation`, `circuit`.
Whether to believe a map: `Attribution.evidence`, `check`, `evaluate`, `class_sensitivity`, `truth`. Many inputs:
`report`. All errors are `AttribError`s. Nothing is ever left on a model.
"""

from __future__ import annotations

from attrib import models, truth
from attrib.attribution import Attribution
from attrib.circuits import circuit
from attrib.class_sensitivity import class_sensitivity
from attrib.coverage import Coverage
from attrib.errors import (
    AttribError,
    Cancelled,
    InputError,
    MissingExtra,
    ModelUnavailable,
    NotApplicable,
    OpaqueModel,
    PromptPairError,
    ReportError,
    TargetError,
    UncoveredOperation,
    UnknownName,
    UnsupportedModel,
)
from attrib.explain import compare, explain
from attrib.generation import explain_generation
from attrib.methods import METHODS
from attrib.methods.activation_patching import ActivationPatching
from attrib.methods.attribution_patching import AttributionPatching, RelP
from attrib.methods.backprop import DeconvNet, GuidedBackprop
from attrib.methods.cam import GradCAM, GradCAMPlusPlus, LayerCAM
from attrib.methods.deeplift import DeepLift
from attrib.methods.excitation import ExcitationPullback
from attrib.methods.gradient import InputXGradient, Saliency
from attrib.methods.integrated import IntegratedGradients
from attrib.methods.kernel import KernelSHAP
from attrib.methods.lrp import LRP
from attrib.methods.noise import SmoothGrad, VarGrad
from attrib.methods.normgrad import NormGrad
from attrib.methods.occlusion import Occlusion
from attrib.methods.rollout import AttentionRollout, GradientAttentionRollout
from attrib.methods.shap import GradientSHAP
from attrib.metrics import METRICS
from attrib.metrics.checking import check
from attrib.metrics.evaluate import evaluate
from attrib.metrics.evaluation import Evaluation
from attrib.metrics.evidence import Evidence
from attrib.models import load, wrap
from attrib.patching import tasks
from attrib.patching.circuit import Circuit
from attrib.patching.pair import Pair, pair
from attrib.patching.probing import site_kinds
from attrib.provenance import Provenance
from attrib.reports.api import report
from attrib.targets import Candidates, Logit, LogitDiff, LogProb, TokenLogit
from attrib.verification import SampledCorrelation, Verification, sampled_correlation, verify_effects

__all__ = [
    "LRP",
    "METHODS",
    "METRICS",
    "ActivationPatching",
    "AttentionRollout",
    "AttribError",
    "Attribution",
    "AttributionPatching",
    "Cancelled",
    "Candidates",
    "Circuit",
    "Coverage",
    "DeconvNet",
    "DeepLift",
    "Evaluation",
    "Evidence",
    "ExcitationPullback",
    "GradCAM",
    "GradCAMPlusPlus",
    "GradientAttentionRollout",
    "GradientSHAP",
    "GuidedBackprop",
    "InputError",
    "InputXGradient",
    "IntegratedGradients",
    "KernelSHAP",
    "LayerCAM",
    "LogProb",
    "Logit",
    "LogitDiff",
    "MissingExtra",
    "ModelUnavailable",
    "NormGrad",
    "NotApplicable",
    "Occlusion",
    "OpaqueModel",
    "Pair",
    "PromptPairError",
    "Provenance",
    "RelP",
    "ReportError",
    "Saliency",
    "SampledCorrelation",
    "SmoothGrad",
    "TargetError",
    "TokenLogit",
    "UncoveredOperation",
    "UnknownName",
    "UnsupportedModel",
    "VarGrad",
    "Verification",
    "check",
    "circuit",
    "class_sensitivity",
    "compare",
    "evaluate",
    "explain",
    "explain_generation",
    "load",
    "models",
    "pair",
    "report",
    "sampled_correlation",
    "site_kinds",
    "tasks",
    "truth",
    "verify_effects",
    "wrap",
]


def __dir__() -> list[str]:
    """The public names alone: modules below are there once they are imported, and are no promise."""
    return __all__
