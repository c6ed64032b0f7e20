"""The app as a person uses it, in a real browser, on the small embedded model."""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

LONG = 30_000  # ms: the first run loads and compiles what later ones have


def upload(page: Page, file: Path) -> None:
    page.set_input_files("#at-photo input[type=file]", file)


def example(page: Page, number: int = 0) -> None:
    page.locator(f"#at-examples button[data-index='{number}']").click()
    expect(page.locator("#at-predictions button")).to_have_count(5, timeout=LONG)


def choose_methods(page: Page, *titles: str) -> None:
    for box in page.locator("#at-methods input[type=checkbox]").all():
        box.set_checked(False)
    for title in titles:
        page.locator("#at-methods").get_by_label(title, exact=True).check()


def explain(page: Page) -> None:
    page.locator("#at-explain").click()
    expect(page.locator("#at-status .at-done")).to_be_visible(timeout=LONG)


def pictures(page: Page) -> list[np.ndarray]:
    sources = page.locator("#at-gallery .at-card img").evaluate_all("all => all.map(image => image.src)")
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))) for source in sources]


def status(page: Page) -> Any:
    return page.locator("#at-status .at-status")


def test_a_visitor_uploads_a_photo_and_sees_why(page: Page, server: Any, cheetah: Path, tmp_path: Path) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(server.url)

    upload(page, cheetah)
    rows = page.locator("#at-predictions button")
    expect(rows).to_have_count(5, timeout=LONG)
    expect(rows.first).to_contain_text("cheetah")
    expect(rows.first).to_have_attribute("aria-pressed", "true")

    rows.nth(1).click()  # the second class as the target
    second = rows.nth(1).locator("span").nth(1).inner_text()
    expect(rows.nth(1)).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#at-target input")).to_have_value(re.compile(second))

    choose_methods(page, "Saliency", "Input × gradient", "Grad-CAM", "Layer-wise relevance propagation")
    explain(page)
    cards = page.locator("#at-gallery .at-card")
    expect(cards).to_have_count(4)
    expect(page.locator("#at-gallery h2")).to_have_text(f"Why {second}?")
    found = pictures(page)
    assert all(picture.std() > 5 for picture in found)
    assert len({picture.tobytes() for picture in found}) == 4
    for text in ("score of", "time", "When it misleads:", "completeness error", "Where the score went"):
        expect(page.locator("#at-gallery")).to_contain_text(text)
    expect(page.locator("#at-gallery .at-legend .at-ramp")).to_have_count(2)
    assert all(cards.locator("img").evaluate_all("all => all.map(image => image.alt.length > 20)"))

    with page.expect_download() as waiting:  # one click each
        page.locator("#at-zip").click()
    waiting.value.save_as(tmp_path / "all.zip")
    with page.expect_download() as waiting:
        page.locator("#at-gallery [data-action='saliency.json']").click()
    assert waiting.value.suggested_filename == "cheetah.saliency.json"
    assert "provenance" in json.loads(Path(waiting.value.path()).read_text())
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        names = archive.namelist()
    assert {Path(name).suffix for name in names} == {".html", ".png", ".safetensors", ".json"}

    outside = {urlsplit(url).hostname for url in requests if url.startswith("http")}
    assert outside == {"127.0.0.1"}


def test_the_display_changes_without_computing_again(page: Page, server: Any) -> None:
    page.goto(server.url)
    example(page)
    choose_methods(page, "Saliency", "Input × gradient")
    explain(page)
    before, told, old = pictures(page), status(page).inner_text(), _first(page)
    page.locator("#at-zip").scroll_into_view_if_needed()
    expect(page.locator("#at-view")).to_be_in_viewport()  # beside the end of the gallery
    page.locator("#at-view").get_by_label("map alone").check()
    page.wait_for_function("old => document.querySelector('#at-gallery img').src !== old", arg=old, timeout=LONG)
    assert not np.array_equal(pictures(page)[0], before[0])
    assert status(page).inner_text() == told

    alone = _first(page)
    slider = page.locator("#at-blur input[type=range]")
    slider.focus()
    slider.press("End")  # by keyboard
    _wait_for_another(page, alone)


def _first(page: Page) -> str:
    return str(page.locator("#at-gallery img").first.get_attribute("src"))


