"""The metrics, by name. To add one: write its class, import it here, add its row."""

from __future__ import annotations

from attrib.errors import UnknownName
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
    """The metric itself, or the one of that name with its default settings."""
    if isinstance(metric, Metric):
        return metric
    if metric not in METRICS:
        raise UnknownName("metric", metric, METRICS)
    return METRICS[metric]()
