"""What a card is made of: a result, what its method's card says, what was measured of it, and its buttons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from attrib.attribution import Attribution

if TYPE_CHECKING:
    from attrib.metrics.evidence import Light


@dataclass(frozen=True)
class Check:
    """A card's button that checks its map. key: what a click tells the page. cost: told beside the button.

    why_not: instead of a button, why the map cannot be checked. None of both: it is checked.
    """

    key: str
    cost: str = ""
    why_not: str = ""


@dataclass(frozen=True)
class Entry:
    """One card: a result, the sample of its batch to show, what its method's card says, and what was measured of it.

    actions: buttons under the card, (what a click tells the page, its label); who shows the page answers them.
    evidence: (what, value) pairs that describe the map. lights: whether it can be trusted, as far as somebody checked.
    heatmaps: whether the card of a patching result draws them; not where the page shows them already.
    """

    attribution: Attribution
    title: str = ""
    misleads: str = ""
    formula: str = ""
    reference: str = ""
    sample: int = 0
    evidence: tuple[tuple[str, str], ...] = ()
    actions: tuple[tuple[str, str], ...] = ()
    lights: tuple[Light, ...] = ()
    check: Check | None = None
    heatmaps: bool = True

    @property
    def name(self) -> str:
        return self.title or self.attribution.method


@dataclass(frozen=True)
class Pictures:
    """How pictures are embedded. size: their longer side. format: "PNG" keeps every pixel, "JPEG" takes a tenth."""

    size: int = 448
    format: str = "PNG"
