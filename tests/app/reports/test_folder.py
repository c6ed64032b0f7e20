"""What a name, a link or an address can reach."""

from __future__ import annotations

from pathlib import Path

import pytest

import attrib
from app.report_asks import ReportAsk
from app.report_folder import ReportFolder, configured
from app.report_inputs import Limits
from app.settings import Settings
from tests.app.reports.making import NAME, client


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
