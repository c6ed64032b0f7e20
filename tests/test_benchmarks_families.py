"""The survey of families builds, measures and tells; what cannot be built is a row and no crash."""

from __future__ import annotations

import torch
from typer import Typer
from typer.testing import CliRunner

from benchmarks.families import ELEVEN, Found, main, row, summary


def surveyed(only: str) -> tuple[int, str]:
    app = Typer()
    app.command()(main)
    threads = torch.get_num_threads()
    try:
        result = CliRunner().invoke(app, ["--only", only])
    finally:
        torch.set_num_threads(threads)
    return result.exit_code, result.stdout


def test_a_causal_and_a_masked_type() -> None:
    code, printed = surveyed("gpt_neox,bert (masked)")
    lines = printed.splitlines()
    assert code == 0 and "2 types" in lines[0] and "2 with sites, 1 with all eleven kinds, 2 with edges" in lines[0]
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines[4:]}
    assert list(cells) == ["gpt_neox", "bert (masked)"]
    assert cells["gpt_neox"][:2] == ["no resid_mid", "attention and MLP run in parallel, so nothing lies between them"]
    assert cells["bert (masked)"][:2] == ["", ""]
    for lacks, told, error, edges in cells.values():
        assert bool(lacks) == bool(told) and float(error.split()[0]) < 1e-12 and error.endswith("replayed")
        assert float(edges.split()[-1]) < 1e-12 and int(edges.split(",")[0]) > 50


def test_a_type_that_is_refused_is_told_why() -> None:
    code, printed = surveyed("bart (masked)")
    assert code == 0 and "0 wrapped (0 could not be built, 1 are refused)" in printed
    assert "| bart (masked) | not wrapped | BartForConditionalGeneration is an encoder-decoder model" in printed


def test_an_unknown_type_is_refused() -> None:
    assert surveyed("gpt99")[0] == 2


def test_the_worst_error_is_told_with_its_type() -> None:
    found = [Found("first", "sites", kinds=ELEVEN, error=1e-9), Found("second", "sites", kinds=("embed",), error=1e-3)]
    assert "1 with all eleven kinds" in summary(found) and "1e-03 (second)" in summary(found)
    assert row(found[1]).startswith("| second | no resid_pre, q, k,")
