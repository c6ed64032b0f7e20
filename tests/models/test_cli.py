"""The command line, called as a user calls it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from attrib import cli
from attrib.attribution import Attribution
from attrib.methods import METHODS


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of `attrib ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["attrib", *arguments])
    monkeypatch.setattr(cli, "_out", cli.Console(width=200))
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_explain_writes_heatmaps_and_values(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, cheetah: Path
) -> None:
    arguments = ["--model", "squeezenet1_1", "--method", "saliency", "--method", "input_x_gradient", "--target", "lion"]
    assert run(monkeypatch, "explain", str(cheetah), *arguments, "--out", str(tmp_path)) == 0
    for name in ("saliency", "input_x_gradient"):
        result = Attribution.load(tmp_path / name)
        assert result.method == name
        assert result.target[0]["label"] == "lion"
        assert float(result.values.std()) > 0
        assert (tmp_path / name / "heatmap.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert "cheetah (293)" in out
    assert "input_x_gradient: score" in out
    assert "completeness error" in out


def test_explain_takes_an_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cheetah: Path) -> None:
    arguments = ["--model", "squeezenet1_1", "--method", "saliency", "--target", "291", "--out", str(tmp_path)]
    assert run(monkeypatch, "explain", str(cheetah), *arguments) == 0
    assert Attribution.load(tmp_path / "saliency").target[0]["label"] == "lion"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{text}", "--model", "squeezenet1_1"], "is not an image"),
        (["{photo}", "--model", "squeezenet"], "no model is called 'squeezenet'; did you mean squeezenet1_1?"),
        (["{photo}", "--model", "squeezenet1_1", "--method", "salience"], "did you mean saliency"),
        (["{photo}", "--model", "squeezenet1_1", "--method", "saliency", "--target", "lionn"], "did you mean 'lion'"),
        (["{photo}", "--model", "squeezenet1_1", "--method", "saliency", "--target", "1000"], "0 to 999"),
        (["{photo}", "--model", "squeezenet1_1", "--device", "cuda:99"], "'cpu' always works"),
    ],
)
def test_errors_are_one_line_and_status_1(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    cheetah: Path,
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("text")
    filled = [a.format(text=text, photo=cheetah) for a in arguments]
    assert run(monkeypatch, "explain", *filled, "--out", str(tmp_path / "out")) == 1
    error = capsys.readouterr().err
    assert error.startswith("attrib: ")
    assert message in error
    assert error.count("\n") == 1


def test_the_default_method_exists() -> None:
    assert cli.DEFAULT_METHOD in METHODS


def test_models(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "models", "list") == 0
    out = capsys.readouterr().out
    for word in ("efficientnet-lite0", "squeezenet1_1", "torchvision:resnet50", "Apache-2.0", "18.8 MB"):
        assert word in out
    assert run(monkeypatch, "models", "pull", "squeezenet1_1") == 0
    assert "is on this machine" in capsys.readouterr().out


def test_methods_and_their_cards(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "methods") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in METHODS)
    for name, method in METHODS.items():
        assert run(monkeypatch, "methods", name) == 0
        shown = "".join(capsys.readouterr().out.split())
        assert "".join(method.card.formula.split())[:40] in shown
    assert run(monkeypatch, "methods", "saliency2") == 1
    assert "saliency" in capsys.readouterr().err


def test_usage_errors_have_a_status_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "explain") == 2
    assert run(monkeypatch, "nothing") == 2
    assert run(monkeypatch, "--help") == 0


def test_app_starts_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr("app.main.main", lambda: started.append(True))
    assert run(monkeypatch, "app") == 0
    assert started == [True]
