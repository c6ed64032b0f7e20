import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from attrib.attribution import Attribution
from attrib.coverage import Coverage
from attrib.errors import InputError
from attrib.render import Display, Entry, cards, fragment, standalone
from attrib.render.card import where
from attrib.render.figure import figure

Made = Callable[..., Attribution]
HOSTILE = '<script>alert("x")</script>'


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_a_page_asks_the_network_for_nothing(made: Made) -> None:
    page = standalone({"One": made(), "Two": made(signed=False)}, title="Why?")
    tags = Tags(page)
    assert not tags.named("script")
    assert not tags.named("link")
    assert "url(" not in page
    sources = [str(image["src"]) for image in tags.named("img")]
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.findall(r'(?:src|href)="(?!data:)', page)


def test_a_page_shows_pictures_that_are_not_blank(made: Made) -> None:
    source = str(Tags(standalone(made())).named("img")[-1]["src"])
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))))
    assert picture.std() > 5


def test_a_page_holds_numbers_provenance_ledger_and_notes(made: Made) -> None:
    result = made(
        ledger={"input": torch.tensor([2.0]), "biases": torch.tensor([0.5])},
        notes=("Take care.",),
        coverage=Coverage({"conv2d": 3}, {}, {"erf in head": 1}),
    )
    page = standalone([Entry(result, "LRP", "Always.", "R = 1", "Somebody 2000")], facts={"photo": "cat.jpg"})
    for text in ("2.5", "0.25 (10 %)", "biases", "0.5", "Take care.", "erf in head", "Always.", "R = 1",
                 "Somebody 2000", "ab" * 32, "cd" * 32, "float32", "cat.jpg", "steps"):  # fmt: skip
        assert text in page, text


@pytest.mark.parametrize("place", ["label", "note", "title", "coverage", "fact"])
def test_every_text_is_escaped(made: Made, place: str) -> None:
    result = made(
        target=[{"kind": "logit", "index": 1, "label": HOSTILE if place == "label" else "cat"}],
        notes=(HOSTILE,) if place == "note" else (),
        coverage=Coverage({}, {}, {HOSTILE: 1}) if place == "coverage" else None,
    )
    entry = Entry(result, HOSTILE if place == "title" else "LRP")
    for page in (standalone([entry], title="x", facts={"a": HOSTILE if place == "fact" else ""}), cards([entry])):
        assert not Tags(page).named("script")
    assert "&lt;script&gt;" in standalone([entry], facts={"a": HOSTILE if place == "fact" else ""})


def test_the_legend_has_one_bar_for_each_kind_of_map(made: Made) -> None:
    both = [Entry(made()), Entry(made(signed=False))]
    assert cards(both).count("at-ramp") == 2
    assert cards(both[:1]).count("at-ramp") == 1
    own = cards(both, Display(how="own"))
    assert 'class="at-legend"' not in own
    assert own.count("at-ramp") == 2  # then each card has its own


def test_pictures_are_described_in_words(made: Made) -> None:
    values = torch.zeros(1, 3, 30, 30)
    values[..., :8, 22:] = 1
    (image,) = Tags(cards([Entry(made(values), "Saliency")])).named("img")
    assert image["alt"] == "Saliency for cat: relevance most in the top right (100% of the total)"
    assert where(np.zeros((9, 9))) == "nowhere"


@pytest.mark.parametrize(("value", "words"), [(0.0, "all zero"), (float("nan"), "no number in the whole map")])
def test_empty_maps_are_said_to_be_empty(made: Made, value: float, words: str) -> None:
    assert words in cards([Entry(made(torch.full((1, 3, 8, 8), value)))])


def test_a_notebook_shows_at_most_eight_samples(made: Made) -> None:
    shown = fragment(made(torch.randn(11, 3, 8, 8)))
    assert len(Tags(shown).named("img")) == 8
    assert "3 more samples" in shown


def test_what_has_no_map_is_not_drawn_but_listed(made: Made) -> None:
    text = made(torch.randn(1, 6), kind="tokens", pictures=None)
    page = cards([Entry(made()), Entry(text, "Words")])
    assert "not a map over a picture" in page
    assert len(Tags(page).named("img")) == 1
    with pytest.raises(InputError, match="tokens"):
        figure(text)


def test_without_a_photo_the_map_stands_alone(made: Made) -> None:
    assert len(Tags(fragment(made(pictures=None))).named("img")) == 1


def test_a_figure_has_a_labelled_bar_for_every_row_and_leaves_pyplot_alone(made: Made) -> None:
    drawn = figure(made(torch.randn(2, 3, 16, 16)))
    assert len(drawn.axes) == 2 * 2 + 2
    assert any("relevance" in axis.get_ylabel() for axis in drawn.axes)
    drawn.draw_without_rendering()
    assert plt.get_fignums() == []


def test_a_saved_result_renders_like_the_original(made: Made, tmp_path: object) -> None:
    result = made(notes=("n",))
    loaded = Attribution.load(result.save(str(tmp_path)))
    assert fragment(loaded) == fragment(result)
    assert fragment(replace(result, notes=())) != fragment(result)


def test_the_first_sentence_of_when_it_misleads_is_in_sight(made: Made) -> None:
    def page(misleads: str) -> str:
        return cards([Entry(made(), misleads=misleads)])

    summary = "<summary><strong>When it misleads:</strong> See Nie et al. 2018.</summary><p>Twice. Always.</p>"
    assert summary in page("See Nie et al. 2018. Twice. Always.")
    assert "<p><strong>When it misleads:</strong> Never.</p>" in page("Never.")
    assert "misleads" not in page("")
