"""The Patching tab as a visitor and a program meet it."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.app.conftest import Server
from tests.app.tiny_text import AGREEING, LANGUAGE

HOSTILE = "<script>alert(1)</script>"
CLEAN, CORRUPTED = f"the film was good {HOSTILE}", f"the food was good {HOSTILE}"
LONG = 30_000  # ms


@pytest.fixture
def url(texts: Server) -> str:
    return texts.url


def link(url: str, **given: str) -> str:
    fields = {"clean": CLEAN, "corrupted": CORRUPTED, "model": LANGUAGE, "answer": "'good", "wrong": "'bad"} | given
    return f"{url}?tab=patching&" + "&".join(f"{name}={quote(value)}" for name, value in fields.items())


def patch(page: Page) -> None:
    page.locator("#pt-explain").click()
    expect(page.locator("#pt-status .at-done")).to_be_visible(timeout=LONG)


def test_a_visitor_patches_verifies_and_saves(page: Page, url: str, tmp_path: Path) -> None:
    page.on("dialog", lambda dialog: pytest.fail("a prompt became a script"))
    page.goto(link(url))
    places = page.locator("#pt-aligned .pt-aligned li")
    expect(page.locator("#pt-aligned .pt-differs")).to_have_count(1, timeout=LONG)
    assert places.count() > 8
    expect(page.locator("#pt-clean-next button")).to_have_count(5)
    expect(page.locator("#pt-answer input")).to_have_value("good")
    patch(page)
    expect(page.locator("#pt-gallery figure")).to_have_count(4)
    expect(page.locator("#pt-gallery .pt-legend .at-ramp")).to_have_count(1)

    cell = page.locator("#pt-gallery .pt-heat").first.locator("tbody td").nth(3)
    cell.hover()
    expect(page.locator("#pt-tip")).to_contain_text(re.compile("layer 1, .*: [+−]?[0-9]"))
    page.locator("#pt-gallery .pt-heat").last.locator("tbody td").first.click()
    page.keyboard.press("ArrowDown")  # by keyboard, to the next head's layer below
    page.keyboard.press("ArrowRight")
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert re.match(r"layer 0, head 1: ", label)

    page.locator("#pt-verify").click()
    expect(page.locator("#pt-verified circle").first).to_be_visible(timeout=LONG)
    expect(page.locator("#pt-verified")).to_contain_text("Pearson’s r over the 20 strongest")

    page.locator("#pt-method").get_by_label("Attribution patching").check()  # the switch answers at once
    expect(page.locator("#pt-status .at-done")).to_contain_text("Attribution patching", timeout=LONG)
    with page.expect_download() as waiting:
        page.locator("#pt-zip").click()
    waiting.value.save_as(tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert "patching.html" in archive.namelist()
    page.locator("#pt-share").click()
    expect(page.locator("#pt-link textarea, #pt-link input").first).to_have_value(re.compile("method=attribution_pat"))


def test_a_visitor_takes_examples_and_finds_or_stops_a_circuit(page: Page, url: str, texts_wait: Path) -> None:
    page.goto(f"{url}?tab=patching&model={AGREEING}")
    clean, seed = page.locator("#pt-clean textarea"), page.locator("#pt-seed input")
    page.locator("#pt-task").get_by_label("Is or are?").check()
    expect(clean).to_have_value(re.compile("^The .* (near|behind|beside) the "), timeout=LONG)
    expect(page.locator("#pt-aligned .pt-differs")).to_have_count(1)
    first = clean.input_value()
    page.locator("#pt-another").click()
    expect(seed).to_have_value("1")
    expect(clean).not_to_have_value(first)
    expect(page.locator("#pt-answer input")).to_have_value(re.compile("is|are|was|were|has|have"))
    patch(page)

    page.locator("#pt-find-circuit").click()  # more edges than this model has
    expect(page.locator("#pt-status .at-error")).to_contain_text("keep = 200: give a number of edges", timeout=LONG)
    page.locator("#pt-keep-edges input").fill("12")
    texts_wait.touch()
    try:
        page.locator("#pt-find-circuit").click()
        page.locator("#pt-cancel:enabled").click()
        expect(page.locator("#pt-status")).to_contain_text("Stopping")
    finally:
        texts_wait.unlink()
    expect(page.locator("#pt-status .at-error")).to_contain_text("stopped", timeout=LONG)
    expect(page.locator("#pt-circuit img")).to_have_count(0)

    page.locator("#pt-find-circuit").click()
    expect(page.locator("#pt-circuit img")).to_have_count(2, timeout=LONG)
    expect(page.locator("#pt-status .at-done")).to_contain_text(re.compile(r"[0-9]+ of [0-9]+ edges: faithfulness"))
    expect(page.locator("#pt-circuit")).to_contain_text("ompleteness")
    expect(page.locator("#pt-gallery figure")).to_have_count(4)  # the heatmaps stay


def test_prompts_of_different_length_are_mended_on_the_page(page: Page, url: str) -> None:
    page.goto(link(url, clean="the film was not good", corrupted="the film was good"))
    expect(page.locator("#pt-aligned .at-warning")).to_contain_text("fill up the shorter", timeout=LONG)
    page.locator("#pt-explain").click()
    expect(page.locator("#pt-status .at-error")).to_contain_text("patching needs as many", timeout=LONG)
    page.locator("#pt-filler input, #pt-filler textarea").first.fill("the")
    page.locator("#pt-pad input").check()
    expect(page.locator("#pt-aligned .at-warning")).to_have_count(0)
    page.locator("#pt-corrupted-next button").nth(2).click()  # another wrong answer
    expect(page.locator("#pt-corrupted-next button").nth(2)).to_have_attribute("aria-pressed", "true")
    patch(page)


def test_a_phone_has_everything(browser: Browser, url: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True)
    page = context.new_page()
    page.goto(link(url))
    expect(page.locator("#pt-aligned .pt-differs")).to_have_count(1, timeout=LONG)
    patch(page)
    page.locator("#pt-verify").click()
    expect(page.locator("#pt-verified circle").first).to_be_visible(timeout=LONG)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


def test_a_program_patches(url: str, tmp_path: Path) -> None:
    from gradio_client import Client

    client = Client(url, verbose=False, download_files=str(tmp_path), analytics_enabled=False)
    found, files = client.predict(
        CLEAN, CORRUPTED, "good", "bad", LANGUAGE, "relp", ["attn_out.*"], {}, "", 3, api_name="/patch"
    )
    assert found["shape"][1] == 2
    assert len(found["verification"]["entries"]) == 3
    assert found["circuit"] is None
    assert {Path(file).suffix for file in files} >= {".zip", ".html", ".png", ".safetensors", ".json"}
    found, files = client.predict(
        CLEAN, CORRUPTED, "good", "bad", LANGUAGE, "relp", ["attn_out.*"], {}, "", 0, 12, api_name="/patch"
    )
    assert len(found["circuit"]["edges"]) >= 1
    assert 0 <= found["circuit"]["curve"][0]["edges"] <= 12
    assert {"circuit.json", "circuit.graphml"} <= {Path(file).name for file in files}
    with pytest.raises(Exception, match="did you mean attn_out"):
        client.predict(CLEAN, CORRUPTED, "good", "bad", LANGUAGE, "relp", ["atn_out.1"], {}, "", 0, api_name="/patch")
    with pytest.raises(Exception, match="k = 0: give a whole number"):
        client.predict("good", LANGUAGE, 0, api_name="/predict_text")
    client.close()
