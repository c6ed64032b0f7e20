"""Estimated effects of patching against true ones, as a metric of methods that compare two prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from attrib.attribution import Attribution
from attrib.chunks import Progress
from attrib.methods.base import setting
from attrib.metrics.base import Better, Metric, MetricCard, Passes
from attrib.patching.pair import Pair
from attrib.verification import SampledCorrelation, sampled_correlation

if TYPE_CHECKING:
    from attrib.metrics.trial import Model


@dataclass(frozen=True)
class PatchingCorrelation(Metric):
    """Correlation of estimated with true effects over a random sample of sites. Kramár et al. 2024; RelP 2025."""

    sites: int = setting(50, "Sites at positions that are drawn; each costs a forward from the patch on.", low=2)
    coefficient: Literal["pearson", "spearman"] = setting(
        "pearson", "pearson: of the effects; spearman: of their order.", choices=("pearson", "spearman")
    )

    name: ClassVar[str] = "patching_correlation"
    better: ClassVar[Better] = "higher"
    applies_to: ClassVar[frozenset[str]] = frozenset({"pair"})
    card: ClassVar[MetricCard] = MetricCard(
        title="Correlation with activation patching",
        question="Does putting the other prompt's activation there really do what the method says?",
        formula="Pearson's r (or Spearman's ρ) of estimated and true effects, over sites at positions drawn at random",
        reference="Kramár, Lieberum, Shah, Nanda 2024, arXiv:2403.00745; Jafari et al. 2025, arXiv:2508.21258",
        misleads="A few large effects decide Pearson's r, and fifty sites leave it uncertain. Activation patching is "
        "no truth either: a mixture of two runs may be a state that the model never is in. It stands beside random "
        "numbers alone: among sites there is neither a middle nor an edge.",
    )

    def passes(self, model: Model) -> Passes:
        return Passes(self.sites)

    def measured(
        self, model: Any, inputs: Pair, result: Attribution, target: Any, seed: int, on_progress: Progress | None = None
    ) -> SampledCorrelation:
        """Of all pairs together. Raises InputError where the method found no effect at all."""
        return sampled_correlation(model, inputs, result, target, sites=self.sites, seed=seed, on_progress=on_progress)
