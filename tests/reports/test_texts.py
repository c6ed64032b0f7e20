"""Reports on texts: batches of similar length, tokens and words, tokens as targets."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import torch

import attrib
from attrib.reports import compute
from attrib.reports.verify import verify
from tests.app.tiny_text import classifier, language

pytestmark = pytest.mark.usefixtures("without_pages")


def test_texts_are_explained_in_batches_of_similar_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = classifier(), []
    explain = compute.explain
    monkeypatch.setattr(
        compute, "explain", lambda m, inputs, *r, **o: asked.append(inputs) or explain(m, inputs, *r, **o)
    )
    texts = [" ".join(["the film was", *["not"] * (7 * i % 12), chr(97 + i % 26), "good"]) for i in range(47)]
    rows = [{"text": text, "target": ["good", 0, None][i % 3]} for i, text in enumerate([*texts, "film " * 80])]
    made = attrib.report(rows, model, ["saliency", "lrp"], tmp_path / "out", batch=4)
    assert made.counts["failed_inputs"] == 1
    assert max(map(len, asked)) == 4
    sorted_ones = [inputs for inputs in asked if len(inputs) == 4][-6:]  # the first groups are small, to start quickly
    assert all(max(map(len, texts)) - min(map(len, texts)) < 20 for texts in sorted_ones)  # of up to 44 characters
    with closing(made.store()) as store:
        *found, failed, _ = store.rows()
        assert "82 tokens, more than the 64" in str(failed.error)
        for row in found:
            alone = attrib.explain(model, str(row.text), row.method, row.target_index)
            stored = store.attribution(row)
            torch.testing.assert_close(stored.values, alone.values, rtol=1e-3, atol=1e-6)
            assert stored.tokens() == [(token, pytest.approx(v, rel=1e-3, abs=1e-6)) for token, v in alone.tokens()]
            assert row.top[0]["word"] in str(row.text) or row.top[0]["word"] in ("[CLS]", "[SEP]")
            own = rows[row.position]["target"]
            expected = model.predict(row.text, 1)[0][0].index if own is None else model.index_of(own)
            assert row.target_index == expected
    assert verify(made.folder, 20, own_models={model.name: model}).differing == ()


def test_tokens_of_a_language_model_are_targets(tmp_path: Path) -> None:
    model = language()
    lines = tmp_path / "prompts.txt"
    lines.write_text("the capital of france is\n\nthe film was not\n")
    made = attrib.report(
        lines,
        model,
        ["input_x_gradient"],
        tmp_path / "out",
        targets=["predicted", "paris", "paris vs london", "nowhere"],
    )
    rows = list(made.rows())
    assert [row.target_label for row in rows[1:3]] == ["paris", "paris rather than london"]
    assert rows[0].target_label == rows[0].prediction
    assert [row.failed for row in rows] == [False, False, False, True] * 2
    assert "'nowhere' is not one token" in str(rows[3].error)
    score = float(attrib.explain(model, "the film was not", "saliency", attrib.LogitDiff("paris", "london")).score[0])
    assert rows[6].score == pytest.approx(score, rel=1e-3)
    assert {row.name for row in rows} == {"line 1", "line 3"}


def test_images_for_a_text_model_and_the_other_way_round(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(attrib.InputError, match="holds images and the models take text"):
        attrib.report(tmp_path, classifier(), ["lrp"], tmp_path / "out")
