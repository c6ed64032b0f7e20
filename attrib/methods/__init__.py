"""The methods, by name. To add one: write its class, import it here, add its row."""

from __future__ import annotations

from attrib.errors import UnknownName
from attrib.methods.backprop import DeconvNet, GuidedBackprop
from attrib.methods.base import Method
from attrib.methods.deeplift import DeepLift
from attrib.methods.excitation import ExcitationPullback
from attrib.methods.gradient import InputXGradient, Saliency
from attrib.methods.lrp import LRP

METHODS: dict[str, type[Method]] = {
    "saliency": Saliency,
    "input_x_gradient": InputXGradient,
    "guided_backprop": GuidedBackprop,
    "deconvnet": DeconvNet,
    "deeplift": DeepLift,
    "excitation_pullback": ExcitationPullback,
    "lrp": LRP,
}


def method_named(method: Method | str) -> Method:
    """The method itself, or the one of that name with its default settings."""
    if isinstance(method, Method):
        return method
    if method not in METHODS:
        raise UnknownName("method", method, METHODS)
    return METHODS[method]()
