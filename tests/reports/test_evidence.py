"""Evidence in reports: only where the spec asks for it; on every item's page and on a page of its own."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import attrib
from attrib.reports import Report
from attrib.reports.identity import contents
from attrib.reports.store import Row
from attrib.reports.verify import verify
from tests.reports.conftest import tiny_model, write_pictures
from tests.reports.test_pdf import text_of

Make = Callable[..., Report]
ASKED = {"evidence": ["lights", "deletion", "sparseness"], "targets": ["dog"], "methods": ("lrp", "guided_backprop")}


@pytest.fixture
def four(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "photos", ["0.png", "1.png", "<b>2.png", "3.png"])
    return tmp_path / "photos"


def deletion(row: Row) -> float:
    return float(row.evidence["metrics"]["deletion"]["value"])


def test_every_card_has_its_lights_and_one_page_sums_up(make: Make, four: Path) -> None:
    made = make(four, **ASKED)
    rows = list(made.rows())
    assert len(rows) == 8
    model = tiny_model()
    first = rows[0]
    picture = four / first.name
    expected = attrib.evaluate(model, picture, "lrp", "deletion", "dog", n_random=3).rows[0]
    assert first.evidence["metrics"]["deletion"]["value"] == pytest.approx(expected.value, abs=1e-6)
    result = attrib.explain(model, picture, "lrp", "dog")
    checked = attrib.check(model, picture, result, attrib.LRP())
    assert [light["verdict"] for light in first.evidence["lights"]] == [light.verdict for light in checked.lights[0]]
    page = (made.folder / f"items/{first.item}.html").read_text()
    assert page.count('class="at-light') == 8
    assert page.count('class="at-plot"') >= 2
    assert "Deletion" in page
    # the map of random weights and that of another class stand beside the map, and are those that were compared
    with closing(made.store()) as store:
        compared = store.compared(first)
    for light in checked.lights[0]:
        for words, values in light.maps.items():
            assert compared[f"{light.name}/{words}"] == pytest.approx(values, abs=1e-6)
    assert len(compared) == 2
    assert page.count('class="at-pair') >= 2

    page = (made.folder / "evidence.html").read_text()
    assert "<b>2.png" not in page
    assert "&lt;b&gt;2.png" in page
    for method in ("lrp", "guided_backprop"):
        values = [deletion(row) for row in rows if row.method == method]
        assert f"<td>{np.mean(values):.3g}</td>" in page
        worst = max(
            (row for row in rows if row.method == method), key=lambda r: r.evidence["metrics"]["deletion"]["value"]
        )
        table = page.split('id="deletion"')[1].split('id="sparseness"')[0].split(f"<bdi>{method}</bdi>")[1]
        assert re.findall(r'href="items/(\w+)\.html"', table)[0] == worst.item  # lower is better: the highest first
        failing = [r.item for r in rows if r.method == method and r.evidence["lights"][3]["verdict"] == "fails"]
        told = page.split('id="lights"')[1].split(f"<bdi>{method}</bdi>")[1].split("</td>")[3]
        assert re.findall(r'href="items/(\w+)\.html"', told) == failing
        assert (f"✕ fails for {len(failing)} of 4" in told) or not failing
    table = pq.read_table(made.folder / "results.parquet").to_pylist()
    assert [row["deletion"] for row in table] == [deletion(row) for row in rows]
    assert [row["light_depends_on_the_class"] for row in table] == [
        row.evidence["lights"][3]["verdict"] for row in rows
    ]
    assert None not in {row["deletion_random"] for row in table}
    sheet = list(csv.DictReader((made.folder / "results.csv").read_text().splitlines()))
    assert [row["light_better_than_random"] for row in sheet] == [row.evidence["lights"][1]["verdict"] for row in rows]
    assert float(sheet[0]["deletion"]) == deletion(first)
    text = text_of((made.folder / "report.pdf").read_bytes())
    for light in first.evidence["lights"]:
        assert light["name"] in text
    assert "(random maps:" in text
    assert 'href="evidence.html"' in (made.folder / "index.html").read_text()


def test_a_light_that_was_not_checked_tells_what_was_measured(make: Make, four: Path) -> None:
    made = make(four, evidence=["deletion"], methods=("lrp",), targets=["dog"])
    for row in made.rows():
        light = row.evidence["lights"][1]
        score = row.evidence["metrics"]["deletion"]
        told = f"Deletion is {score['value']:.3g}, of random maps {score['random']:.3g}."
        assert light["verdict"] == "not checked"
        assert light["words"].startswith(told)
        assert told in (made.folder / f"items/{row.item}.html").read_text()


def test_its_cost_is_told_before_anything_runs(make: Make, four: Path) -> None:
    heard: list[tuple[int, str]] = []
    make(four, **ASKED, on_progress=lambda done, total, message: heard.append((done, message)))
    told = next(i for i, (_, message) in enumerate(heard) if message.startswith("evidence: "))
    assert re.fullmatch(r"evidence: about \d+ forwards and \d+ more explanations per map of tiny", heard[told][1])
    assert all(done == 0 for done, _ in heard[:told])


def test_nothing_is_measured_unasked(make: Make, four: Path) -> None:
    made = make(four, methods=("lrp",), targets=["dog"])
    assert not (made.folder / "evidence.html").exists()
    row = next(iter(made.rows()))
    assert row.evidence == {}
    assert 'class="at-light' not in (made.folder / f"items/{row.item}.html").read_text()
    assert "evidence" not in (made.folder / "spec.toml").read_text()


def test_a_stopped_report_goes_on_and_ends_as_an_unbroken_one(make: Make, four: Path) -> None:
    whole = make(four, "whole", **ASKED)

    def stops(done: int, total: int | None, message: str) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(four, "broken", on_progress=stops, **ASKED)
    assert contents(make(four, "broken", **ASKED).folder) == contents(whole.folder)


def test_what_was_measured_is_verified(make: Make, four: Path) -> None:
    made = make(four, **ASKED)
    own = {"tiny": tiny_model()}
    assert not verify(made.folder, None, own_models=own).differing
    with sqlite3.connect(made.folder / "journal.sqlite") as base:
        key, found = base.execute("SELECT item, found FROM results WHERE method = 'lrp'").fetchone()
        changed = json.loads(found)
        changed["evidence"]["metrics"]["deletion"]["value"] += 0.1
        base.execute("UPDATE results SET found = ? WHERE item = ? AND method = 'lrp'", (json.dumps(changed), key))
    base.close()
    differing = verify(made.folder, None, own_models=own).differing
    assert [check.row.item for check in differing] == [key]
    assert "deletion is" in str(differing[0].problem)


def test_a_metric_that_fails_says_why_and_the_maps_stay(
    make: Make, four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise attrib.InputError("no <i>number</i>")

    monkeypatch.setattr("attrib.metrics.removal.Deletion.score", fails)
    made = make(four, methods=("lrp",), targets=["dog"], evidence=["deletion"])
    row = next(iter(made.rows()))
    assert not row.failed
    assert row.evidence["metrics"]["deletion"]["value"] is None
    page = (made.folder / "evidence.html").read_text()
    assert "4 without a number" in page
    assert "<i>number" not in page


@pytest.mark.parametrize(
    ("evidence", "error", "words"),
    [
        (["deletionn"], attrib.UnknownName, "deletion"),
        (["iou"], attrib.InputError, "masks"),
        (["au_ac"], attrib.NotApplicable, "no meaning for images"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    evidence: list[str], error: type[Exception], words: str, make: Make, four: Path
) -> None:
    with pytest.raises(error, match=words):
        make(four, evidence=evidence)


def test_another_evidence_is_another_report(make: Make, four: Path) -> None:
    make(four, methods=("lrp",), targets=["dog"], evidence=["sparseness"])
    with pytest.raises(attrib.ReportError, match="evidence"):
        make(four, methods=("lrp",), targets=["dog"])
