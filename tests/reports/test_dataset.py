"""What is said over all items, against plain computations on everything at once."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

import attrib
from attrib.errors import InputError, ReportError, UnknownName
from attrib.reports import Report
from attrib.reports.agreement import Agreement, ranks, spearman, top_overlap
from attrib.reports.dataset import DatasetView, Entry, view_of
from attrib.reports.profiles import Profiler, activations
from attrib.reports.spray import strategies
from attrib.reports.statistics import Running
from attrib.reports.store import Input, Row
from attrib.reports.summary import GRID, Series, Summary
from attrib.reports.words import Words, words_of
from tests.app.tiny_text import classifier
from tests.reports.conftest import tiny_model

SERIES = Series("m", "a", "item")


def entry(i: int, maps: list[np.ndarray], label: str = "cat") -> Entry:
    """An item with a map for each of the methods a, b, c …"""
    it = Input(i, f"{i:024x}", f"{i}.png", "image", "")
    place = {"position": i, "item": it.item, "name": it.name, "kind": "image", "source": "", "model": "m"}
    rows = [
        Row(**place, method="abcdef"[k], target="item", target_label=label, map_kind="input") for k in range(len(maps))
    ]
    return it, rows, Summary("", tuple(maps), b"", ())


def entries(n: int, methods: int = 1, classes: int = 2) -> Callable[[], Iterator[Entry]]:
    def made() -> Iterator[Entry]:
        for i in range(n):
            generator = np.random.default_rng(i)
            maps = [generator.standard_normal((GRID, GRID)).astype(np.float32) for _ in range(methods)]
            yield entry(i, maps, f"class {i % classes}")

    return made


def test_running_mean_and_spread() -> None:
    values = np.random.default_rng(0).standard_normal((50, 3, 4)) * 5 + 100
    running = Running()
    for value in values:
        running.add(value)
    assert np.allclose(running.mean, values.mean(0), rtol=1e-12)
    assert np.allclose(running.spread, values.std(0, ddof=1), rtol=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlation_is_scipys(seed: int) -> None:
    generator = np.random.default_rng(seed)
    a, b = generator.integers(0, 6, (2, 8, 9)).astype(float)  # many ties
    assert np.allclose(ranks(a) + 1, scipy.stats.rankdata(a))
    assert spearman(a, b) == pytest.approx(scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic, abs=1e-12)


def test_rank_correlation_of_a_constant_map_is_no_number() -> None:
    assert np.isnan(spearman(np.ones((3, 3)), np.arange(9.0).reshape(3, 3)))
    assert Agreement().add([(SERIES, np.ones((3, 3)), True), (Series("m", "b", "item"), np.eye(3), True)]) is None


def test_overlap_of_the_strongest() -> None:
    a = np.array([[9.0, -8, 1], [0, 0, 7]])
    b = np.array([[9.0, 0, 1], [0, -8, 7]])
    assert top_overlap(a, b, 0.5) == pytest.approx(2 / 3)
    assert top_overlap(a, a, 0.5) == 1.0


def test_unsigned_maps_are_compared_by_magnitude() -> None:
    a = np.linspace(-1, 1, 16).reshape(4, 4)
    both, one = Agreement(), Agreement()
    assert both.add([(SERIES, a, True), (Series("m", "b", "item"), -a, True)]) == pytest.approx(-1)
    assert one.add([(SERIES, a, True), (Series("m", "b", "item"), np.abs(a), False)]) == pytest.approx(1)
    assert one.add([(SERIES, a, True), (Series("m", "b", "dog"), a, True)]) is None  # another target


def test_class_means_and_typical_items() -> None:
    made = entries(30)
    view = view_of(made(), made())
    maps = {0: [], 1: []}
    for it, _, summary in made():
        assert summary.maps[0] is not None
        m = summary.maps[0].astype(np.float64)
        maps[it.position % 2].append((it.item, m / np.abs(m).sum()))
    for group in view.shown[SERIES]:
        own = maps[int(group.label[-1])]
        mean = np.mean([m for _, m in own], axis=0)
        assert np.allclose(group.maps.mean, mean, atol=1e-15)
        assert np.allclose(group.maps.spread, np.std([m for _, m in own], axis=0, ddof=1), atol=1e-15)
        cosines = {i: (m * mean).sum() / np.linalg.norm(m) / np.linalg.norm(mean) for i, m in own}
        order = sorted(cosines, key=lambda i: -cosines[i])
        assert [t.item for t in group.most] == order[:3]
        assert [t.item for t in group.least] == order[::-1][:3]
        assert group.most[0].cosine == pytest.approx(cosines[order[0]])


def test_memory_does_not_grow_with_the_items() -> None:
    def peak(n: int) -> int:
        made = entries(n, classes=3)
        tracemalloc.start()
        view_of(made(), made())
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few, many = peak(1300), peak(3900)  # at 1300 the samples of all classes are full
    assert many < 1.1 * few


def test_samples_do_not_depend_on_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attrib.reports.dataset.SAMPLE", 25)
    there, back = list(entries(200)()), list(entries(200)())[::-1]
    first, second = view_of(there, there), view_of(back, back)
    for a, b in zip(first.shown[SERIES], second.shown[SERIES], strict=True):
        assert [one.item for one in a.sample] == [one.item for one in b.sample]
        assert len(a.sample) == 25
        assert [one.item for one in a.sample] != sorted(one.item for one in a.sample)[:25]


def test_too_few_or_empty_maps_have_no_clusters() -> None:
    assert strategies([]) is None
    assert strategies([np.ones((16, 16))] * 19) is None
    assert strategies([np.zeros((16, 16))] * 30) is None


def test_clusters_of_two_places() -> None:
    generator = np.random.default_rng(0)
    maps = []
    for i in range(60):
        m = 0.1 * generator.random((32, 32))
        row = 4 if i < 40 else 24
        m[row : row + 4, row : row + 4] += 1 + generator.random((4, 4))
        maps.append(m)
    found = strategies(maps)
    assert found is not None and found.suspect is None  # nothing is known of the pictures
    assert [sorted(c.members) for c in found.clusters] == [list(range(40, 60)), list(range(40))]
    assert found.eigenvalues[1] == 0 < found.eigenvalues[2]  # they do not touch


def test_identical_maps_do_not_break_the_clusters() -> None:
    found = strategies([np.eye(32)] * 50)
    assert found is None or found.suspect is None


def test_neuron_profiles_are_group_mean_minus_overall_mean() -> None:
    model = tiny_model()
    pictures = np.random.default_rng(0).integers(0, 256, (11, 16, 16, 3), dtype=np.uint8)
    labels = ["cat" if i % 3 else "dog" for i in range(11)]
    profiler = Profiler(model, "0")
    for label, picture in zip(labels, pictures, strict=True):
        profiler.add(label, picture, None)
    found = profiler.finish()
    assert found is not None and model.preprocessing is not None
    with torch.no_grad():
        whole = model.module[0](model.preprocessing.normalised(pictures)).mean((2, 3)).double().numpy()
    cats = np.array([label == "cat" for label in labels])
    assert np.allclose(found.profile("cat"), whole[cats].mean(0) - whole.mean(0), atol=1e-6)
    assert found.largest(1) == ["cat"]
    neuron, value, unusual = found.strongest("dog", 1)[0]
    assert value == pytest.approx(found.profile("dog")[neuron])
    assert unusual == pytest.approx(value / whole[:, neuron].std(ddof=1), rel=1e-5)
    distances = found.distances(["cat", "dog"])
    expected = 1 - np.corrcoef(found.profile("cat"), found.profile("dog"))[0, 1]
    assert distances[0, 1] == pytest.approx(expected) and distances[0, 0] == pytest.approx(0, abs=1e-12)
    assert not any(module._forward_hooks for module in model.module.modules())


def test_neuron_profiles_of_texts() -> None:
    model = classifier()
    profiler = Profiler(model, "auto")
    for label, text in (("good", "the film was good"), ("bad", "not good at all"), ("bad", "bad food")):
        profiler.add(label, None, text)
    found = profiler.finish()
    assert found is not None
    assert found.layer == "bert.encoder.layer.1"
    assert found.overall.mean.shape == (32,)
    alone = activations(model, model.encode(["the film was good"]), found.layer)[0]
    assert np.allclose(found.groups["good"].mean, alone)


def test_layers_that_cannot_be_profiled_are_named() -> None:
    model = tiny_model()
    encoded = model.encode(torch.zeros(1, 3, 16, 16))
    with pytest.raises(UnknownName, match="no layer is called 'nowhere'"):
        activations(model, encoded, "nowhere")
    odd = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(784, 10), nn.Unflatten(1, (2, 5)), nn.Flatten(), nn.Linear(10, 3)
    )
    with pytest.raises(InputError, match=r"layer '3' puts out .* no grid"):
        activations(attrib.wrap(odd), encoded, "3")


def test_the_page_has_the_profiles_that_the_spec_asks_for(make: Callable[..., Report], photos_of_noise: Path) -> None:
    folder = make(photos_of_noise, targets=["item"], profile_layer="0").folder
    assert "Neurons of <code>0</code>, tiny" in (folder / "dataset.html").read_text()


def test_words_of_a_class() -> None:
    words = Words()
    group = (SERIES, "good")
    place = {"position": 0, "item": "0", "name": "0", "kind": "text", "source": "", "model": "m", "method": "a"}
    tokens, of = ("[CLS]", "un", "##usual", "Film", "!", "film"), (None, 0, 0, 1, 2, 3)
    row = Row(**place, target="item", tokens=tokens, words=of)
    values = np.array([9.0, 1, 2, 3, 5, -1], dtype=np.float32)
    assert words_of(row, values) == {"un##usual": 3.0, "film": 2.0}
    words.add(group, row, values)
    up, down = words.strongest(group)
    assert [w.word for w in up] == ["un##usual", "film"] and not down
    assert up[0].share == pytest.approx(3 / 21)


def test_summaries_survive_the_disk() -> None:
    maps = (np.ones((GRID, GRID), np.float32), None, np.arange(3, dtype=np.float32))
    summary = Summary("abc", maps, b"photo", (b"", b"thumb"))
    again = Summary.from_bytes(summary.to_bytes())
    assert again.to_bytes() == summary.to_bytes()
    assert (again.digest, again.photo, again.thumbnails) == ("abc", b"photo", (b"", b"thumb"))
    assert again.maps[1] is None and np.array_equal(again.maps[2], maps[2])
    with pytest.raises(ReportError, match="no summary of an item"):
        Summary.from_bytes(b"nothing of the kind")


def test_many_classes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attrib.reports.dataset.MOST_TRACKED", 20)
    made = entries(60, classes=30)
    view: DatasetView = view_of(made(), made())
    assert len(view.classes) == 20 and view.untracked == 20
    assert len(view.shown[SERIES]) == 12 and len(view.groups) == 12
