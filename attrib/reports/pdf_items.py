"""One item in the PDF: what it is, what was predicted, and its maps side by side."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from reportlab.platypus import Flowable

from attrib.attribution import Attribution
from attrib.metrics.evidence import Light
from attrib.render import Display, drawn_maps, is_signed, is_text, over, pieces, scales, token_scales
from attrib.render.lights import SIGNS
from attrib.render.scale import Scale, number
from attrib.render.token_picture import token_picture
from attrib.reports.evidence import lights_of, told
from attrib.reports.pages import percent, reasons, short
from attrib.reports.pdf_parts import WIDTH, gap, grid, paragraph, picture, together
from attrib.reports.store import Input, Row, Store

MOST_RESULTS = 7  # of an item: with its photo two lines of four
PIXELS = 240
_DISPLAY = Display()


def item_story(store: Store, it: Input, rows: Sequence[Row]) -> tuple[Flowable, list[Scale]]:
    """The item's maps on one scale, at most MOST_RESULTS of them, or the reason why it failed; and the scales."""
    good = [row for row in rows if not row.failed]
    shown = good[:MOST_RESULTS]
    head: list[Flowable] = [paragraph(it.name, "h3", 120), paragraph(_told(good, len(good) - len(shown)), "small")]
    head += [paragraph(reason, "error") for reason in reasons(list(rows))]
    pairs = [(row, store.attribution(row)) for row in shown]
    pictures = [(row, a) for row, a in pairs if a.kind in ("input", "layer")]
    texts = [(row, a) for row, a in pairs if is_text(a)]
    maps, map_scales = _maps(pictures) if pictures else ([], [])
    tokens, scales_of_tokens = _texts(texts) if texts else ([], [])
    return together([*head, *maps, *tokens, gap(2)]), [*map_scales, *scales_of_tokens]


def _told(good: Sequence[Row], left_out: int) -> str:
    models = {row.model: row for row in reversed(good)}
    told = [
        f"{name}: {short(str(row.prediction), 60)} {percent(row.probability)}"
        + (f", explained: {short(str(row.target_label), 60)}" if row.target_label != row.prediction else "")
        for name, row in sorted(models.items())
    ]
    return "; ".join(told) + (f"; {left_out} more results in its page" if left_out > 0 else "")


def _maps(pairs: Sequence[tuple[Row, Attribution]]) -> tuple[list[Flowable], list[Scale]]:
    maps = drawn_maps([a.heatmap()[0] for _, a in pairs], _DISPLAY)
    found = scales(maps, [is_signed(a) for _, a in pairs], _DISPLAY)
    width = WIDTH / 4 - 10
    photo = pairs[0][1].pictures
    cells: list[list[Flowable]] = [] if photo is None else [[picture(_small(photo[0]), width)]]
    for (row, a), values, scale in zip(pairs, maps, found, strict=True):
        image = over(values, scale, None if a.pictures is None else a.pictures[0], _DISPLAY, PIXELS)
        cells.append([picture(image, width), _caption(row), *_evidence(row)])
    return grid(cells, 4), found


def _texts(pairs: Sequence[tuple[Row, Attribution]]) -> tuple[list[Flowable], list[Scale]]:
    display = Display(whole_words=True)
    found = token_scales([(a, 0) for _, a in pairs], display)
    story: list[Flowable] = []
    for (row, a), scale in zip(pairs, found, strict=True):
        tokens = token_picture(pieces(a, 0, display)[:200], scale, width=1100, size=21)
        story += [_caption(row), picture(tokens, WIDTH), *_evidence(row)]
    return story, list(found)


def _caption(row: Row) -> Flowable:
    error = "" if row.delta is None else f", error {_minus(row.delta)}"
    score = "" if row.score is None else f": score {_minus(row.score)}"
    return paragraph(f"{row.method}{score}{error}", "small", 160)


def _evidence(row: Row) -> list[Flowable]:
    """The lights of a map and what was measured of it, a line each."""
    lines = [f"{SIGNS[light.verdict]} {light.name}{_beside(light)}" for light in lights_of(row.evidence)]
    lines += [f"{name}: {words}" for name, words in told(row.evidence)]
    return [paragraph(line, "small", 120) for line in lines]


def _beside(light: Light) -> str:
    if light.value is None:
        return "" if light.verdict in ("passes", "fails") else f": {light.verdict}"
    return f": {light.verdict}, {number(round(light.value, 3))}"


def _minus(value: float) -> str:
    told = number(value)
    return f"−{told[1:]}" if told.startswith("-") else told


def _small(photo: object) -> Image.Image:
    image = Image.fromarray(photo)  # type: ignore[arg-type]
    image.thumbnail((PIXELS, PIXELS))
    return image
