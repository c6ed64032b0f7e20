"""What a reader opens: pages that hold hostile names as text, ask nobody for anything, and can be used by keyboard."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

import attrib
from attrib.reports import Report
from attrib.reports.closing import close_report
from attrib.reports.entry_files import stored_entry_files
from attrib.reports.index_page import render_index
from attrib.reports.pages import PER_PAGE, index_path, short
from attrib.reports.store import Store
from tests.app.tiny_text import classifier
from tests.reports.conftest import tiny_model, write_pictures

HOSTILE = [
    '"><img src=x onerror=pwned=1>.png',
    "a'b\"c&d <b>bold<b>.png",
    "new\nline\r.png",
    "{{7*7}}{% raw %}.png",
    "\u202egnp.exe.png",
    "صورة.png",
    "日本 語 🦊.png",
    "javascript:pwned=1.png",
]
TEXTS = [
    '<script>pwned=1</script> the film was "good"',
    "</script><svg onload=pwned=1> not good",
    "الفيلم good at all",
    "the food\nwas bad ]]> --> {{7*7}}",
    "x" * 7000,
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed report on hostile file names, one of which cannot be read."""
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder / "in", [*HOSTILE, "sub/plain.png"])
    (folder / "in" / "broken.png").write_bytes(b"<script>pwned=1</script>")
    model = tiny_model()
    model.labels = ("</script><script>pwned=1</script>", "dog", "=cmd|' /C calc'")
    return attrib.report(folder / "in", model, ["saliency", "lrp"], folder / "report").folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed report on hostile texts."""
    folder = tmp_path_factory.mktemp("texts")
    return attrib.report(TEXTS, classifier(), ["saliency", "lrp"], folder / "report").folder


def html_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.html"))


class Seen(HTMLParser):
    """The elements and attributes that a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


