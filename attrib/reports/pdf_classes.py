"""report.pdf: what the maps of a class have in common, and their clusters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from reportlab.platypus import Flowable, Table

from attrib.reports.dataset import GroupView, Typical
from attrib.reports.drawings import Drawing, cluster_map, mean_map, spread_map
from attrib.reports.pages import short, tail
from attrib.reports.pdf_parts import WIDTH, gap, grid, paragraph, picture, scale_bar, together
from attrib.reports.strategies_page import Photo

MOST_CLASSES = 6  # of a series, on paper


def class_story(heading: str, groups: Sequence[GroupView], classes: int, photo: Photo) -> list[Flowable]:
    shown = [group for group in groups if group.maps.count > 1][:MOST_CLASSES]
    if not shown:
        return []
    more = f" {len(shown)} of {classes} classes, the largest." if classes > len(shown) else ""
    note = "Maps of a class, each scaled so that its magnitudes add up to 1: mean, and spread cell by cell." + more
    head: list[Flowable] = [paragraph(f"Over all items: {heading}", "h2"), paragraph(note, "small")]
    story: list[Flowable] = []
    for group in shown:
        story += [together([*(head if group is shown[0] else []), *_group(group, photo)])]
        if group.strategies is not None:
            story += _strategies(group, photo)
    return story


def _group(group: GroupView, photo: Photo) -> Iterator[Flowable]:
    yield paragraph(f"{group.label} ({group.maps.count} items)", "h3")
    cells = [_drawing(mean_map(group), "mean"), *([_drawing(spread_map(group), "spread")] if group.varies else [])]
    least = [t for t in group.least if t not in group.most]
    if group.maps.count > 2:
        cells += [
            _strip("most typical", group.most, photo),
            *([_strip("least typical", least, photo)] if least else []),
        ]
    yield from grid(cells, 4)


def _drawing(found: Drawing, words: str) -> list[Flowable]:
    width = WIDTH / 4 - 12
    return [picture(found.picture, width), gap(2), *scale_bar(found.scale, width), paragraph(words, "small")]


def _strip(heading: str, found: Sequence[Typical], photo: Photo) -> list[Flowable]:
    cells: list[Flowable] = [paragraph(heading, "small")]
    for typical in found:
        _, thumbnail = photo(typical.item)
        side = [picture(thumbnail, 40)] if thumbnail else [paragraph(typical.name, "cell", 60)]
        cells += [*side, paragraph(f"{tail(typical.name, 28)} ({typical.cosine:.2f})", "small")]
    return cells


def _strategies(group: GroupView, photo: Photo) -> list[Flowable]:
    found = group.strategies
    assert found is not None
    items = [group.sample[i].item for i in found.used]
    cells: list[Flowable | list[Flowable]] = []
    for k, cluster in enumerate(found.clusters):
        thumbnails = [photo(items[m])[1] for m in cluster.members[:6]]
        apart = ", stands apart" if cluster is found.suspect else ""
        words = (
            f"{cluster.here:.0%} of its relevance in the framed place, {cluster.elsewhere:.0%} of the others'; "
            f"{cluster.leaving:.1%} of its neighbours outside"
        )
        pictures = [picture(t, 30) for t in thumbnails if t]
        cells.append([
            paragraph(f"Cluster {k + 1}: {len(cluster.members)} items{apart}", "cell"),
            *_drawing(cluster_map(cluster, group.signed), words),
            *_rows_of(pictures, 3, 34),
        ])  # fmt: skip
    heading = (
        f"Strategies for {short(group.label, 60)}: {len(found.clusters)} clusters of {len(found.used)} maps (SpRAy)"
    )
    rows = grid(cells, 4)
    return [together([paragraph(heading, "h3"), rows[0]]), *rows[1:]]


def _rows_of(pictures: Sequence[Any], columns: int, width: float) -> list[Flowable]:
    rows = [list(pictures[i : i + columns]) for i in range(0, len(pictures), columns)]
    rows = [[*row, *[""] * (columns - len(row))] for row in rows]
    padding = [("LEFTPADDING", (0, 0), (-1, -1), 0), ("TOPPADDING", (0, 0), (-1, -1), 1)]
    return [Table(rows, colWidths=[width] * columns, hAlign="LEFT", style=padding)] if rows else []
