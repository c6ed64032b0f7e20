"""The patching benchmark: parts are kept and read again, and its numbers are those of the results."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from patching_oracles import network, wrapped
from scipy.stats import pearsonr

import attrib
from attrib.patching.tasks import Task
from benchmarks import patching


@pytest.fixture
def made() -> Task:
    clean = [[4 + i, 9, 6, 7 + i] for i in range(12)]
    corrupted = [[4 + i, 5, 6, 7 + i] for i in range(12)]
    return Task("tiny", attrib.pair(clean, corrupted), (7,) * 12, (8,) * 12)


def test_a_stopped_run_goes_on_and_gives_the_same_table(made, tmp_path, monkeypatch, capsys) -> None:
    subject = wrapped(network("llama"))
    whole = patching.agreement(subject, made, tmp_path / "whole")
    explain, calls = attrib.explain, []

    def stopping(*args, **kwargs):
        calls.append(args[2].name)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return explain(*args, **kwargs)

    monkeypatch.setattr(attrib, "explain", stopping)
    with pytest.raises(KeyboardInterrupt):
        patching.agreement(subject, made, tmp_path / "parts")
    assert len(list((tmp_path / "parts").iterdir())) == 3
    again = patching.agreement(subject, made, tmp_path / "parts")
    assert calls[4:] == ["relp", "activation_patching", "activation_patching"]
    assert again.split("\n\n")[1] == whole.split("\n\n")[1]
    assert "12 of 12" in capsys.readouterr().out


def test_the_table_holds_the_correlations_of_the_results(made, tmp_path) -> None:
    subject = wrapped(network("llama"))
    text = patching.agreement(subject, made, tmp_path)
    atp, relp, true = (attrib.explain(subject, made.pair, method, made.target) for method in patching.METHODS)
    row = re.search(r"^\| MLP output \| (.*) \|$", text, re.MULTILINE)
    assert row is not None
    shown = [float(cell) for cell in row[1].split(" | ")]
    own = [i for i, name in enumerate(true.sites) if name.startswith("mlp_out")]
    expected = [pearsonr(e.values[:, own].flatten(), true.values[:, own].flatten()).statistic for e in (atp, relp)]
    expected += [
        pearsonr(e.values[:, own].mean(0).flatten(), true.values[:, own].mean(0).flatten()).statistic
        for e in (atp, relp)
    ]
    assert np.allclose(shown[:4], expected, atol=6e-4)
    assert np.isclose(expected[0], atp.correlation(true)["mlp_out"])


def test_correlation_of_what_does_not_vary_is_no_number() -> None:
    assert np.isnan(patching.pearson(torch.ones(3), torch.arange(3.0)))
    assert patching.pearson(torch.arange(3.0), torch.arange(3.0) * 2 + 1) == pytest.approx(1.0)
