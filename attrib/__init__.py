"""attrib shows why a neural network decided what it did."""

from __future__ import annotations

from attrib import models
from attrib.attribution import Attribution, Coverage, Provenance
from attrib.errors import (
    AttribError,
    Cancelled,
    InputError,
    MissingExtra,
    ModelUnavailable,
    NotApplicable,
    OpaqueModel,
    PromptPairError,
    TargetError,
    UncoveredOperation,
    UnknownName,
    UnsupportedModel,
)
from attrib.explain import compare, explain
from attrib.methods import METHODS
from attrib.methods.backprop import DeconvNet, GuidedBackprop
from attrib.methods.deeplift import DeepLift
from attrib.methods.excitation import ExcitationPullback
from attrib.methods.gradient import InputXGradient, Saliency
from attrib.methods.lrp import LRP
from attrib.models import load, wrap
from attrib.targets import Logit, LogitDiff, LogProb, TokenLogit

__all__ = [
    "LRP",
    "METHODS",
    "AttribError",
    "Attribution",
    "Cancelled",
    "Coverage",
    "DeconvNet",
    "DeepLift",
    "ExcitationPullback",
    "GuidedBackprop",
    "InputError",
    "InputXGradient",
    "LogProb",
    "Logit",
    "LogitDiff",
    "MissingExtra",
    "ModelUnavailable",
    "NotApplicable",
    "OpaqueModel",
    "PromptPairError",
    "Provenance",
    "Saliency",
    "TargetError",
    "TokenLogit",
    "UncoveredOperation",
    "UnknownName",
    "UnsupportedModel",
    "compare",
    "explain",
    "load",
    "models",
    "wrap",
]
