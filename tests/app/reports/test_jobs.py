"""Reports are made, stopped and gone on with by the server."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

import attrib
from app import report_inputs, report_jobs, report_markup, report_routes
from app.catalogue import Catalogue
from app.report_asks import ReportAsk
from app.report_folder import ReportFolder
from app.report_inputs import Limits, Upload
from app.report_jobs import Job, Jobs
from tests.app import tiny_text
from tests.app.reports.making import HOSTILE, asked, client, ended, uploaded


def test_a_report_of_photos_one_of_them_unreadable(
    folder: ReportFolder, catalogue: Catalogue, cheetah: Path, tmp_path: Path
) -> None:
    jobs = Jobs(folder, catalogue, 1)
    files = [*uploaded(tmp_path, cat_jpg=cheetah, words_png=b"no image"), Upload(str(cheetah), HOSTILE)]
    job = ended(jobs.start("first", asked(catalogue, ("saliency", "normgrad")), files))
    assert job.error == ""
    assert job.done == job.total == 6
    assert "3 inputs, 4 maps; 1 input failed: words.png:" in report_markup.progress(job)
    assert str(tmp_path) not in report_markup.progress(job)

    listed = report_markup.listed(jobs)
    assert "first" in listed
    assert "1 failed" in listed
    with client(folder) as web:
        address = report_routes.address(folder, "first", "index.html")
        page = web.get(f"/{address}")
        assert page.status_code == 200
        assert "sandbox allow-scripts" in page.headers["content-security-policy"]
        assert "allow-same-origin" not in page.headers["content-security-policy"]
        assert "<img src=x" not in page.text
        assert "&lt;img src=x onerror=alert(1)&gt;" in page.text
        assert str(tmp_path) not in page.text
        table = web.get(f"/{report_routes.address(folder, 'first', 'results.csv')}")
        assert table.headers["content-disposition"].startswith("attachment")
        whole = web.get(f"/{report_routes.address(folder, 'first', 'first.zip')}")
    with zipfile.ZipFile(io.BytesIO(whole.content)) as archive:
        assert archive.testzip() is None
        assert {"first/index.html", "first/report.pdf", "first/manifest.json"} <= set(archive.namelist())
        assert not any("request.json" in name or "inputs/" in name for name in archive.namelist())

    with pytest.raises(attrib.InputError, match="a report 'first' already, of other files, methods or settings"):
        jobs.start("first", asked(catalogue), files)
    jobs.delete("first")
    assert list(folder.root.iterdir()) == []
    assert jobs.folder.all() == []


def test_cancelled_and_resumed_by_another_server_nothing_is_computed_twice(
    folder: ReportFolder, catalogue: Catalogue, cheetah: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Job.told

    def cancelled_early(job: Job, done: int, message: str) -> None:
        if done:
            jobs.cancel(job.name)
        told(job, done, message)

    monkeypatch.setattr(Job, "told", cancelled_early)
    jobs, ask = Jobs(folder, catalogue, 1), asked(catalogue, ("saliency", "normgrad"))
    job = ended(jobs.start("r", ask, uploaded(tmp_path, cat_jpg=cheetah)))
    assert "stopped: what is finished is kept" in job.error
    before = {path: path.stat().st_mtime_ns for path in folder.report("r").glob("values/*")}
    assert len(before) == 1
    assert 'data-action="continue"' in report_markup.listed(jobs)
    assert folder.file("r", "manifest.json") is None  # not before it is finished
    monkeypatch.setattr(Job, "told", told)

    again = Jobs(ReportFolder(folder.root, folder.limits), catalogue, 1)  # as after a restart
    job = ended(again.go_on("r"))
    assert job.error == ""
    assert job.summary == "1 input, 2 maps"
    after = {path: path.stat().st_mtime_ns for path in folder.report("r").glob("values/*")}
    assert len(after) == 2
    assert before.items() <= after.items()
    assert ended(again.start("r", ask, uploaded(tmp_path, cat_jpg=cheetah))).error == ""  # the same question again


def test_one_at_a_time_and_none_while_it_runs(folder: ReportFolder, catalogue: Catalogue, cheetah: Path) -> None:
    jobs = Jobs(folder, catalogue, 1)
    jobs._jobs["busy"] = Job("busy", 9)
    with pytest.raises(attrib.InputError, match="another report, busy, is being made"):
        jobs.start("next", asked(catalogue), [Upload(str(cheetah), "a.jpg")])
    assert not folder.root.exists()  # nothing was kept
    with pytest.raises(attrib.InputError, match="cancel it first"):
        jobs.delete("busy")
    assert jobs.cancel("busy")
    assert not jobs.cancel("nothing")


def test_a_table_of_texts_with_a_formula_and_markup(folder: ReportFolder, catalogue: Catalogue, tmp_path: Path) -> None:
    table = "review,target\n=cmd|' /C calc'!A0,good\n<script>alert(1)</script> film,<b>so-so</b>\n"
    files = uploaded(tmp_path, reviews_csv=table)
    assert report_inputs.columns_of(files[0]) == ["review", "target"]
    ask = asked(catalogue, ("input_x_gradient",), tiny_text.CLASSIFIER)
    ask = ReportAsk(ask.model, ask.kind, ask.methods, (), {"text": "review", "target": "target"})
    job = ended(Jobs(folder, catalogue, 1).start("texts", ask, files))
    assert job.summary == "2 inputs, 2 maps"
    pages = [path.read_text() for path in folder.report("texts").rglob("*.html")]
    assert not any("<script>alert" in page or "<b>so-so" in page for page in pages)
    assert "'=cmd|" in (folder.report("texts") / "results.csv").read_text()


def test_a_report_stops_where_the_disk_s_limit_is_met(
    folder: ReportFolder, catalogue: Catalogue, cheetah: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_jobs, "LOOK_AT_DISK", 0.0)
    small = ReportFolder(folder.root, Limits(10, 2**20, 2 * cheetah.stat().st_size))
    job = ended(Jobs(small, catalogue, 1).start("x", asked(catalogue), uploaded(tmp_path, a_jpg=cheetah)))
    assert "delete one that is no longer needed" in job.error
    assert not small.get("x").finished


def test_durations_and_bars_are_told_as_people_say_them() -> None:
    told = [report_markup.duration(seconds) for seconds in (0.2, 59.6, 61, 700, 3700)]
    assert told == ["1 s", "1 min 0 s", "1 min 1 s", "11 min", "1 h 1 min"]
    job = Job("r", 10)
    job.told(2, "explaining")
    job.began -= 4
    job.told(4, "explaining")
    assert job.left() == pytest.approx(12, abs=0.5)
    assert "4 of 10, about 12 s left" in report_markup.progress(job)
    job.began -= 5
    job.moved -= 5  # nothing new for five seconds
    assert job.left() == pytest.approx(7, abs=0.5)
