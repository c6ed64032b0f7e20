"""What cannot be made into a report is one sentence, and nothing of it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import attrib
from app.catalogue import Catalogue
from app.report_asks import ReportAsk
from app.report_folder import ReportFolder
from app.report_inputs import Limits, Upload
from app.report_jobs import Jobs
from tests.app.reports.making import NAME, asked, ended, uploaded


@pytest.mark.parametrize(
    ("model", "files", "columns", "words"),
    [
        (NAME, {}, {}, "choose files first"),
        (NAME, {"a_csv": "x\n1\n"}, {}, "takes pictures, and 'a.csv' holds texts"),
        (NAME, {"a_png": b"x" * 2**21}, {}, "2.0 MB together, more than the limit of 1 MB"),
        (NAME, {f"a{i}_png": b"x" for i in range(11)}, {}, "11 inputs are more than the limit of 10"),
        ("tiny-classifier", {"a_png": b"x"}, {}, "takes texts: upload one file ending in .csv"),
        ("tiny-classifier", {"a_txt": "x", "b_txt": "y"}, {}, "upload it alone"),
        ("tiny-classifier", {"a_txt": ""}, {}, "'a.txt' holds no texts"),
        ("tiny-classifier", {"a_csv": ""}, {}, "'a.csv' is empty"),
        ("tiny-classifier", {"a_csv": "x,y\n1,2\n"}, {"text": "text"}, "no column 'text'; its columns are 'x', 'y'"),
        ("tiny-classifier", {"a_csv": "text\n" + "x\n" * 11}, {"text": "text"}, "11 inputs are more"),
        ("tiny-classifier", {"a_jsonl": "hello"}, {"text": "text"}, "is not JSONL"),
    ],
)  # fmt: skip
def test_bad_uploads_are_one_sentence_and_nothing_is_kept(
    folder: ReportFolder, catalogue: Catalogue, tmp_path: Path, model: str, files: Any, columns: Any, words: str
) -> None:
    ask = asked(catalogue, model=model)
    ask = ReportAsk(ask.model, ask.kind, ask.methods, (), columns)
    with pytest.raises(attrib.InputError) as caught:
        Jobs(folder, catalogue, 1).start("x", ask, uploaded(tmp_path, **files))
    assert words in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert not folder.root.exists()


def test_a_wrong_question_keeps_nothing(
    folder: ReportFolder, catalogue: Catalogue, cheetah: Path, tmp_path: Path
) -> None:
    job = ended(
        Jobs(folder, catalogue, 1).start("x", asked(catalogue, targets=" vs dog"), uploaded(tmp_path, a_jpg=cheetah))
    )
    assert "names no class" in job.error
    assert list(folder.root.iterdir()) == []
    for wrong, words in ((("salliency",), "did you mean saliency"), ((), "at least one method")):
        with pytest.raises(attrib.AttribError, match=words):
            asked(catalogue, wrong)
    with pytest.raises(attrib.InputError, match="9 targets: give at most 8"):
        asked(catalogue, targets="\n".join("abcdefghi"))


def test_no_space_and_no_folder_are_one_sentence(catalogue: Catalogue, cheetah: Path, tmp_path: Path) -> None:
    full = ReportFolder(tmp_path / "full", Limits(10, 2**20, 0))
    with pytest.raises(attrib.InputError, match="delete one that is no longer needed"):
        Jobs(full, catalogue, 1).start("x", asked(catalogue), [Upload(str(cheetah), "a.jpg")])
    unwritable = ReportFolder(Path("/proc/nowhere"), Limits(10, 2**20, 2**30))
    with pytest.raises(attrib.InputError, match="the folder of the reports cannot be written"):
        Jobs(unwritable, catalogue, 1).start("x", asked(catalogue), [Upload(str(cheetah), "a.jpg")])
