"""The rows of texts run, measure what they say, and ask the peers the same question: on tiny models, in seconds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

import attrib
from attrib.models.text import wrap_text
from benchmarks.__main__ import main
from benchmarks.run import OURS, measured
from benchmarks.text_cases import NETWORKS, TextCase
from benchmarks.text_rows import TEXT_ROWS, captum_parts, captum_words

sys.path.insert(0, str(Path(__file__).parent / "models"))
import text_families

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small models in place of the three, under their names."""

    def load(name: str) -> Any:
        family, head = ("bert", "classification") if name == "minilm-sentiment" else ("llama", "next_token")
        tokenizer = text_families.word_piece() if family == "bert" else text_families.byte_level()
        return wrap_text(text_families.model(family, head).requires_grad_(False), tokenizer)

    def built(network: str, vocabulary: int) -> Any:
        bert = network == "bert-base"
        return text_families.model("bert" if bert else "gpt2", "classification" if bert else "next_token")

    monkeypatch.setattr("attrib.load", load)
    monkeypatch.setattr("benchmarks.text_cases._built", built)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_row_runs_and_so_do_its_peers(network: str) -> None:
    case = TextCase(network, 20, CPU)
    assert len(case.ids) == 20
    for row in TEXT_ROWS:
        if row.runs_on(network):
            assert row.ours(case)().values.isfinite().all()
            for name, peer in row.peers.items():
                if name == "LXT":
                    with pytest.raises((ImportError, NotImplementedError)):
                        peer(case)
                else:
                    assert peer(case)().isfinite().all()


def test_a_row_per_word_and_a_peer_that_cannot() -> None:
    rows = {row.name: row for row in TEXT_ROWS}
    case = TextCase("bert-base", 20, CPU)
    by_word = measured(rows["occlusion, by word"], case, 1)
    assert by_word.batch == "20 tokens"
    assert set(by_word.costs) == {OURS, "captum"}
    assert captum_parts(case) == min(16, case.words)
    assert set(measured(rows["lrp cp_lrp"], case, 1).failures) == {"LXT"}


@pytest.mark.parametrize("network", NETWORKS)
def test_the_yardstick_is_the_plain_gradient_and_the_peer_covers_the_same_words(network: str) -> None:
    case = TextCase(network, 20, CPU)
    ours = attrib.explain(case.wrapped, case.ids, "input_x_gradient", case.target)
    torch.testing.assert_close((case.x * case.bare()).sum(2), ours.values, rtol=1e-4, atol=1e-5)
    occluded = attrib.explain(case.wrapped, case.ids, "occlusion", case.target)
    theirs = captum_words(case)()[0, :, 0]
    assert occluded.words is not None
    words = occluded.words[0]
    assert len({w for w in words if w is not None}) == case.words
    alone = captum_parts(case) - 1
    assert alone > 2
    for word in range(alone):
        tokens = [i for i, w in enumerate(words) if w == word]
        torch.testing.assert_close(occluded.values[0, tokens].sum(), theirs[tokens[0]], rtol=1e-3, atol=1e-5)


def test_only_text(tmp_path: Path) -> None:
    program = Typer()
    program.command()(main)
    file = tmp_path / "table.md"
    wished = f"--only text --quick --alone --methods saliency --repeats 1 --markdown {file}"
    found = CliRunner().invoke(program, wished.split())
    assert found.exit_code == 0, found.output
    assert "saliency" in file.read_text()
    assert "× (" not in file.read_text()  # no peer
    assert "32 tokens" in file.read_text()
    for wish in (["--methods", "no such"], ["--methods", "occlusion", "--tokens", "512"]):
        found = CliRunner().invoke(program, ["--only", "text", *wish])
        assert found.exit_code == 2
        assert "there are saliency; lrp attn_lrp;" in " ".join(found.output.replace("│", "").split())
