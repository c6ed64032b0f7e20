"""How a report comes about, none of which changes what is in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from attrib.errors import InputError
from attrib.models import load
from attrib.reports.batches import Model
from attrib.reports.spec import Spec

OnProgress = Callable[[int, int | None, str], None]


@dataclass(frozen=True)
class How:
    """How a report comes about, none of which changes what is in it.

    workers: processes on this machine, this one among them; a report of few rows is made by one.
    ray: the address of a Ray cluster, or "local".
    retry_failed: compute anew what failed in an earlier run. own_models: models that `attrib.load` does not know.
    """

    workers: int | None = None
    ray: str | None = None
    retry_failed: bool = False
    own_models: Mapping[str, Model] | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether other processes compute."""
        return self.ray is not None or (self.workers or 1) > 1

    def load(self, name: str, spec: Spec) -> Model:
        return (self.own_models or {}).get(name) or load(name, device=spec.device)

    def check(self, spec: Spec) -> None:
        """Raises InputError for a model of one's own where other processes would have to load it."""
        for name in spec.models:
            if self.elsewhere and name in (self.own_models or {}):
                raise InputError(
                    f"{name} is a model of your own, which other processes cannot load; leave out workers and ray"
                )