@pytest.mark.parametrize("kind", ["pictures", "texts"])
def test_names_and_texts_never_become_markup(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    for path in html_of(folder):
        seen = Seen(path.read_text())
        assert seen.tags.count("script") == (path.parent == folder and path.name.startswith("index"))
        assert not {"b", "object", "iframe", "link", "base", "form"} & set(seen.tags)
        assert not [name for name, _ in seen.attributes if name.startswith("on")]
        assert all(value.startswith("data:image/") for name, value in seen.attributes if name == "src")
        for name, value in seen.attributes:
            assert name != "href" or re.fullmatch(r"[#\w./-]*(#[\w-]+)?", value), value


@pytest.mark.parametrize("kind", ["pictures", "texts"])
def test_pages_run_nothing_and_ask_nobody(kind: str, browser: Browser, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    context = browser.new_context(offline=True)
    asked: list[str] = []
    said: list[str] = []
    context.on("request", lambda r: asked.append(r.url))
    page = context.new_page()
    page.on("console", lambda m: said.append(m.text))
    page.on("pageerror", lambda e: said.append(str(e)))
    for path in html_of(folder):
        page.goto(path.as_uri())
        assert page.evaluate("typeof pwned") == "undefined"
    context.close()
    assert not said
    own = {path.as_uri() for path in html_of(folder)}
    assert {url for url in asked if not url.startswith("data:")} <= own


def test_every_name_is_shown_and_leads_to_its_page(pictures: Path, browser: Browser) -> None:
    page = browser.new_page()
    page.goto((pictures / "index.html").as_uri())
    shown = page.locator("table.r-items td.r-name a").all_inner_texts()
    assert sorted(shown) == sorted(short(n) for n in [*HOSTILE, "broken.png", "sub/plain.png"])
    for link in page.locator("table.r-items td.r-name a").all():
        assert (pictures / str(link.get_attribute("href"))).is_file()
    page.close()


def test_what_failed_has_a_page_with_the_reason(pictures: Path) -> None:
    store = Store.open(pictures)
    (it, rows) = next((it, rows) for it, rows in store.entries() if it.name == "broken.png")
    page = (pictures / "items" / f"{it.item}.html").read_text()
    assert "Not computed:" in page and "broken.png" in page
    assert rows[0].error is not None and str(rows[0].error).split()[0] in page
    index = (pictures / "index.html").read_text()
    assert "1 item failed: " in index and 'data-state="failed"' in index


def test_long_texts_are_cut_and_that_is_said(texts: Path) -> None:
    long = next(it for it, _ in Store.open(texts).entries() if it.text == TEXTS[-1])
    page = (texts / "items" / f"{long.item}.html").read_text()
    assert "2000 more characters are not shown" in page


def test_the_table_sorts_and_filters_by_keyboard(pictures: Path, browser: Browser) -> None:
    page = browser.new_page()
    page.goto((pictures / "index.html").as_uri())
    head = page.get_by_role("columnheader", name="Probability")
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    values = cells(page, "td[data-label=Probability]", "data-value")
    numbers = [float(v) for v in values if v]
    assert numbers == sorted(numbers) and len(numbers) == 9 and values[-1] == ""  # what failed has none and is last
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    numbers = [float(v) for v in cells(page, "td[data-label=Probability]", "data-value") if v]
    assert numbers == sorted(numbers, reverse=True)
    page.get_by_label("Words in name").press_sequentially("LINE")
    assert page.locator("tbody tr:visible").count() == 1
    assert page.get_by_role("status").inner_text() == "1 of 10 on this page"
    page.get_by_label("Words in name").fill("")
    page.get_by_label("State").select_option("failed")
    assert page.locator("tbody tr:visible").count() == 1
    page.close()


def cells(page: Page, selector: str, attribute: str) -> list[str]:
    return [cell.get_attribute(attribute) or "" for cell in page.locator(f"tbody {selector}").all()]


def test_a_screen_reader_finds_names_and_landmarks(pictures: Path, browser: Browser) -> None:
    page = browser.new_page()
    for path in html_of(pictures)[:4]:
        page.goto(path.as_uri())
        assert page.get_by_role("main").count() == 1
        assert page.get_by_role("heading", level=1).count() == 1
        unnamed = "[...document.images].filter(i => !i.hasAttribute('alt')).length"
        assert page.evaluate(unnamed) == 0
        assert page.evaluate("document.documentElement.lang") == "en"
    page.close()


def test_pages_fit_a_phone_and_go_dark(pictures: Path, texts: Path, browser: Browser) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page = context.new_page()
    for path in [*html_of(pictures)[:3], *html_of(texts)]:
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert sum(map(int, re.findall(r"\d+", back)[:3])) < 120, back
    context.close()


def test_the_table_comes_in_pages() -> None:
    row = {
        "number": 1, "href": "items/a.html", "name": "a", "text": "", "thumbs": [], "words": [], "prediction": "cat",
        "probability": 0.5, "probability_value": "0.5", "explained": "cat", "agreement": "", "agreement_value": "",
        "state": "ok", "reason": "", "find": "a",
    }  # fmt: skip
    last = render_index(2, [row] * 50, 2 * PER_PAGE + 50, "Report").decode()
    assert "Items 401 to 450 of 450" in last
    assert re.findall(r'<a href="(index[^"]*)" aria-label="Page', last) == [index_path(0), index_path(1)]
    assert [index_path(n) for n in range(3)] == ["index.html", "index-2.html", "index-3.html"]
    middle = render_index(50, [row], 100 * PER_PAGE, "Report").decode()
    shown = re.findall(r'aria-label="Page (\d+)"', middle)
    assert shown == ["1", "49", "50", "52", "53", "100"]


def test_the_same_store_gives_the_same_bytes(pictures: Path, tmp_path: Path) -> None:
    again = shutil.copytree(pictures, tmp_path / "again")
    for path in (again / "items", again / "summaries"):
        shutil.rmtree(path)
    for name in ("index.html", "dataset.html", "report.pdf"):
        (again / name).unlink()
    close_report(Store.open(again))
    made = sorted(p.relative_to(pictures) for p in pictures.rglob("*") if p.suffix in (".html", ".pdf"))
    assert len(made) == 3 + 10
    for path in made:
        assert (again / path).read_bytes() == (pictures / path).read_bytes(), path


def test_entry_files_do_not_depend_on_others(pictures: Path) -> None:
    store = Store.open(pictures)
    for it, rows in store.entries():
        for path, content in stored_entry_files(store, it, rows).items():
            assert (pictures / path).read_bytes() == content


def test_one_more_method_is_in_every_page(make: Callable[..., Report], photos_of_noise: Path) -> None:
    make(photos_of_noise, methods=("saliency",))
    folder = make(photos_of_noise, methods=("saliency", "lrp")).folder
    pages = list((folder / "items").glob("*.html"))
    assert len(pages) == 7
    assert all('aria-label="Layer-wise relevance propagation"' in page.read_text() for page in pages)


def test_duplicates_share_a_page_and_count_once(make: Callable[..., Report], tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", ["a/same.png", "other.png"])
    (tmp_path / "in" / "b").mkdir()
    shutil.copy(tmp_path / "in" / "a" / "same.png", tmp_path / "in" / "b" / "same.png")
    store = Store.open(make(tmp_path / "in", targets=["item"]).folder)
    view = close_report(store)
    assert view.inputs == 3
    assert {sum(n for (s, _), n in view.classes.items() if s == series) for series in view.series} == {2}
    index = (store.folder / "index.html").read_text()
    assert "a/same.png" in index and "b/same.png" in index
    assert json.loads((store.folder / "manifest.json").read_text())["format"] == 1


def test_a_report_without_a_single_result_can_be_read(make: Callable[..., Report], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"nothing")
    folder = make(tmp_path / "in").folder
    assert "every item failed" in (folder / "dataset.html").read_text()
    assert (folder / "report.pdf").read_bytes().startswith(b"%PDF")


def test_thumbnails_are_small(pictures: Path) -> None:
    store = Store.open(pictures)
    for it, _ in store.entries():
        assert (pictures / "summaries" / f"{it.item}.safetensors").stat().st_size < 30_000
    assert (pictures / "index.html").stat().st_size < 10 * 15_000


def test_many_items_come_in_pages_and_in_one_table_for_searching(
    pictures: Path, tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(pictures, tmp_path / "again")
    for module in ("closing", "index_page", "item_page"):
        monkeypatch.setattr(f"attrib.reports.{module}.PER_PAGE", 4)
    close_report(Store.open(folder))
    tables = sorted(p.name for p in folder.glob("*.html"))
    assert tables == ["all.html", "dataset.html", "index-2.html", "index-3.html", "index.html"]
    counts = [(folder / name).read_text().count("<tr data-find") for name in tables]
    assert counts == [10, 0, 4, 2, 4]
    page = browser.new_page()
    page.goto((folder / "index-3.html").as_uri())
    page.get_by_role("link", name="All 10 items in one table").click()
    page.get_by_label("State").select_option("failed")
    page.locator("tbody tr:visible a").click()
    assert "Not computed:" in page.inner_text("main")
    page.close()
    monkeypatch.undo()
    close_report(Store.open(folder))
    assert sorted(p.name for p in folder.glob("*.html")) == ["dataset.html", "index.html"]