def _wait_for_another(page: Page, old: str) -> None:
    page.wait_for_function("old => document.querySelector('#at-gallery img').src !== old", arg=old, timeout=LONG)


def test_cancel_stops_a_long_run_by_keyboard_and_the_page_goes_on(page: Page, server: Any) -> None:
    page.goto(server.url)
    example(page)
    expect(page.locator("#at-photo img")).to_have_attribute("alt", re.compile("first guess: cheetah"))
    choose_methods(page, "Occlusion")
    page.locator("#at-settings > button").click()
    page.locator("#at-settings").get_by_role("button", name="Occlusion").click()
    stride = page.locator("#at-settings").get_by_label(re.compile("stride", re.I)).first
    stride.fill("1")
    stride.press("Tab")
    page.locator("#at-explain").press("Enter")
    expect(page.locator("#at-status progress")).to_be_visible(timeout=LONG)
    expect(page.locator("#at-cancel")).to_be_focused()  # it has the focus that the other one loses
    page.keyboard.press("Enter")
    expect(status(page)).to_contain_text("stopped", timeout=LONG)
    expect(page.locator("#at-explain")).to_be_focused()
    choose_methods(page, "Saliency")
    explain(page)
    expect(page.locator("#at-gallery .at-card")).to_have_count(1)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("words.png", b"this is no image", "'words.png' is not an image"),
        ("empty.png", b"", "empty"),
        ("bomb.png", None, "2,500,000,000 pixels, more than the limit of 64,000,000"),
    ],
)
def test_a_bad_upload_is_one_readable_sentence(
    page: Page, server: Any, tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    file = tmp_path / name
    file.write_bytes(png_bomb() if content is None else content)
    page.goto(server.url)
    page.wait_for_selector("#at-examples button")
    upload(page, file)
    expect(page.locator("#at-predictions .at-error")).to_contain_text(words, timeout=LONG)
    expect(page.locator("#at-photo img")).to_have_count(0)  # no broken picture
    assert "Traceback" not in page.content()
    assert str(server.cache) not in page.locator("body").inner_text()
    example(page)  # the page goes on


def test_without_its_photo_a_prediction_goes(page: Page, server: Any) -> None:
    page.goto(server.url)
    example(page)
    page.locator("#at-photo").get_by_role("button", name="Remove Image").click()
    expect(page.locator("#at-predictions button")).to_have_count(0)
    expect(page.locator("#at-target input")).to_have_value("")
    page.locator("#at-explain").click()
    expect(status(page)).to_contain_text("choose a photo first")


def test_photos_are_pasted_and_dropped_anywhere_and_replaced(page: Page, server: Any, cheetah: Path) -> None:
    page.goto(server.url + "?target=288")
    expect(page.locator("#at-target input")).to_have_value("leopard (288)", timeout=LONG)
    hand_over(page, "paste", "clipboardData", cheetah.name, cheetah.read_bytes())
    chosen = page.locator("#at-predictions [aria-pressed=true]")
    expect(chosen).to_contain_text("leopard", timeout=LONG)  # the link's target outlives the first photo
    tiff = io.BytesIO()
    Image.open(cheetah).resize((64, 64)).save(tiff, "TIFF")
    hand_over(page, "drop", "dataTransfer", "small.tif", tiff.getvalue())
    expect(page.locator("#at-photo img")).to_have_attribute("src", re.compile("small.png$"), timeout=LONG)
    page.wait_for_function("document.querySelector('#at-photo img').naturalWidth === 64")
    hand_over(page, "drop", "dataTransfer", "big.png", bytes(2**20 + 1))
    expect(page.locator("body")).to_contain_text("exceed the maximum allowed size", timeout=LONG)
    expect(page.locator("#at-predictions button")).to_have_count(0)
    page.wait_for_timeout(0)  # lets gradio's own rejected promise arrive


def hand_over(page: Page, kind: str, field: str, name: str, content: bytes) -> None:
    page.evaluate(
        """([kind, field, name, content]) => {
          const given = new DataTransfer();
          const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
          given.items.add(new File([bytes], name, {type: 'image/' + name.split('.').pop()}));
          const event = kind === 'drop' ? DragEvent : ClipboardEvent;
          document.body.dispatchEvent(new event(kind, {[field]: given, bubbles: true, cancelable: true}));
        }""",
        [kind, field, name, base64.b64encode(content).decode()],
    )


def test_a_list_is_searched_by_typing_and_closes_behind_the_tab_key(page: Page, server: Any) -> None:
    page.goto(server.url)
    example(page)
    target = page.locator("#at-target input")
    target.click()
    page.keyboard.type("teapo", delay=20)
    expect(page.locator("#at-target [role=option]")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(target).to_have_value("teapot (849)")
    page.keyboard.press("Tab")
    expect(page.locator("[role=option]")).to_have_count(0)


def png_bomb() -> bytes:
    """50,000 × 50,000 pixels in a few hundred bytes: header only, which is all that may be read."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_link_restores_the_settings(page: Page, server: Any) -> None:
    page.goto(
        server.url + "?photo=lion&model=squeezenet1_1&methods=saliency%2Clrp&target=282&versus=281&by=maps"
        "&opacity=0.35&scale=own&view=map&lrp.preset=epsilon_plus&palette=purple%E2%80%93orange"
    )
    expect(page.locator("#at-target input")).to_have_value("tiger cat (282)", timeout=LONG)
    expect(page.locator("#at-versus input")).to_have_value("tabby (281)")
    expect(page.locator("#at-predictions button").first).to_contain_text("lion")
    assert page.locator("#at-methods input:checked").count() == 2
    explain(page)
    expect(page.locator("#at-gallery")).to_contain_text("epsilon_plus")
    expect(page.locator("#at-opacity input[type=range]")).to_have_value("0.35")
    expect(page.locator("#at-view").get_by_label("map alone")).to_be_checked()
    expect(page.locator("#at-gallery h2")).to_have_text("Why tiger cat rather than tabby?")

    page.locator("#at-share").click()
    link = page.locator("#at-link textarea, #at-link input").first
    expect(link).to_have_value(re.compile("photo=lion.*lrp.preset=epsilon_plus"))
    assert "target=282" in page.url


def test_who_is_quicker_than_a_link_keeps_the_photo(page: Page, server: Any, cheetah: Path) -> None:
    page.goto(server.url + "?model=efficientnet-lite0&methods=saliency")
    upload(page, cheetah)
    expect(page.locator("#at-model input")).to_have_value("efficientnet-lite0", timeout=LONG)
    expect(page.locator("#at-predictions button").first).to_contain_text("cheetah", timeout=LONG)
    explain(page)
    expect(page.locator("#at-gallery .at-card")).to_have_count(1)


def test_a_link_that_asks_for_nonsense_says_so(page: Page, server: Any) -> None:
    page.goto(server.url + "?methods=nothing%3Cscript%3E&target=99999")
    expect(page.locator("#at-status .at-error")).to_contain_text("not on offer here: nothing<script>", timeout=LONG)


def test_an_ascent_shows_before_and_after(page: Page, server: Any) -> None:
    page.goto(server.url + "?photo=cheetah&methods=excitation_pullback&excitation_pullback.steps=2")
    expect(page.locator("#at-predictions button")).to_have_count(5, timeout=LONG)
    explain(page)
    expect(page.locator("#at-slider img")).to_have_count(2)


def test_a_phone_and_a_keyboard_are_enough(browser: Browser, server: Any) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True)
    page = context.new_page()
    page.goto(server.url)
    page.wait_for_selector("#at-examples button")
    button = page.locator("#at-examples button").nth(1)
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#at-predictions button")).to_have_count(5, timeout=LONG)
    page.locator("#at-predictions button").nth(2).focus()
    page.keyboard.press("Space")
    expect(page.locator("#at-predictions button").nth(2)).to_have_attribute("aria-pressed", "true")
    choose_methods(page, "Saliency", "Grad-CAM")
    explain(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input:not([type=file]):not([type=hidden]), select, textarea')]"
        ".filter(e => e.offsetParent && !(e.labels && e.labels.length) && !e.getAttribute('aria-label')"
        " && !e.getAttribute('aria-labelledby') && !e.title && !e.textContent.trim()).map(e => e.outerHTML)"
    )
    assert unnamed == []
    context.close()
