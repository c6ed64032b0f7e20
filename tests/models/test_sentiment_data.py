"""The data of the sentiment head: labels as rated, and nothing on both sides of the split."""

from __future__ import annotations

import importlib.util
import io
import random
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "sentiment_data.py"
MOVIES = "1\t2.3\tGreat &amp; funny.\n2\t-0.4\tneither\n3\t-1.5\tA bore\n4\t-1.0\tA BORE!\n"
AMAZON = "1_1\t1.0\tworks well\n1_2\t-2.0\tbut it broke\n2_1\t3.0\tbut it BROKE\n3_1\t0.9\tfine\n"
TWEETS = "1\t1.4\tYay. Another good phone interview.\n"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sentiment_data", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sentiment_data"] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def archive(tmp_path: Path, script: ModuleType) -> Path:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        for name, content in zip(script.SOURCES.values(), (MOVIES, AMAZON, TWEETS), strict=True):
            info = tarfile.TarInfo(f"hutto_ICWSM_2014/{name}_GroundTruth.txt")
            info.size = len(content.encode())
            tar.addfile(info, io.BytesIO(content.encode()))
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as outer:
        outer.writestr(script.INNER, inner.getvalue())
    return tmp_path / "data.zip"


def test_labels_and_groups(script: ModuleType, archive: Path) -> None:
    found = {s.text: s for s in script.snippets(archive)}
    assert "neither" not in found
    assert [found[text].label for text in ("Great & funny.", "A bore", "but it broke", "fine")] == [1, 0, 0, 1]
    assert found["A bore"].group == found["A BORE!"].group
    assert found["works well"].group == found["but it broke"].group
    assert found["works well"].group == found["but it BROKE"].group  # another review that shares a sentence
    assert found["works well"].group != found["fine"].group


def test_folds_are_even_and_fixed(script: ModuleType) -> None:
    counts = [0] * 10
    for i in range(5000):
        counts[script.fold(f"group {i}")] += 1
    assert min(counts) > 400
    assert script.fold("group 7") == script.fold("group 7")


def test_made_sentences(script: ModuleType) -> None:
    made = script.negations(1200, random.Random(0))
    assert sum(s.label for s in made) == 600
    held = {s.text.casefold().strip(".!") for s in script.held_negations() if s.source == "negated, made"}
    assert not held & {s.text.casefold().strip(".!") for s in made}
    by_text = {s.text.casefold().strip(".!"): s.label for s in made}
    assert {by_text[text] for text in ("not good", "not great at all") if text in by_text} <= {0}
