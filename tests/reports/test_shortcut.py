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
from attrib.reports.likeness import by_chance, cells_of, cosines, likeness
from attrib.reports.spray import SIDE, Strategies, strategies
from attrib.reports.store import Store
from attrib.reports.summary import _jpeg
from tests.reports import shortcut_letters
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
    items = [found.sample[found.strategies.used[m]].item for m in suspect.members]
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


@pytest.fixture(scope="module")
def letters() -> tuple[Planted, dict[str, Strategies]]:
    """A hundred As that were not trained on, and the clusters of their maps by both networks."""
    torch.set_num_threads(1)
    data = shortcut_letters.planted(everywhere=False, number=500, seed=100)
    chosen = np.flatnonzero(data.labels == 0)[:100]
    data = Planted(data.pictures[chosen], data.labels[chosen], data.marked[chosen])
    found = {}
    for name, everywhere in (("shortcut", False), ("honest", True)):
        model = shortcut_letters.trained(shortcut_letters.planted(everywhere), name)
        assert model.preprocessing is not None
        maps = attrib.explain(model, model.preprocessing.normalised(data.pictures), "lrp", 0).heatmap()
        cells = [cells_of(_jpeg(Image.fromarray(picture)), SIDE) for picture in data.pictures]
        clusters = strategies(list(maps), [c for c in cells if c is not None])
        assert clusters is not None
        found[name] = clusters
    return data, found


def test_on_other_data_the_ring_is_singled_out(letters: tuple[Planted, dict[str, Strategies]]) -> None:
    data, found = letters
    suspect = found["shortcut"].suspect
    assert suspect is not None
    marked = data.marked[[found["shortcut"].used[m] for m in suspect.members]]
    assert marked.mean() >= 0.9
    assert marked.sum() >= 0.8 * data.marked.sum()
    rows, columns = np.nonzero(suspect.place)
    assert np.mean((rows >= 10) & (columns <= 6)) >= 0.8


def test_clusters_by_place_are_no_alarm(letters: tuple[Planted, dict[str, Strategies]]) -> None:
    """Without the shortcut clusters look elsewhere than the others, too: where the letter is."""
    found = letters[1]["honest"]
    assert found.suspect is None
    assert max(cluster.ratio for cluster in found.clusters) > 2
    assert min(cluster.leaving for cluster in found.clusters) < 0.2


def test_likeness_is_the_mean_cosine_of_pairs_and_beats_chance_only_where_something_is_shared() -> None:
    generator = np.random.default_rng(0)
    cells = generator.normal(100, 30, (40, 16, 3))
    place = np.arange(16) < 5
    members = np.arange(40) < 8
    deviations = (cells - cells.mean(0))[:, place].reshape(40, -1)
    pairs = [
        deviations[i] @ deviations[j] / np.linalg.norm(deviations[i]) / np.linalg.norm(deviations[j])
        for i in range(8)
        for j in range(i)
    ]
    found = cosines(cells, place)
    assert likeness(found, members) == pytest.approx(np.mean(pairs))
    assert likeness(found, members) < by_chance(found, 8)
    cells[:8, :5] += generator.normal(0, 60, (5, 3))
    found = cosines(cells, place)
    assert likeness(found, members) > max(0.3, by_chance(found, 8))
