"""A small torchvision network with labels, and a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

LABELS = ["red fox", "kit fox", "grey fox"]


def small_resnet(**options: Any) -> torch.nn.Module:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    return resnet18(weights=None, **options).eval()


def random_picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
