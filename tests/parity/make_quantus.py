"""Make data/quantus.safetensors: what Quantus 0.6.0 says of one small network, its inputs and given maps.

Quantus is not needed to run the tests: pip install --no-deps --target FOLDER quantus==0.6.0 cachetools, then
PYTHONPATH=.:FOLDER python tests/parity/make_quantus.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import quantus
import torch
from safetensors.torch import save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from quantus_net import SIDE, one_layer, small_net

OUT = Path(__file__).parent / "data" / "quantus.safetensors"
N = 6
_QUIET = {"disable_warnings": True, "display_progressbar": False}
_RAW = _QUIET | {"abs": False, "normalise": False}


def gradient(model: torch.nn.Module, inputs: np.ndarray, targets: np.ndarray, **_: object) -> np.ndarray:
    """x ⊙ ∂f/∂x, (batch, 1, height, width)."""
    x = torch.as_tensor(inputs, dtype=torch.float32).requires_grad_()
    score = model(x).gather(1, torch.as_tensor(targets)[:, None]).sum()
    return (x * torch.autograd.grad(score, x)[0]).detach().numpy()


def main() -> None:
    random = torch.Generator().manual_seed(0)
    net, x = small_net(), torch.randn(N, 1, SIDE, SIDE, generator=random)
    maps = torch.randn(N, 1, SIDE, SIDE, generator=random)
    y = net(x).argmax(1)
    masks = torch.zeros(N, 1, SIDE, SIDE)
    masks[:, :, 3:8, 2:9] = 1
    given = {"x_batch": x.numpy(), "y_batch": y.numpy(), "a_batch": maps.numpy(), "device": "cpu"}
    positive = given | {"a_batch": maps.abs().numpy(), "s_batch": masks.numpy().astype(bool)}
    flipping = quantus.PixelFlipping(features_in_step=12, perturb_baseline=0.0, **_RAW)
    road = quantus.ROAD(percentages=[10, 30, 50, 70, 90], noise=0.0, **_RAW)
    found: dict[str, object] = {
        "pixel_flipping": flipping(model=net, **given),
        "road": list(road(model=net, **given).values()),
        "sparseness": quantus.Sparseness(abs=True, normalise=True, **_QUIET)(model=net, **given),
        "complexity": quantus.Complexity(abs=True, normalise=True, **_QUIET)(model=net, **given),
        "relevance_mass": quantus.RelevanceMassAccuracy(**_RAW)(model=net, **positive),
        "rank_accuracy": quantus.RelevanceRankAccuracy(**_RAW)(model=net, **positive),
        "pointing_game": quantus.PointingGame(**_RAW)(model=net, **positive),
        "randomisation": _randomisation(x),
    }
    arrays = {name: torch.tensor(np.asarray(values, dtype=np.float64)) for name, values in found.items()}
    save_file(arrays | {"x": x, "maps": maps, "masks": masks, "targets": y}, OUT)


def _randomisation(x: Tensor) -> np.ndarray:
    """Of a network with one layer, whose seed is then ours to choose too."""
    net = one_layer()
    y = net(x).argmax(1)
    alike = quantus.similarity_func.correlation_spearman
    metric = quantus.MPRT(similarity_func=alike, seed=42, abs=True, normalise=True, layer_order="independent", **_QUIET)
    scores = metric(
        model=net, x_batch=x.numpy(), y_batch=y.numpy(), a_batch=None, device="cpu", explain_func=gradient,
        explain_func_kwargs={},
    )  # fmt: skip
    return np.asarray([values for layer, values in scores.items() if layer != "original"])


if __name__ == "__main__":
    main()
