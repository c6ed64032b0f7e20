"""Results made by hand: rendering knows nothing of how they came about."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from attrib.attribution import Attribution
from attrib.provenance import Provenance


@pytest.fixture
def made() -> Callable[..., Attribution]:
    def make(values: torch.Tensor | None = None, **changes: Any) -> Attribution:
        generator = torch.Generator().manual_seed(0)
        values = torch.randn(1, 3, 32, 40, generator=generator) if values is None else values
        batch = len(values)
        pictures = np.random.default_rng(0).integers(0, 256, (batch, 32, 40, 3), dtype=np.uint8)
        provenance = Provenance(
            method="saliency",
            settings={"method": "saliency", "steps": 3},
            model="tiny",
            weights_hash="ab" * 32,
            input_hashes=("cd" * 32,) * batch,
            versions={"torch": "2"},
            device="cpu",
            dtype="float32",
            seed=7,
            seconds=0.5,
            peak_memory=2**20,
            created="2026-01-01T00:00:00+00:00",
        )
        fields: dict[str, Any] = {
            "kind": "input",
            "values": values,
            "target": [{"kind": "logit", "index": 1, "label": "cat"}] * batch,
            "score": torch.full((batch,), 2.5),
            "delta": torch.full((batch,), 0.25),
            "provenance": provenance,
            "pictures": pictures,
        }
        return Attribution(**{**fields, **changes})

    return make
