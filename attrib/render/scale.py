"""What a colour means: palettes, units, and one scale for several maps.

Maps of different methods have different units (a gradient, a share of the logit, a feature norm), so a scale says
which unit it counts in: each map's strongest pixels, its average pixel, or the raw values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from attrib.attribution import Attribution
from attrib.errors import InputError, UnknownName

HOW: dict[str, str] = {
    "relative": "shared, % of max",
    "density": "shared, × average pixel",
    "raw": "shared, raw values",
    "own": "each map its own",
}

# name -> (diverging map for signed relevance, sequential map for unsigned); all safe for colour-blind readers
PALETTES: dict[str, tuple[str, str]] = {
    "blue–red": ("RdBu_r", "magma"),
    "purple–orange": ("PuOr_r", "inferno"),
    "green–brown": ("BrBG_r", "viridis"),
    "dark-centred": ("berlin", "cividis"),
    "cold–hot (zennit)": ("zennit:coldnhot", "zennit:hot"),
}


@dataclass(frozen=True)
class Display:
    """How a map is shown; nothing here changes what was computed.

    opacity: 0 shows the photo alone, 1 hides it where the map is strongest.
    how: a key of HOW. percentile: the share of pixels (in %) below the value at which the colour saturates.
    raw: the map alone, without the photo. blur: σ of a Gaussian that smooths what is drawn, in pixels of the map.
    Of texts: part: "both", "content" or "position" (where a result has them); whole_words: tokens merged to words.
    """

    opacity: float = 0.8
    palette: str = "blue–red"
    how: str = "relative"
    percentile: float = 99.5
    raw: bool = False
    blur: float = 0.0
    part: str = "both"
    whole_words: bool = False

    def __post_init__(self) -> None:
        if self.palette not in PALETTES:
            raise UnknownName("palette", self.palette, PALETTES)
        if self.how not in HOW:
            raise UnknownName("colour scale", self.how, HOW)
        if self.part not in ("both", "content", "position"):
            raise UnknownName("part", self.part, ("both", "content", "position"))
        if not 0 <= self.opacity <= 1:
            raise InputError(f"opacity {self.opacity} is not between 0 and 1")
        if not 50 <= self.percentile <= 100:
            raise InputError(f"percentile {self.percentile} is not between 50 and 100")
        if not 0 <= self.blur <= 50:
            raise InputError(f"blur {self.blur} is not between 0 and 50")


SHARED = Display()
OWN = Display(how="own")


@dataclass(frozen=True)
class Scale:
    """Values ÷ `unit_size`, from −limit (or 0) to limit, to the colours of one palette.

    unit_size: what one unit of the scale is in raw values. unit: what it is called ("" for raw values).
    anchor: (a point of the scale in words, its raw value), for a reader of one map; None where the ends are raw.
    """

    limit: float
    signed: bool
    palette: str
    unit_size: float = 1.0
    unit: str = ""
    anchor: tuple[str, float] | None = None

    @property
    def low(self) -> float:
        return -self.limit if self.signed else 0.0

    @property
    def ends(self) -> tuple[str, str]:
        """The labels of the two ends of the colour bar."""
        high = f"{number(self.limit)}{self.unit}"
        return (f"−{high}" if self.signed else "0", f"+{high}" if self.signed else high)

    @property
    def table(self) -> np.ndarray:
        """(256, 3) uint8, the colours from the low to the high end."""
        return colours(PALETTES[self.palette][0 if self.signed else 1])

    def normalised(self, values: np.ndarray) -> np.ndarray:
        """Values as a share of the limit, in [−1, 1] or [0, 1]; NaN stays NaN."""
        return np.clip(values / (self.limit * self.unit_size), -1.0 if self.signed else 0.0, 1.0)

    def colour(self, values: np.ndarray) -> np.ndarray:
        """(…, 3) uint8. What is not a number is grey."""
        share = self.normalised(values)
        share = (share + 1) / 2 if self.signed else share
        index = np.nan_to_num(np.rint(share * 255), nan=0.0).astype(np.uint8)
        picture = self.table[index]
        picture[~np.isfinite(values)] = (128, 128, 128)
        return picture


def drawn_maps(maps: Sequence[np.ndarray], display: Display) -> list[np.ndarray]:
    """The maps as they are drawn: smoothed where the display says so."""
    return [_smoothed(m, display.blur) if display.blur > 0 else m for m in maps]


def is_signed(a: Attribution) -> bool:
    """Whether the heatmap has a sign: the strongest channel, or the length of all, has none."""
    return a.signed and not (a.values.dim() == 4 and a.reduction in ("max_abs", "norm"))


def scales(maps: Sequence[np.ndarray], signed: Sequence[bool], display: Display = SHARED) -> list[Scale]:
    """One scale per map; but for `how` "own" they share their limit."""
    if display.how == "relative":
        return [_relative(_top(m, display.percentile) or 1.0, s, display) for m, s in zip(maps, signed, strict=True)]
    units = [_average(m) if display.how == "density" else 1.0 for m in maps]
    tops = [_top(m / unit, display.percentile) for m, unit in zip(maps, units, strict=True)]
    if display.how != "own":
        tops = [max(tops, default=1.0)] * len(tops)
    if display.how == "density":
        triples = zip(tops, signed, units, strict=True)
        return [Scale(t or 1.0, s, display.palette, u, "× average", ("1 × average", u)) for t, s, u in triples]
    return [Scale(t or 1.0, s, display.palette) for t, s in zip(tops, signed, strict=True)]


def _relative(top: float, signed: bool, display: Display) -> Scale:
    return Scale(100.0, signed, display.palette, top / 100, " %", ("100 %", top))


def number(value: float) -> str:
    """Three significant digits and a minus sign, without an exponent where that is readable."""
    if value == 0 or not np.isfinite(value):
        return "0" if value == 0 else "not a number"
    if 1e-3 <= abs(value) < 1e5:
        told = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    else:
        told = f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")
    return told.replace("-", "−")


@cache
def colours(name: str) -> np.ndarray:
    """The 256 colours of a matplotlib or zennit colour map, (256, 3) uint8."""
    if name.startswith("zennit:"):
        from zennit.image import palette  # deferred: loads torch's data tools

        return np.asarray(palette(name.removeprefix("zennit:")), dtype=np.uint8)[:, :3]
    from matplotlib import colormaps

    return np.asarray((colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255).round(), dtype=np.uint8)


def _smoothed(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian of width sigma along both axes, edges repeated; NaN pixels keep out of their neighbours' sums."""
    reach = max(1, round(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    bad = ~np.isfinite(values)
    blurred = _along(_along(np.where(bad, 0.0, values), kernel / kernel.sum(), reach).T, kernel / kernel.sum(), reach).T
    blurred[bad] = np.nan
    return blurred


def _along(values: np.ndarray, kernel: np.ndarray, reach: int) -> np.ndarray:
    padded = np.pad(values, ((0, 0), (reach, reach)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(kernel), axis=1)
    return np.asarray(windows @ kernel, dtype=np.float32)


def _average(values: np.ndarray) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.mean()) or 1.0 if finite.size else 1.0


def _top(values: np.ndarray, percentile: float) -> float:
    finite = np.abs(values[np.isfinite(values)])
    if not finite.size:
        return 0.0
    # a map that is zero almost everywhere still has colours
    return float(np.percentile(finite, percentile)) or float(finite.max())
