"""The metrics, by name. To add one: write its class, import it here, add its row."""

from __future__ import annotations

from attrib.errors import InputError, UnknownName
from attrib.methods.settings import check_settings
from attrib.metrics.base import Metric
from attrib.metrics.fidelity import Infidelity, RobustFidelity
from attrib.metrics.generated import ActivationCurve, OutputErrorCurve
from attrib.metrics.localisation import IoU, PointingGame, RankAccuracy, RelevanceMass
from attrib.metrics.patched import PatchingCorrelation
from attrib.metrics.randomisation import ClassSensitivity, MaxSensitivity, ParameterRandomisation, RandomLogit
from attrib.metrics.removal import Comprehensiveness, Deletion, Insertion, PixelFlipping, Sufficiency
from attrib.metrics.road import ROAD
from attrib.metrics.shape import Completeness, Complexity, Recovery, Sparseness

METRICS: dict[str, type[Metric]] = {
    "completeness": Completeness,
    "deletion": Deletion,
    "insertion": Insertion,
    "pixel_flipping": PixelFlipping,
    "road": ROAD,
    "comprehensiveness": Comprehensiveness,
    "sufficiency": Sufficiency,
    "au_ac": ActivationCurve,
    "au_mse": OutputErrorCurve,
    "infidelity": Infidelity,
    "robust_fidelity": RobustFidelity,
    "max_sensitivity": MaxSensitivity,
    "parameter_randomisation": ParameterRandomisation,
    "random_logit": RandomLogit,
    "class_sensitivity": ClassSensitivity,
    "recovery": Recovery,
    "sparseness": Sparseness,
    "complexity": Complexity,
    "pointing_game": PointingGame,
    "relevance_mass": RelevanceMass,
    "rank_accuracy": RankAccuracy,
    "iou": IoU,
    "patching_correlation": PatchingCorrelation,
}


def metric_named(metric: Metric | str) -> Metric:
    """The metric itself, or the one of that name with its default settings.

    Raises UnknownName, InputError for what is no metric, or for a setting that is not what it has to be.
    """
    if isinstance(metric, Metric):
        check_settings(metric)
        return metric
    if not isinstance(metric, str):
        raise _no_metric(metric)
    if metric not in METRICS:
        raise UnknownName("metric", metric, METRICS)
    return METRICS[metric]()


def _no_metric(given: object) -> InputError:
    if isinstance(given, type) and issubclass(given, Metric):
        return InputError(f"{given.__name__} is a class; give a metric, {given.__name__}(), or its name")
    return InputError(f"a metric is needed, or its name, not {type(given).__name__}")
