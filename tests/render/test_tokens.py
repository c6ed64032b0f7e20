"""Tokens as spans, pictures and figures; tokens are anybody's text."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attrib.attribution import Attribution
from attrib.errors import UnknownName
from attrib.render import Display, Entry, cards, fragment, rather_than, standalone, triangle
from attrib.render.figure import figure
from attrib.render.scale import PALETTES
from attrib.render.token_picture import captioned, token_picture
from attrib.render.tokens import (
    Piece,
    direction,
    ink,
    ledger_bar,
    pieces,
    readable,
    spans,
    token_scales,
)

Made = Callable[..., Attribution]
HOSTILE = (
    "<script>alert(1)</script>", '" onmouseover="alert(1)', "' style='position:fixed", "</p></article><h1>",
    "{{ 7 * 7 }}", "{% raw %}", "&lt;b&gt;", "-->", "</style>", "javascript:alert(1)", "\x00\x08\x1b[31m", "\ud83d",
    "\udc00\ud800", "\u202etxt.exe", "\u2066\u200f", "e\u0301\u0327", "\u0301", "👩‍👩‍👧", "\u200d", "\ufeff", "مرحبا",
    "中文",
    "\n", "\t", " ", "", "\u2028", "$x^2$", "\\", "`", "x" * 300,
)  # fmt: skip


@pytest.fixture
def text(made: Made) -> Made:
    def make(texts: tuple[str, ...] = ("[CLS]", "not", " un", "likely", "[SEP]"), **changes: Any) -> Attribution:
        values = torch.randn(1, len(texts), generator=torch.Generator().manual_seed(3))
        fields = {"values": values, "kind": "tokens", "pictures": None, "token_texts": (texts,)}
        return made(**{**fields, **changes})

    return make


class Page(HTMLParser):
    """Tags with their attributes, and the text of each token's span."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tokens: list[str] = []
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = "at-token" in (dict(attrs).get("class") or "").split()
        if self._inside:
            self.tokens.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.tokens[-1] += data

    @property
    def token_attributes(self) -> list[dict[str, str | None]]:
        return [a for _, a in self.tags if "at-token" in (a.get("class") or "").split()]


@pytest.mark.parametrize("whole_words", [False, True])
def test_no_token_becomes_markup(text: Made, whole_words: bool, tmp_path: Path) -> None:
    result = text(HOSTILE, words=(tuple(range(len(HOSTILE))),), target=[{"kind": "logit", "label": HOSTILE[0]}],
                  notes=(HOSTILE[1], "\ud800"))  # fmt: skip
    usual = Page(standalone([Entry(text(("a",) * len(HOSTILE), notes=("x", "y")))]))
    display = Display(whole_words=whole_words)
    for page in (standalone([Entry(result)], display), cards([Entry(result)], display), fragment(result, display)):
        (tmp_path / "page.html").write_text(page, encoding="utf-8")
        parsed = Page(page)
        assert {name for name, _ in parsed.tags} <= {name for name, _ in usual.tags} | {"br"}
        assert {key for _, a in parsed.tags for key in a} <= {key for _, a in usual.tags for key in a}
        assert parsed.tokens == [readable(token) for token in HOSTILE]
        for attributes, token in zip(parsed.token_attributes, HOSTILE, strict=True):
            assert str(attributes["title"]).startswith(readable(token))
            assert re.fullmatch(r"background:#[0-9a-f]{6};color:#(000|fff)", str(attributes["style"]))


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" not", " not"), ("  ", "␣␣"), ("\n", "↵"), ("a\tb", "a⇥b"), ("", "⋯"), ("\x00\x1b", "␀␛"), ("\x7f", "␡"),
        ("\ud83d", "\ufffd"), ("\u0301a", "◌\u0301a"), ("e\u0301", "e\u0301"), ("\u202eexe", "‹RLO›exe"),
        ("👩‍👧", "👩‍👧"), ("\u200d", "‹ZWJ›"), ("\u2028", "‹U+2028›"), ("مرحبا", "مرحبا"), ("中", "中"),
        ("\x9b", "‹U+009B›"),
        ("\u2066x\u2069", "‹LRI›x‹PDI›"), ("\xad", "‹U+00AD›"),
    ],
)  # fmt: skip
def test_what_cannot_be_seen_becomes_a_sign(token: str, shown: str) -> None:
    assert readable(token) == shown


def test_pieces_of_a_word_add_up(text: Made) -> None:
    result = text(words=((None, 0, 1, 1, None),))
    whole = pieces(result, 0, Display(whole_words=True))
    assert [p.text for p in whole] == ["[CLS]", "not", " unlikely", "[SEP]"]
    assert whole[2].value == pytest.approx(float(result.values[0, 2:4].sum()))
    assert [p.special for p in whole] == [True, False, False, True]
    assert len(pieces(result, 0, Display())) == 5


