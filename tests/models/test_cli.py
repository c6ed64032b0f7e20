"""The command line, called as a user calls it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from attrib import cli, command
from attrib.attribution import Attribution
from attrib.methods import METHODS
from attrib.models import MODELS
from attrib.models.text import wrap_text

sys.path.insert(0, str(Path(__file__).parent))
import text_families


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of `attrib ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["attrib", *arguments])
    for module in (cli, command):
        monkeypatch.setattr(module, "_out", cli.Console(width=200))
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
    assert "input_x_gradient of lion: score" in out
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


def test_a_place_that_is_no_folder_is_told_before_anything_is_computed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, cheetah: Path
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    for place in (taken, taken / "deep"):
        assert run(monkeypatch, "explain", str(cheetah), "--out", str(place)) == 1
        out, err = capsys.readouterr()
        assert "is no folder" in err and not out


def test_a_place_that_cannot_be_written_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, cheetah: Path
) -> None:
    (tmp_path / "saliency").write_text("")  # where the folder of the method would be
    given = ("--model", "squeezenet1_1", "--method", "saliency", "--out", str(tmp_path))
    assert run(monkeypatch, "explain", str(cheetah), *given) == 1
    assert "nothing can be written there" in capsys.readouterr().err


def test_the_defaults_exist() -> None:
    for kind, (name, method) in command.DEFAULTS.items():
        assert MODELS[name].kind == kind
        assert kind in METHODS[method].applies_to


@pytest.fixture
def sentiment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny classifier under the name of the default model for texts."""
    tiny = wrap_text(text_families.model("bert", "classification"), text_families.word_piece())

    def load(name: str, device: str | None = None) -> Any:
        assert name == "minilm-sentiment"
        return tiny

    monkeypatch.setattr("attrib.load", load)


@pytest.mark.usefixtures("sentiment")
def test_a_text_is_a_table_of_tokens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    methods = ["--method", "lrp", "--method", "occlusion", "--out", str(tmp_path / "out")]
    assert run(monkeypatch, "explain", "--text", "The film was not good", "--contrast", "LABEL_1", *methods) == 0
    said = capsys.readouterr().out
    result = Attribution.load(tmp_path / "out" / "lrp")
    table = said[said.index("token") :].splitlines()
    assert table[0].split() == ["token", "lrp", "occlusion"]
    assert [row.split()[0] for row in table[1 : 1 + len(result.tokens())]] == [text for text, _ in result.tokens()]
    assert "rather than LABEL_1" in said
    assert "softmax remainder" in said
    for name in ("lrp", "occlusion"):
        assert (tmp_path / "out" / name / "heatmap.png").read_bytes().startswith(b"\x89PNG")
        assert "<html" in (tmp_path / "out" / name / "explanation.html").read_text()


@pytest.mark.usefixtures("sentiment")
def test_a_file_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\ufeffwonderful music\n", encoding="utf-8")
    arguments = ["--file", str(tmp_path / "text.txt"), "--target", "1", "--json", "--out", str(tmp_path / "out")]
    assert run(monkeypatch, "explain", *arguments) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    result = Attribution.load(found["folder"])
    assert [(t["text"], t["value"]) for t in found["tokens"]] == result.tokens()
    assert found["target"]["label"] == "LABEL_1"
    assert sum(found["ledger"].values()) == pytest.approx(found["score"], abs=1e-4)


@pytest.mark.usefixtures("sentiment")
def test_tokens_do_not_act_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    hostile = "good \x1b[31m[bold]film[/bold] \x07 \u202emusic"
    assert run(monkeypatch, "explain", "--text", hostile, "--out", str(tmp_path)) == 0
    said = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\u202e"} & set(said)


@pytest.mark.usefixtures("sentiment")
@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (b"\xff\xfe\x00", ["--file", "{file}"], "no text in UTF-8: byte 0"),
        (b"a" * (2**20 + 1), ["--file", "{file}"], "more than 1048576 bytes"),
        (b"", ["--file", "{file}"], "empty text"),
        (b"", ["--file", "{file}.not"], "cannot be read: No such file"),
        (b"", ["--text", "good", "--target", "great"], "no class 'great'"),
        (b"", ["--text", "good", "--contrast", "LABEL_2"], "no class 'LABEL_2'"),
    ],
)
def test_texts_that_cannot_be_explained(
    content: bytes,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "f").write_bytes(content)
    filled = [a.format(file=tmp_path / "f") for a in arguments]
    assert run(monkeypatch, "explain", *filled, "--out", str(tmp_path / "out")) == 1
    assert message in capsys.readouterr().err


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
    assert run(monkeypatch, "explain", "a.png", "--text", "good") == 2
    assert run(monkeypatch, "nothing") == 2
    assert run(monkeypatch, "--help") == 0


def test_app_starts_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr("app.main.main", lambda: started.append(True))
    assert run(monkeypatch, "app") == 0
    assert started == [True]
