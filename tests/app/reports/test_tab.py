"""The Reports tab in a browser, and its endpoint."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.app.reports.making import NAME

LONG = 40_000  # ms


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