def test_words_of_a_tokenizer_without_spaces_are_set_apart(text: Made) -> None:
    result = text(("[CLS]", "not", "un", "likely", "."), words=((None, 0, 1, 1, 2),))
    assert [p.gap for p in pieces(result, 0, Display())] == [False, True, True, False, False]
    assert "</span> <span" in fragment(result)
    assert not any(p.gap for p in pieces(text(words=((None, 0, 1, 1, None),)), 0, Display()))


def test_special_tokens_stay_apart_and_equal_words_that_are_not_neighbours_too(text: Made) -> None:
    result = text(("<s>", "<s>", "a", "b", "a"), words=((None, None, 0, 1, 0),))
    assert len(pieces(result, 0, Display(whole_words=True))) == 5


def test_padding_beyond_the_texts_is_not_shown(text: Made) -> None:
    result = text(values=torch.ones(1, 9))
    assert len(pieces(result, 0, Display())) == 5


def test_content_and_position_are_shown_apart_on_one_scale(text: Made) -> None:
    parts = {"content": torch.tensor([[0.0, 1, 0, 0, 0]]), "position": torch.tensor([[0.0, 0, -4, 0, 0]])}
    result = text(values=parts["content"] + parts["position"], parts=parts)
    found = {part: Page(cards([Entry(result)], Display(part=part))) for part in ("both", "content", "position")}
    values = {part: [a["data-value"] for a in page.token_attributes] for part, page in found.items()}
    assert values["content"][1:3] == ["+1 (+25 %)", "0 (0 %)"]
    assert values["position"][1:3] == ["0 (0 %)", "−4 (−100 %)"]
    assert values["both"][1:3] == ["+1 (+25 %)", "−4 (−100 %)"]
    assert "Shown: position alone" in cards([Entry(result)], Display(part="position"))
    assert "does not tell content and position apart" in cards([Entry(text())], Display(part="position"))
    with pytest.raises(UnknownName, match="part"):
        Display(part="nothing")


def test_special_tokens_do_not_set_the_scale(text: Made) -> None:
    result = text(values=torch.tensor([[50.0, 1, -2, 0, 0]]), words=((None, 0, 1, 1, None),))
    (scale,) = token_scales([(result, 0)], Display())
    assert scale.anchor == ("100 %", 2.0)
    only = text(("[CLS]",), values=torch.tensor([[50.0]]), words=((None,),))
    assert token_scales([(only, 0)], Display())[0].anchor == ("100 %", 50.0)


def test_raw_values_share_their_limit(text: Made) -> None:
    first, second = (text(values=torch.full((1, 5), v)) for v in (1.0, 8.0))
    assert {s.limit for s in token_scales([(first, 0), (second, 0)], Display(how="raw"))} == {8.0}
    assert [s.limit for s in token_scales([(first, 0), (second, 0)], Display(how="own"))] == [1.0, 8.0]


