"""The README tells the truth: its snippets run, its table is the methods' cards."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from attrib.methods.table import markdown

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_there_are_three_snippets() -> None:
    assert len(SNIPPETS) >= 3


@pytest.mark.parametrize("code", SNIPPETS, ids=range(len(SNIPPETS)))
def test_snippet_runs(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_method_table_is_current() -> None:
    shown = re.search(r"<!-- methods: .*? -->\n(.*?)\n?<!-- end methods -->", TEXT, re.DOTALL)
    assert shown is not None
    assert shown[1].strip() == markdown(), "run: python -m attrib.methods.table, and paste it"


def test_screenshot_exists() -> None:
    for path in re.findall(r"!\[.*?\]\((.*?)\)", TEXT):
        assert (ROOT / path).is_file(), path
