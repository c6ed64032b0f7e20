"""`attrib report` and `attrib verify` as a user calls them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from attrib import cli
from attrib.reports import Store
from tests.reports.conftest import write_pictures

QUICK = ("--model", "squeezenet1_1", "--methods", "normgrad", "--values", "heatmap")

pytestmark = pytest.mark.usefixtures("without_pages")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of `attrib ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["attrib", *arguments])
    monkeypatch.setenv("COLUMNS", "300")
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_report_is_made_gone_on_with_and_verified(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_pictures(tmp_path / "in", ["a.png", "b.png"])
    out = tmp_path / "out"
    assert run(monkeypatch, "report", str(tmp_path / "in"), *QUICK, "--out", str(out)) == 0
    assert f"2 inputs, 2 rows → {out}" in capsys.readouterr().out
    (tmp_path / "in" / "broken.png").write_text("x")
    more = ("--methods", "normgrad,saliency", "--set", "normgrad.virtual=conv1x1", "--target", "tabby")
    assert run(monkeypatch, "report", str(tmp_path / "in"), *QUICK, *more, "--target", "item", "--out", str(out)) == 3
    told = capsys.readouterr().out
    assert "3 inputs, 12 rows" in told and "1 inputs failed" in told and "'broken.png': the image data is not" in told
    assert {row.target_label for row in Store.open(out).rows() if row.target == "tabby"} == {"tabby", None}
    assert run(monkeypatch, "verify", str(out), "--sample", "3") == 0
    assert "3 of 3 rows computed again are the same" in capsys.readouterr().out
    manifest = out / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"torch": "', '"torch": "1.'))
    row = next(iter(Store.open(out).rows()))
    (out / str(row.picture)).write_bytes((out / str(row.picture)).read_bytes()[:-200])
    assert run(monkeypatch, "verify", str(out), "--sample", "0") == 4
    told = capsys.readouterr().out
    assert "changed: another version of torch" in told
    assert f"differs: '{row.name}', squeezenet1_1, normgrad, item: it could not be computed again" in told


def test_what_is_wrong_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_pictures(tmp_path / "in", ["a.png"])
    (tmp_path / "s.toml").write_text(f'inputs = "{tmp_path}/in"\nmodel = "squeezenet1_1"\n')
    for arguments, why in (
        (("report", str(tmp_path / "s.toml")), "no key of a report's spec is called 'model'; did you mean models"),
        (("report", str(tmp_path / "in"), "--set", "lrp"), "write METHOD.SETTING=VALUE"),
        (("report", str(tmp_path / "in"), "--methods", "lrp", "--set", "lpr.x=1"), "did you mean lrp?"),
        (("report", str(tmp_path / "in"), *QUICK, "--workers", "0"), "workers = 0"),
        (("verify", str(tmp_path)), "holds no report"),
    ):
        assert run(monkeypatch, *arguments) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("attrib: ") and why in error


def test_ctrl_c_says_that_the_same_command_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["attrib.reports.making"], "store", interrupted)
    write_pictures(tmp_path / "in", ["a.png"])
    assert run(monkeypatch, "report", str(tmp_path / "in"), *QUICK, "--out", str(tmp_path / "out")) == 130
    assert "the same command goes on with it" in capsys.readouterr().err