@pytest.mark.parametrize("palette", PALETTES)
@pytest.mark.parametrize("signed", [True, False])
def test_every_colour_can_be_read(text: Made, palette: str, signed: bool) -> None:
    (scale,) = token_scales([(text(signed=signed), 0)], Display(palette=palette))
    for back in scale.table.tolist():
        light, dark = sorted((_luminance(back), 1.0 if ink(back) == "#fff" else 0.0), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def _luminance(colour: list[int]) -> float:
    parts = [c / 255 / 12.92 if c / 255 <= 0.03928 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_numbers_that_are_none_are_said(text: Made) -> None:
    result = text(values=torch.tensor([[0.0, float("nan"), 1, -1, float("inf")]]))
    page = fragment(result)
    assert page.count('data-value="not a number"') == 2
    assert "not a number" in page
    assert "all zero" in fragment(text(values=torch.zeros(1, 5)))


def test_values_are_there_on_hover_on_focus_and_for_who_cannot_see(text: Made) -> None:
    page = fragment(text(words=((None, 0, 1, 1, None),)))
    for attributes in Page(page).token_attributes:
        assert attributes["tabindex"] == "0"
        assert attributes["title"] == attributes["aria-label"]
        assert str(attributes["data-value"]) in str(attributes["title"])
    assert "strongest are" in page


def test_text_that_runs_right_to_left_is_laid_out_so(text: Made) -> None:
    assert direction(("مرحبا", " ok")) == "rtl"
    assert direction(("hello", " مر")) == "ltr"
    assert 'dir="rtl"' in fragment(text(("مرحبا", " بكم", " في")))


def test_the_ledger_is_a_bar_of_all_magnitudes(text: Made) -> None:
    amounts = {"input": 2.0, "bias": -0.5, "softmax remainder": 1.5}
    bar = ledger_bar(list(amounts.items()))
    assert [float(s["width"]) for s in bar] == [50.0, 12.5, 37.5]
    assert [s["negative"] for s in bar] == [False, True, False]
    page = cards([Entry(text(ledger={k: torch.tensor([v]) for k, v in amounts.items()}))])
    assert 'title="softmax remainder: 1.5"' in page
    assert "−0.5" in page
    hostile = cards([Entry(text(ledger={'<b a="x">': torch.tensor([1.0]), "y": torch.tensor([float("nan")])}))])
    assert "b" not in {name for name, _ in Page(hostile).tags}


def test_the_legend_speaks_of_tokens(text: Made) -> None:
    both = cards([Entry(text()), Entry(text(signed=False))])
    assert both.count("at-ramp") == 2
    assert "strongest word or token" in both
    assert "pixels" not in both


def test_a_picture_shows_every_colour_and_wraps(text: Made) -> None:
    shown = [Piece(f" word{i}", (-1.0) ** i) for i in range(60)]
    (scale,) = token_scales([(text(values=torch.tensor([[1.0, -1, 0, 0, 0]])), 0)], Display())
    picture = np.asarray(token_picture(shown, scale))
    assert picture.shape[1] == 900
    assert picture.shape[0] > 100
    colours = {tuple(c) for c in picture.reshape(-1, 3).tolist()}
    assert {tuple(c) for c in scale.colour(np.array([1.0, -1.0])).tolist()} <= colours
    assert captioned(shown, scale, "LRP").height > picture.shape[0]


def test_a_very_long_text_has_an_end(text: Made) -> None:
    (scale,) = token_scales([(text(), 0)], Display())
    assert token_picture([Piece("wide " * 20, 1.0)] * 500, scale).height < 15_000


@pytest.mark.filterwarnings("error")
def test_a_figure_takes_any_token(text: Made) -> None:
    result = text(HOSTILE, target=[{"kind": "logit", "label": "$\\frac{"}])
    figure(result).draw_without_rendering()
    assert len(text().plot().axes) == 2
    figure(text(("مرحبا", " بكم"))).draw_without_rendering()


def test_spans_of_newlines_end_their_line() -> None:
    from attrib.render.tokens import TokenScale

    assert [s["breaks"] for s in spans([Piece("a", 1), Piece("\n", 0)], TokenScale(1.0, True, "blue–red"))] == [
        False,
        True,
    ]


def test_a_saved_result_renders_like_the_original(text: Made, tmp_path: Path) -> None:
    result = text(words=((None, 0, 1, 1, None),), parts={"content": torch.ones(1, 5), "position": torch.zeros(1, 5)})
    assert fragment(Attribution.load(result.save(tmp_path))) == fragment(result)


def test_a_leading_space_stands_before_its_token_and_other_white_space_stays_in_it(text: Made) -> None:
    result = text(("When", " Mary", "  b", " ", "\n"))
    shown = spans(pieces(result, 0, Display()), token_scales([(result, 0)], Display())[0])
    assert [(s["text"], s["gap"]) for s in shown] == [
        ("When", False), ("Mary", True), (" b", True), ("␣", False), ("↵", False),
    ]  # fmt: skip


def test_a_contrast_that_all_generated_tokens_share_is_told_once(text: Made) -> None:
    values, texts = torch.zeros(2, 2), (("a",), ("a", " b"))
    shared = [{"label": " b", "versus_label": " <i>"}, {"label": " c", "versus_label": " <i>"}]
    own = [shared[0], {"label": " c", "versus_label": " e"}]
    told, apart = (text(("a", " b"), values=values, token_texts=texts, target=target) for target in (shared, own))
    assert rather_than(told) == "rather than <i>" and rather_than(apart) == ""
    assert "<caption>Saliency: each token rather than &lt;i&gt;</caption>" in triangle(told, Display(), "Saliency")
    assert "rather than" not in str(triangle(told, Display(), "Saliency")).split("</caption>")[1]
    assert "c rather than  e" in triangle(apart, Display(), "Saliency")


def test_of_a_long_text_the_strongest_words_are_told(text: Made) -> None:
    values = torch.zeros(1, 80)
    values[0, 70] = -2.5
    long = text(tuple(f" w{i}" for i in range(80)), values=values)
    assert "Strongest: w70 −2.5." in standalone(long)
    assert "Strongest:" not in standalone(text())
