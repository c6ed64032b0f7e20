"""The methods, by name. To add one: write its class, import it here, add its row."""

from __future__ import annotations

from attrib.errors import InputError, UnknownName
from attrib.methods.activation_patching import ActivationPatching
from attrib.methods.attribution_patching import AttributionPatching, RelP
from attrib.methods.backprop import DeconvNet, GuidedBackprop
from attrib.methods.base import Method
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
from attrib.methods.settings import check_settings
from attrib.methods.shap import GradientSHAP

METHODS: dict[str, type[Method]] = {
    "saliency": Saliency,
    "input_x_gradient": InputXGradient,
    "smoothgrad": SmoothGrad,
    "vargrad": VarGrad,
    "guided_backprop": GuidedBackprop,
    "deconvnet": DeconvNet,
    "integrated_gradients": IntegratedGradients,
    "gradient_shap": GradientSHAP,
    "deeplift": DeepLift,
    "occlusion": Occlusion,
    "kernel_shap": KernelSHAP,
    "grad_cam": GradCAM,
    "grad_cam_plus_plus": GradCAMPlusPlus,
    "layer_cam": LayerCAM,
    "normgrad": NormGrad,
    "excitation_pullback": ExcitationPullback,
    "attention_rollout": AttentionRollout,
    "gradient_attention_rollout": GradientAttentionRollout,
    "lrp": LRP,
    "relp": RelP,
    "attribution_patching": AttributionPatching,
    "activation_patching": ActivationPatching,
}


def method_named(method: Method | str) -> Method:
    """The method itself, or the one of that name with its default settings.

    Raises UnknownName, InputError for what is no method, or for a setting that is not what it has to be.
    """
    if isinstance(method, Method):
        check_settings(method)
        return method
    if not isinstance(method, str):
        raise _no_method(method)
    if method not in METHODS:
        raise UnknownName("method", method, METHODS)
    return METHODS[method]()


def _no_method(given: object) -> InputError:
    if isinstance(given, type) and issubclass(given, Method):
        return InputError(f"{given.__name__} is a class; give a method, {given.__name__}(), or its name")
    several = "; attrib.compare takes several" if isinstance(given, (list, tuple)) else ""
    return InputError(
        f"a method is needed, such as attrib.LRP(), or its name, 'lrp', not {type(given).__name__}{several}"
    )
