"""The Reports tab: names, limits, cancelling, resuming, what is served and how, and the page itself."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from starlette.applications import Starlette

import attrib
from app import report_inputs, report_jobs, report_markup, report_routes
from app.catalogue import Catalogue
from app.report_asks import ReportAsk, checked
from app.report_folder import ReportFolder, configured
from app.report_inputs import Limits, Upload
from app.report_jobs import Job, Jobs
from app.settings import Settings
from attrib.models import MODELS
from tests.app import tiny_text

NAME = "squeezenet1_1"
HOSTILE = "<img src=x onerror=alert(1)>{{1}}.jpg"
LONG = 40_000  # ms


@pytest.fixture(scope="module")
def catalogue() -> Iterator[Catalogue]:
    known = dict(MODELS)
    tiny_text.offer()
    yield Catalogue((NAME, tiny_text.CLASSIFIER))
    MODELS.clear()
    MODELS.update(known)


@pytest.fixture
def folder(tmp_path: Path) -> ReportFolder:
    return ReportFolder(tmp_path / "reports", Limits(10, 2**20, 2**30))


def uploaded(tmp_path: Path, **files: Path | bytes | str) -> list[Upload]:
    """Files as the page hands them over; the keys are names with _ for the dot before the ending."""
    found = []
    for number, (name, content) in enumerate(files.items()):
        path = tmp_path / f"upload-{number}"
        data = content.read_bytes() if isinstance(content, Path) else content
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        found.append(Upload(str(path), ".".join(name.rsplit("_", 1))))
    return found


def asked(catalogue: Catalogue, methods: tuple[str, ...] = ("saliency",), model: str = NAME, targets: str = "") -> Any:
    return checked(catalogue, model, [(name, {}) for name in methods], targets)


def ended(job: Job) -> Job:
    assert job.ended.wait(60)
    return job


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "/etc", "a/b", "a\\b", "C:x", "a.b", ".staged-x", "-x", "x" * 65, "a\n", "a\0", "\uff41",
     "é", "x\u202e", "a b", "%2e%2e", "~root"],
)  # fmt: skip
def test_a_name_cannot_escape_the_folder(folder: ReportFolder, name: str) -> None:
    for refused in (folder.place, folder.get, folder.delete, folder.report):
        with pytest.raises(attrib.InputError, match="cannot be a report's name: take 1 to 64"):
            refused(name)


def test_a_link_in_the_folder_is_no_report(folder: ReportFolder, tmp_path: Path) -> None:
    folder.root.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (folder.root / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(attrib.InputError, match="a link to another place"):
        folder.delete("link")
    assert folder.all() == []
    assert (tmp_path / "elsewhere").is_dir()


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


def client(folder: ReportFolder) -> httpx.Client:
    from starlette.testclient import TestClient

    return TestClient(Starlette(routes=report_routes.routes(folder)), raise_server_exceptions=True)


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


def test_a_report_stops_where_the_disk_s_limit_is_met(
    folder: ReportFolder, catalogue: Catalogue, cheetah: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_jobs, "LOOK_AT_DISK", 0.0)
    small = ReportFolder(folder.root, Limits(10, 2**20, 2 * cheetah.stat().st_size))
    job = ended(Jobs(small, catalogue, 1).start("x", asked(catalogue), uploaded(tmp_path, a_jpg=cheetah)))
    assert "delete one that is no longer needed" in job.error
    assert not small.get("x").finished


def test_only_what_is_finished_and_known_is_served(folder: ReportFolder) -> None:
    place = folder.root / "r"
    (place / "report").mkdir(parents=True)
    (place / "request.json").write_text(ReportAsk(NAME, "image", {}).to_json())
    (place / "report" / "manifest.json").write_text('{"finished": true}')
    (place / "report" / "index.html").write_text("hello")
    (place / "report" / "journal.sqlite").write_text("secret")
    (place / "report" / "out.html").symlink_to("/etc/hostname")
    token = folder.token("r")
    with client(folder) as web:
        assert web.get(f"/report-files/{token}/r/index.html").text == "hello"
        for path in (
            f"{token}/r/journal.sqlite", f"{token}/r/out.html", f"{token}/r/../request.json", f"{token}/s/index.html",
            f"{token}/r/%2e%2e/request.json", f"{token}/r//etc/hostname", f"{token}/r/", f"{token}/r/a%00b",
            "x/r/index.html", f"{token}/r/\u2025/request.json", f"{folder.token('..')}/%2e%2e/r.html",
        ):  # fmt: skip
            assert web.get(f"/report-files/{path}").status_code == 404, path
    assert folder.token("r") != ReportFolder(folder.root, folder.limits).token("r")


def test_what_the_settings_say() -> None:
    assert Settings().reports_folder is not None
    assert Settings(host="0.0.0.0").reports_folder is None  # strangers do not see each other's uploads
    assert configured(Settings(host="0.0.0.0")) is None
    found = configured(Settings.from_environment({"ATTRIB_REPORTS": "/x/y", "ATTRIB_REPORT_UPLOAD": "3"}))
    assert found is not None
    assert found.root == Path("/x/y")
    assert found.limits == Limits(1000, 3 * 2**20, 5000 * 2**20)


def test_durations_and_bars_are_told_as_people_say_them() -> None:
    told = [report_markup.duration(seconds) for seconds in (0.2, 59.6, 61, 700, 3700)]
    assert told == ["1 s", "1 min 0 s", "1 min 1 s", "11 min", "1 h 1 min"]
    job = Job("r", 10)
    job.told(2, "explaining")
    job.began -= 4
    job.told(4, "explaining")
    assert job.left() == pytest.approx(12, abs=0.5)
    assert "4 of 10, about 12 s left" in report_markup.progress(job)


def test_a_visitor_makes_reads_saves_and_deletes_a_report(
    page: Page, server: Any, cheetah: Path, tmp_path: Path
) -> None:
    other = tmp_path / "‘b’ <i>.jpg"
    Image.open(cheetah).rotate(180).save(other)
    page.goto(server.url + "?tab=reports")
    page.set_input_files("#rp-files input[type=file]", [cheetah, other])
    expect(page.locator("#rp-status")).to_contain_text("make the report", timeout=LONG)
    page.locator("#rp-model input").click()
    page.get_by_role("option", name=NAME).click()
    page.locator("#rp-image-methods").get_by_label("Layer-wise relevance propagation").uncheck()
    name = page.locator("#rp-name").get_by_role("textbox")
    name.fill("../up")
    page.locator("#rp-start").click()
    expect(page.locator("#rp-status .at-error")).to_contain_text("cannot be a report's name", timeout=LONG)
    name.fill("slow")
    occlusion = page.locator("#rp-image-methods").get_by_label("Occlusion")
    occlusion.check()
    page.locator("#rp-start").click()
    expect(page.locator("#rp-status")).to_contain_text(" of 4", timeout=LONG)
    page.locator("#rp-cancel").click()
    expect(page.locator("#rp-status")).to_contain_text("slow: stopped: what is finished is kept", timeout=LONG)
    expect(page.locator("#rp-list button[data-action=continue]")).to_be_visible()
    page.once("dialog", lambda dialog: dialog.accept())
    page.locator("#rp-list button[data-action=delete]").click()
    expect(page.locator("#rp-list")).to_contain_text("There is no report yet")

    occlusion.uncheck()
    name.fill("animals")
    page.locator("#rp-start").click()
    expect(page.locator("#rp-status .at-done")).to_contain_text("animals is ready: 2 inputs, 2 maps", timeout=LONG)

    frame = page.frame_locator("#rp-viewer iframe")
    expect(frame.locator("table.r-items tbody tr")).to_have_count(2)
    frame.locator("table.r-items tbody a", has_text="cheetah").first.click()
    expect(frame.locator("h1")).to_contain_text("cheetah")
    inside = next(frame for frame in page.frames if "report-files" in frame.url)
    assert inside.evaluate("self.origin") == "null"
    with page.expect_download() as waiting:
        page.locator("#rp-list a[download]").click()
    assert waiting.value.suggested_filename == "animals.zip"
    page.once("dialog", lambda dialog: dialog.accept())
    page.locator("#rp-list button[data-action=delete]").click()
    expect(page.locator("#rp-list")).to_contain_text("There is no report yet")
    expect(page.locator("#rp-viewer iframe")).to_have_count(0)


def test_a_program_gets_a_report_as_a_zip(server: Any, cheetah: Path, tmp_path: Path) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    opened = Client(server.url, verbose=False, download_files=str(tmp_path), analytics_enabled=False)
    photos, methods = [handle_file(str(cheetah))], ["saliency"]
    asked = (photos, NAME, methods, ["leopard"], {}, "by-program", {})
    answer, file = opened.predict(*asked, ["completeness", "sparseness"], api_name="/report")
    assert answer == {"name": "by-program", "failures": {}, "counts": answer["counts"]}
    assert answer["counts"]["rows"] == 1
    with zipfile.ZipFile(file) as archive:
        assert {"by-program/index.html", "by-program/evidence.html"} <= set(archive.namelist())
        assert "sparseness" in archive.read("by-program/evidence.html").decode().lower()
    with pytest.raises(AppError, match="did you mean sparseness"):
        opened.predict(*asked, ["sparsness"], api_name="/report")
    with pytest.raises(AppError, match="of other files, methods or settings"):
        opened.predict(photos, NAME, ["lrp"], [], {}, "by-program", {}, api_name="/report")
    opened.close()
    shutil.rmtree(server.cache.parent / "reports" / "by-program")
