"""What a report says is what `attrib.explain` says; and `verify` notices when it is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

import attrib
from attrib.reports import Report, Store
from attrib.reports.verify import verify
from tests.reports.conftest import tiny_model

Make = Callable[..., Report]

pytestmark = pytest.mark.usefixtures("without_pages")


def test_rows_and_maps_are_those_of_explain(make: Make, photos_of_noise: Path) -> None:
    model = tiny_model()
    made = make(photos_of_noise, targets=["item", "dog vs cat", "log_prob: dog"])
    table = pq.read_table(made.folder / "results.parquet").to_pylist()
    with closing(made.store()) as store:
        rows = list(store.rows())
        assert [row["name"] for row in table] == [row.name for row in rows]
        for row, written in zip(rows, table, strict=True):
            target = {"item": None, "dog vs cat": attrib.LogitDiff(1, 0), "log_prob: dog": attrib.LogProb(1)}
            alone = attrib.explain(model, photos_of_noise / row.name, row.method, target[row.target])
            stored = store.attribution(row)
            torch.testing.assert_close(stored.values, alone.values)
            torch.testing.assert_close(stored.score, alone.score)
            assert written["score"] == row.score
            assert (stored.pictures == alone.pictures).all()
            assert stored.provenance.input_hashes == alone.provenance.input_hashes
            label, index, probability = model.predict(photos_of_noise / row.name, 1)[0][0]
            assert (written["prediction"], written["prediction_index"]) == (label, index)
            assert written["probability"] == pytest.approx(probability)
            # what ran, where the spec leaves it to attrib
            kept, ran = stored.provenance, alone.provenance
            assert (kept.settings, kept.chosen) == (json.loads(json.dumps(ran.settings)), ran.chosen)
            if row.method == "lrp":
                assert kept.chosen == {"preset": "auto"}
                assert list(row.ledger) == list(alone.ledger)
                assert sum(row.ledger.values()) == pytest.approx(row.score, abs=1e-5)
            heat = stored.heatmap()[0]
            box = row.top[0]["box"]
            inside = heat[box[1] : box[3], box[0] : box[2]].sum()
            assert inside == pytest.approx(row.top[0]["relevance"], rel=1e-4)


def test_heatmaps_only(make: Make, photos_of_noise: Path) -> None:
    raw, small = make(photos_of_noise, "raw"), make(photos_of_noise, "small", values="heatmap")
    with closing(raw.store()) as first, closing(small.store()) as second:
        for one, other in zip(first.rows(), second.rows(), strict=True):
            assert (first.attribution(one).heatmap() == second.attribution(other).heatmap()).all()
            assert second.attribution(other).values.shape == (1, 16, 16)


def test_inputs_of_the_same_content_are_computed_once_and_have_their_own_rows(
    make: Make, photos_of_noise: Path
) -> None:
    (photos_of_noise / "sub").mkdir()
    (photos_of_noise / "sub" / "0.png").write_bytes((photos_of_noise / "0.png").read_bytes())
    made = make(photos_of_noise)
    assert (made.counts["inputs"], made.counts["items"], made.counts["rows"]) == (8, 7, 32)
    first, *_, last = made.rows()
    assert (first.name, last.name) == ("0.png", "sub/0.png")
    assert first.item == last.item and first.score is not None


def test_verify_says_that_a_report_is_true(make: Make, photos_of_noise: Path) -> None:
    (photos_of_noise / "broken.png").write_text("x")
    made = make(photos_of_noise)
    for path in photos_of_noise.iterdir():
        path.unlink()  # the report holds all that is needed
    verdict = verify(made.folder, None, own_models={"tiny": tiny_model()})
    assert (len(verdict.checks), verdict.rows, verdict.reasons) == (28, 32, ())
    assert verdict.differing == ()
    assert max(check.values for check in verdict.checks if check.values is not None) < 1e-5
    assert len(verify(made.folder, 5, own_models={"tiny": tiny_model()}).checks) == 5


def test_verify_tells_what_was_changed(make: Make, photos_of_noise: Path) -> None:
    made = make(photos_of_noise)
    row = next(row for row in made.rows() if row.method == "lrp" and row.target == "dog")
    path = made.folder / str(row.values)
    tensors = load_file(path)
    tensors[f"{row.item}/values"][0, 3, 3] += 0.5 * tensors[f"{row.item}/values"].abs().max()
    save_file(tensors, path)
    (wrong,) = verify(made.folder, None, own_models={"tiny": tiny_model()}).differing
    assert wrong.row == row
    assert wrong.values == pytest.approx(0.5, rel=0.5) and "the map differs by" in str(wrong.problem)
    other = verify(made.folder, None, own_models={"tiny": tiny_model(1)})
    assert len(other.differing) == 28
    assert other.reasons[0].startswith("tiny has other weights: ")
    table = pq.read_table(made.folder / "results.parquet")
    changed = table.set_column(
        table.column_names.index("score"), "score", [[s + 1 for s in table["score"].to_pylist()]]
    )
    pq.write_table(changed, made.folder / "results.parquet")
    assert len(verify(made.folder, None, own_models={"tiny": tiny_model()}).differing) == 28


def test_verify_needs_a_finished_report(make: Make, photos_of_noise: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int | None, message: str) -> None:
        if done:
            raise attrib.Cancelled("enough")

    with pytest.raises(attrib.Cancelled):
        make(photos_of_noise, on_progress=stop)
    with pytest.raises(attrib.ReportError, match="not finished"):
        verify(tmp_path / "report")
    with pytest.raises(attrib.ReportError, match="holds no report"):
        Store.open(photos_of_noise)
