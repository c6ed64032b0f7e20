"""Running statistics: what is known of many arrays after seeing each of them once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Running:
    """Mean and spread of arrays of one shape, added one by one — Welford 1962.

    mean_k = mean_{k−1} + (x − mean_{k−1})/k;  m2_k = m2_{k−1} + (x − mean_{k−1})(x − mean_k).
    """

    count: int = 0
    mean: Any = 0.0
    m2: Any = 0.0

    def add(self, values: np.ndarray | float) -> None:
        self.count += 1
        before = values - self.mean
        self.mean = self.mean + before / self.count
        self.m2 = self.m2 + before * (values - self.mean)

    @property
    def spread(self) -> Any:
        """The standard deviation of what was added (÷ n − 1); 0 of a single one."""
        return np.sqrt(self.m2 / max(1, self.count - 1))
