"""The page over all items: agreement of methods, maps per class, strategies, words, neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attrib.render.card import where
from attrib.render.scale import number
from attrib.reports.dataset import MOST_SHOWN, DatasetView, GroupView, Typical
from attrib.reports.drawings import mean_map, spread_map
from attrib.reports.matrices import Matrix, agreement_matrices, distance_matrix
from attrib.reports.pages import rendered, short
from attrib.reports.profiles import Profiles
from attrib.reports.spray import Cluster
from attrib.reports.strategies_page import Photo, drawing, shown, strategies
from attrib.reports.summary import Series
from attrib.reports.words import MANY_TEXTS


def render_dataset(title: str, view: DatasetView, photo: Photo, profiles: Sequence[Profiles] = ()) -> bytes:
    """photo: an item's name and thumbnail (b"" for a text), looked up when it is shown."""
    labels = labels_of(view.series)
    sections = [_section(i, series, labels[series], view, photo) for i, series in enumerate(view.series)]
    return rendered(
        "dataset.html",
        title=title,
        nothing=not view.classes,
        alarms=alarms(view),
        matrices=[_matrix(m) for m in agreement_matrices(view.agreement, labels)],
        sections=sections,
        profiles=[_profiles(p) for p in profiles],
    )


def labels_of(series: Sequence[Series]) -> dict[Series, str]:
    """What tells the series apart, in words."""
    told = [i for i in range(3) if len({s[i] for s in series}) > 1] or [1]
    order = [i for i in (1, 0, 2) if i in told]
    return {s: short(" · ".join(s[i] for i in order), 80) for s in series}


def alarms(view: DatasetView) -> list[dict[str, str]]:
    """One sentence for each class in which a cluster of maps stands apart."""
    labels = labels_of(view.series)
    found = []
    for i, series in enumerate(view.series):
        for k, group in enumerate(view.shown.get(series, [])):
            suspect = None if group.strategies is None else group.strategies.suspect
            if suspect is not None:
                text = (
                    f"{labels[series]}, class {short(group.label, 60)}: {_told(suspect, len(group.strategies.used))} "  # type: ignore[union-attr]
                    f"Their pictures may share something that the class is not about."
                )
                found.append({"text": text, "anchor": f"strategies-{i}-{k}"})
    return found


def _told(cluster: Cluster, of: int) -> str:
    return (
        f"{len(cluster.members)} of {of} maps form a cluster of their own. {cluster.here:.0%} of their relevance lies "
        f"in the framed place, where the other maps of the class have {cluster.elsewhere:.0%}, and their pictures are "
        f"alike there: {cluster.alike:.2f}; sets drawn at random have {cluster.by_chance:.2f} at most."
    )


def _section(index: int, series: Series, heading: str, view: DatasetView, photo: Photo) -> dict[str, Any]:
    groups = view.shown.get(series, [])
    classes = sum(s == series for s, _ in view.classes)
    words = [label for s, label in view.words.known if s == series]
    note = ""
    if groups:
        note = "Each map is scaled so that its magnitudes add up to 1; then mean and spread are taken, cell by cell."
        if classes > len(groups):
            note += f" The {len(groups)} largest of {classes} classes are shown."
    if view.untracked:
        note += f" {view.untracked} results of rarer classes were not followed."
    return {
        "anchor": f"series-{index}",
        "heading": heading,
        "note": note,
        "groups": [_group(group, photo) for group in groups],
        "clustered": [
            strategies(f"strategies-{index}-{k}", group, group.strategies, photo)
            for k, group in enumerate(groups)
            if group.strategies is not None
        ],
        "words": [_words(view, (series, label)) for label in words[:MOST_SHOWN]],
    }


def _group(group: GroupView, photo: Photo) -> dict[str, Any]:
    several = group.maps.count > 2
    return {
        "label": group.label,
        "count": f"{group.maps.count} item{'s' * (group.maps.count != 1)}",
        "mean": drawing(mean_map(group)),
        "where": where(group.maps.mean),
        "spread": drawing(spread_map(group)) if group.varies else None,
        "most": [_typical(t, photo) for t in group.most] if several else [],
        "least": [_typical(t, photo) for t in group.least if t not in group.most] if several else [],
    }


def _typical(found: Typical, photo: Photo) -> dict[str, str]:
    _, thumbnail = photo(found.item)
    return shown(found.item, found.name, thumbnail, f"({found.cosine:.2f})")


def _words(view: DatasetView, group: tuple[Series, str]) -> dict[str, Any]:
    up, down = view.words.strongest(group)
    top = max((abs(w.share) for w in (*up, *down)), default=1.0) or 1.0
    texts = view.classes[group]
    note = f"{texts} text{'s' * (texts != 1)}. Mean share of a text's |relevance|, and in how many texts the word is."
    if texts >= MANY_TEXTS:
        note += " Words of two texts or more."
    if view.words.forgotten:
        note += " Rare words were forgotten on the way."

    def told(found: Sequence[Any]) -> list[tuple[str, str, str]]:
        return [
            (short(w.word, 40), f"{100 * abs(w.share) / top:.1f}", f"{abs(w.share):.1%} in {w.texts}") for w in found
        ]

    lists = [("Words for it", "r-for", told(up)), ("Words against it", "r-against", told(down))]
    return {"label": group[1], "note": note, "lists": lists}


def _profiles(found: Profiles) -> dict[str, Any]:
    labels = found.largest(MOST_SHOWN)
    rows = []
    for label in labels if len(found.groups) > 1 else []:
        neurons = [
            (f"{'+' if z > 0 else '−'}{neuron}: {z:+.1f}".replace(": -", ": −"), f"raw difference {number(raw)}")
            for neuron, raw, z in found.strongest(label)
        ]
        rows.append((label, found.groups[label].count, neurons))
    if not rows:
        only = f"All {found.overall.count} items are of one class: there is nothing to set its profile against."
        return {"model": found.model, "layer": found.layer, "note": only, "rows": [], "matrix": None}
    more = len(found.groups) - len(labels)
    note = f"Activation profiles of {len(found.overall.mean)} neurons over {found.overall.count} items: the mean over "
    note += "a class minus the mean over all items. Positions are averaged first, as inputs are not aligned."
    note += f" {more} smaller classes are not shown." if more > 0 else ""
    matrix = _matrix(distance_matrix(found, labels)) if len(labels) > 2 else None
    return {"model": found.model, "layer": found.layer, "note": note, "rows": rows, "matrix": matrix}


def _matrix(found: Matrix) -> dict[str, Any]:
    rows = []
    for name, values, texts, titles in zip(found.names, found.values, found.texts, found.titles, strict=True):
        cells = [(t, _tint(v), title) for v, t, title in zip(values, texts, titles, strict=True)]
        rows.append((name, cells))
    return {"caption": found.caption, "names": found.names, "rows": rows}


def _tint(value: float) -> str:
    """A background that is stronger for larger |value|; digits and commas only."""
    if not np.isfinite(value):
        return ""
    hue = "220,38,38" if value > 0 else "37,99,235"
    return f"background:rgba({hue},{min(1.0, abs(value)) * 0.55:.2f})"
