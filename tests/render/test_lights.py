"""The four lights as markup: words before colours, curves as plots, and nothing of a text as markup."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from attrib.attribution import Attribution
from attrib.metrics.evidence import ACCOUNTS, BETTER, CLASS, WEIGHTS, Light
from attrib.render import Check, Entry, cards, described, headline, standalone

Made = Callable[..., Attribution]
HOSTILE = '"><script>alert(1)</script>'
AT, CURVE = (0.0, 0.5, 1.0), (0.9, 0.1, 0.0)
CURVES = {
    "deletion": CURVE,
    "insertion": CURVE[::-1],
    "deletion of random maps": (0.9, 0.6, 0.0),
    "insertion of random maps": (0.0, 0.3, 0.9),
}
LIGHTS = (
    Light(ACCOUNTS, "does not apply", "No claim."),
    Light(BETTER, "passes", "Insertion less deletion is 0.70.", 0.7, 0.1, at=AT, curves=CURVES, axis="share"),
    Light(WEIGHTS, "fails", "Alike.", 0.9, 0.5, at=AT, curves={"rank correlation": (0.9, 0.8, -0.1)}, axis="layers"),
    Light(CLASS, "not checked", "Whether it changes.", cost="1 forward"),
)


def entry(result: Attribution, *lights: Light, **changes: Any) -> Entry:
    return Entry(result, title="One", lights=lights or LIGHTS, **changes)


def test_a_verdict_is_a_word_and_a_shape_not_a_colour_alone(made: Made) -> None:
    page = cards([entry(made())])
    heard = [
        " ".join(re.sub("<.*?>", " ", row).split()) for row in re.findall(r"<summary>(.*?)</summary>", page, re.DOTALL)
    ]
    for said in (
        f"– {ACCOUNTS} : does not apply", f"✓ {BETTER} : passes", f"✕ {WEIGHTS} : fails", f"? {CLASS} : not checked",
    ):  # fmt: skip
        assert said in heard
    assert "This map fails 1 of 4 checks: it hardly depends on the weights. Not checked yet: 1 of 4." in page
    assert "Checking it costs 1 forward." in page
    assert page.count("<button") == 0


@pytest.mark.parametrize(
    ("verdicts", "kind", "words"),
    [
        (("passes",) * 4, "passes", "passes every check that applies"),
        (("does not apply", "not checked", "not checked", "not checked"), "not-checked", "Not checked yet: 3 of 4."),
        (("fails", "passes", "fails", "fails"), "fails", "3 of 4 checks: it leaves part of the score out, hardly"),
    ],
)
def test_the_headline_sums_up(verdicts: tuple[Any, ...], kind: str, words: str) -> None:
    found = headline([replace(light, verdict=v) for light, v in zip(LIGHTS, verdicts, strict=True)])
    assert found is not None
    assert found[0] == kind
    assert words in found[1]
    assert headline([]) is None


def test_curves_are_drawn_where_their_numbers_are(made: Made) -> None:
    page = cards([entry(made())])
    plots = re.findall(r'<svg class="at-plot".*?</svg>', page, re.DOTALL)
    assert len(plots) == 2
    lines = re.findall(r'<polyline class="(.*?)" points="(.*?)"', plots[0])
    assert [kind for kind, _ in lines] == ["at-line-0", "at-line-1", "at-line-0 at-dashed", "at-line-1 at-dashed"]
    assert lines[0][1] == "0.0,0.0 90.0,74.7 180.0,84.0"  # 0.9 at the top, 0 at the bottom
    assert 'aria-label="deletion: from 0.9 to 0; insertion: from 0 to 0.9' in plots[0]
    assert "rank correlation: from 0.9 to −0.1" in plots[1]
    bound = re.search(r'class="at-bound" d="M0 ([\d.]+)H180"', plots[1])
    assert bound is not None
    assert float(bound[1]) == pytest.approx(84 * (0.9 - 0.5) / 1.0, abs=0.06)


def test_curves_have_their_colours_in_whatever_order_they_come(made: Made) -> None:
    shuffled = replace(LIGHTS[1], curves=dict(sorted(CURVES.items())))  # as a report's journal keeps them
    assert cards([entry(made(), shuffled)]) == cards([entry(made(), LIGHTS[1])])


def test_a_curve_without_numbers_is_no_plot(made: Made) -> None:
    broken = replace(LIGHTS[1], curves={"deletion": (float("nan"),) * 3})
    assert "<svg" not in cards([entry(made(), broken)])


def test_the_other_map_stands_beside_the_real_one(made: Made) -> None:
    other = np.random.default_rng(1).normal(size=(32, 40))
    light = replace(LIGHTS[2], maps={"with random weights": other})
    pair = re.findall(r"<figure>.*?</figure>", cards([entry(made(), light)]), re.DOTALL)
    assert [re.findall(r"<figcaption>(.*?)<", each)[0] for each in pair] == ["this map", "with random weights"]
    first, second = (re.findall(r'src="(data:image/jpeg;base64,.*?)"', each)[0] for each in pair)
    assert first != second


def test_texts_are_compared_as_tokens_and_never_become_markup(made: Made) -> None:
    result = made(
        torch.tensor([[1.0, -2.0, 0.5]]), kind="tokens", pictures=None, token_texts=(("a", HOSTILE, "c"),),
        words=((0, 1, 2),), target=[{"kind": "logit", "index": 1, "label": HOSTILE}],
    )  # fmt: skip
    light = replace(LIGHTS[2], words=HOSTILE, axis=HOSTILE, maps={HOSTILE: np.array([0.0, 1.0, -1.0])})
    check = Check(HOSTILE, HOSTILE, HOSTILE)
    page = standalone([entry(result, light, check=check, evidence=((HOSTILE, HOSTILE),))], title=HOSTILE)
    assert "<script" not in page
    assert page.count("<figure>") == 2
    assert page.count('data-check="&#34;&gt;&lt;script&gt;') == 1


def test_numbers_that_describe_are_named() -> None:
    assert described({"sparseness": 0.5, "complexity": None}) == (("sparseness (Gini; 1: a single spot)", "0.5"),)
