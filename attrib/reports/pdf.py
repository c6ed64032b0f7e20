"""report.pdf: the summary, the view over all items, and a bounded number of items, for paper and for handing on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reportlab.lib import colors
from reportlab.platypus import Flowable

from attrib.render import Scale
from attrib.reports.dataset import MOST_SHOWN, DatasetView
from attrib.reports.dataset_page import alarms, labels_of
from attrib.reports.matrices import Matrix, agreement_matrices, distance_matrix
from attrib.reports.pages import short
from attrib.reports.pdf_classes import MOST_CLASSES, class_story
from attrib.reports.pdf_items import item_story
from attrib.reports.pdf_parts import WIDTH, document, gap, grid, paragraph, scale_bar, table, together
from attrib.reports.profiles import Profiles
from attrib.reports.spec import Spec
from attrib.reports.store import Store
from attrib.reports.strategies_page import Photo

MOST_ERRORS = 40


def render_pdf(
    store: Store,
    title: str,
    facts: Sequence[tuple[str, str, bool]],
    view: DatasetView,
    photo: Photo,
    profiles: Sequence[Profiles] = (),
) -> bytes:
    """The whole PDF: its size is bounded, whatever the number of items."""
    story = [paragraph(title, "h1"), table([(name, value) for name, value, _ in facts], (110, WIDTH - 110), head=False)]
    story += [paragraph(alarm["text"], "warning") for alarm in alarms(view)]
    labels = labels_of(view.series)
    for heading, matrix in zip(("Do the methods agree?", ""), agreement_matrices(view.agreement, labels), strict=False):
        story += _matrix(heading, matrix)
    for series in view.series:
        groups = view.shown.get(series, [])
        if groups:
            story += class_story(labels[series], groups, sum(s == series for s, _ in view.classes), photo)
        story += _words(view, series, labels[series])
    for found in profiles:
        story += _neurons(found) if len(found.groups) > 1 else []
    story += _items(store)
    story += _errors(store, view)
    return document(title, story)


def _matrix(heading: str, found: Matrix) -> list[Flowable]:
    columns = len(found.names) + 1
    made = table(
        [["", *found.names], *[[n, *row] for n, row in zip(found.names, found.texts, strict=True)]],
        [min(112.0, WIDTH / columns)] * columns,
    )
    for i, row in enumerate(found.values.tolist()):
        for j, value in enumerate(row):
            if value == value:
                shade = colors.Color(
                    *((0.86, 0.15, 0.15) if value > 0 else (0.15, 0.39, 0.92)), alpha=abs(value) * 0.45
                )
                made.setStyle([("BACKGROUND", (j + 1, i + 1), (j + 1, i + 1), shade)])
    head = [paragraph(heading, "h2")] if heading else [gap(8)]
    return [together([*head, paragraph(found.caption, "small"), gap(3), made])]


def _items(store: Store) -> list[Flowable]:
    total = store.journal.count_inputs()
    chosen = spaced(total, store.manifest["spec"].get("pdf_items", Spec.pdf_items))  # a manifest may be older than it
    how = "all items" if len(chosen) == total else f"{len(chosen)} of {total} items, evenly spaced; index.html has all"
    wanted, story = set(chosen), []
    kinds: dict[tuple[bool, bytes], Scale] = {}
    for n, (it, rows) in enumerate(store.entries()):
        if n in wanted:
            found, used = item_story(store, it, rows)
            story.append(found)
            kinds |= {(scale.signed, scale.table.tobytes()): scale for scale in used}
    words = f"Shown: {how}. 100 % is the strongest of a map's pixels or words; error: the completeness error."
    return [paragraph("Items", "h2"), paragraph(words, "small"), *_legend(list(kinds.values())), *story]


def _legend(kinds: Sequence[Scale]) -> list[Flowable]:
    told = ("how strong, not which way", "blue: against the target; red: for it")
    cells = [[*scale_bar(scale, WIDTH / 4 - 12), paragraph(told[scale.signed], "small")] for scale in kinds]
    return grid(cells, 4) if cells else []


def spaced(total: int, most: int) -> list[int]:
    """At most `most` of 0 … total − 1, evenly spaced, the first and the last among them."""
    if total <= most:
        return list(range(total))
    return sorted({round(i * (total - 1) / max(1, most - 1)) for i in range(most)})


def _words(view: DatasetView, series: Any, heading: str) -> list[Flowable]:
    labels = [label for s, label in view.words.known if s == series][:MOST_CLASSES]
    if not labels:
        return []
    found = {label: view.words.strongest((series, label), 8) for label in labels}
    signed = any(down for _, down in found.values())
    rows = [["class", "texts", *(("words for it", "words against it") if signed else ("strongest words",))]]
    for label, both in found.items():
        told = [", ".join(f"{w.word} {abs(w.share):.0%}" for w in words) for words in both[: 1 + signed]]
        rows.append([short(label, 60), str(view.classes[(series, label)]), *told])
    note = "Beside each word: the mean share of a text's |relevance| that it carries."
    return [
        together([
            paragraph(f"Over all items: {heading}", "h2"),
            paragraph(note, "small"),
            table(rows, (90, 40, *[(WIDTH - 130) / (1 + signed)] * (1 + signed))),
        ])
    ]  # fmt: skip


def _neurons(found: Profiles) -> list[Flowable]:
    labels = found.largest(MOST_SHOWN)
    rows = [["class", "items", "neurons (standard deviations above or below the mean over all items)"]]
    for label in labels:
        told = ", ".join(f"№ {neuron} {z:+.1f}" for neuron, _, z in found.strongest(label))
        rows.append([short(label, 60), str(found.groups[label].count), told])
    head = [
        paragraph(f"Neuron activation profiles: {found.layer} of {found.model}", "h2"),
        paragraph(f"Mean over a class minus mean over all {found.overall.count} items.", "small"),
        table(rows, (110, 40, WIDTH - 150)),
    ]
    few = labels[:8]
    return [*head, *(_matrix("", distance_matrix(found, few)) if len(few) > 2 else [])]


def _errors(store: Store, view: DatasetView) -> list[Flowable]:
    if not view.failed and not view.partly:
        return []
    rows = [["item", "reason"]]
    for it, found in store.entries():
        why = list(dict.fromkeys(row.error for row in found if row.error is not None))
        if why and len(rows) <= MOST_ERRORS:
            rows.append([short(it.name, 80), short("; ".join(why), 300)])
    note = f"{len(rows) - 1} of {view.failed + view.partly} are listed." if len(rows) > MOST_ERRORS else ""
    return [paragraph("What failed", "h2"), paragraph(note, "small"), table(rows, (WIDTH * 0.35, WIDTH * 0.65))]
