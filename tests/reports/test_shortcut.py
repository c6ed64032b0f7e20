"""A report finds the shortcut that was planted, and finds none where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import attrib
from attrib.reports.closing import close_report
from attrib.reports.dataset import DatasetView, GroupView
from attrib.reports.store import Store
from tests.reports.shortcut import MARKED, Planted, planted, trained

ITEMS = 100


@pytest.fixture(scope="module")
def data() -> Planted:
    return planted(everywhere=False)


@pytest.fixture(scope="module")
def reported(data: Planted, tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetView, Path]:
    """A report on a hundred eights by the network with the shortcut and by the one without."""
    folder = tmp_path_factory.mktemp("shortcut")
    (folder / "eights").mkdir()
    for i in np.flatnonzero(data.labels == MARKED)[:ITEMS]:
        name = f"{i:04}-{'marked' if data.marked[i] else 'plain'}.png"
        Image.fromarray(data.pictures[i]).save(folder / "eights" / name)
    models = [trained(data, "shortcut"), trained(planted(everywhere=True), "honest")]
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attrib.reports.closing.close_report", lambda *_: None)  # it is closed below, for its view
        attrib.report(folder / "eights", models, "lrp", folder / "report", targets="digit 8")
    store = Store.open(folder / "report")
    return close_report(store), folder / "report"


def group(view: DatasetView, model: str) -> GroupView:
    return next(groups[0] for series, groups in view.shown.items() if series.model == model)


def names(report: Path) -> dict[str, str]:
    store = Store.open(report)
    return {it.item: it.name for it, _ in store.entries()}


def test_the_cluster_of_the_watermark_is_singled_out(reported: tuple[DatasetView, Path]) -> None:
    view, report = reported
    found = group(view, "shortcut")
    assert found.strategies is not None
    suspect = found.strategies.suspect
    assert suspect is not None
    called = names(report)
    items = [found.sample[found.strategies.used[m]][1] for m in suspect.members]
    marked = ["marked" in called[item] for item in items]
    assert np.mean(marked) >= 0.9
    assert sum(marked) >= 0.9 * sum("marked" in name for name in called.values())


def test_its_place_is_where_the_watermark_is(reported: tuple[DatasetView, Path]) -> None:
    found = group(reported[0], "shortcut").strategies
    assert found is not None and found.suspect is not None
    rows, columns = np.nonzero(found.suspect.place)
    assert np.mean((rows >= 10) & (columns >= 10)) >= 0.9
    assert found.suspect.here > 3 * found.suspect.elsewhere


def test_without_the_shortcut_no_cluster_stands_apart(reported: tuple[DatasetView, Path], data: Planted) -> None:
    view, report = reported
    found = group(view, "honest")
    assert found.strategies is not None
    assert found.strategies.suspect is None
    called = names(report)
    for cluster in found.strategies.clusters:
        marked = ["marked" in called[found.sample[found.strategies.used[m]][1]] for m in cluster.members]
        assert np.mean(marked) < 0.9


def test_the_pages_say_so(reported: tuple[DatasetView, Path]) -> None:
    _, report = reported
    page = (report / "dataset.html").read_text()
    assert "Look here first" in page
    assert page.count('class="r-group r-apart"') == 1
    index = (report / "index.html").read_text()
    assert "form a cluster of their own" in index and "shortcut, class digit 8" in index
    assert "honest, class digit 8" not in index
