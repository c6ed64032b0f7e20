from urllib.parse import parse_qsl

import pytest

from app import links
from app.displays import USUAL
from app.links import View
from attrib.render import Display

MODELS = ("squeezenet1_1", "efficientnet-lite0")


def back(query: str) -> tuple[View, list[str]]:
    return links.from_query(dict(parse_qsl(query)), MODELS)


def test_a_link_comes_back_as_it_went() -> None:
    view = View(
        photo="cheetah",
        model="squeezenet1_1",
        methods=("lrp", "saliency"),
        target=293,
        versus=281,
        versus_by="maps",
        display=Display(0.35, "purple–orange", "own", 97.5, True, 2.5),
        settings={"lrp": {"preset": "epsilon_plus"}},
    )
    assert back(links.to_query(view)) == (view, [])


def test_defaults_are_left_out() -> None:
    assert links.to_query(View()) == ""
    assert back("") == (View(), [])
    assert View().display == USUAL


@pytest.mark.parametrize(
    "query",
    [
        "photo=../../etc/passwd", "model=hf:evil/model", "methods=saliency,nothing", "target=-1", "target=1e3",
        "versus=999999999999", "opacity=2", "opacity=nan", "clip=x", "palette=jet", "scale=x", "by=x", "smooth=99",
        "lrp.preset=none", "lrp.nothing=1",
    ],
)  # fmt: skip
def test_what_a_link_asks_for_in_vain_is_said(query: str) -> None:
    view, problems = back(query)
    assert len(problems) == 1
    assert query.split("=")[0].split(".")[-1].split("s")[0] in problems[0]
    assert view.photo is None
    assert view.target is None
    assert view.display == USUAL


def test_unknown_parameters_of_others_are_no_business_of_ours() -> None:
    assert back("utm_source=x&__theme=dark&a.b=c") == (View(), [])
