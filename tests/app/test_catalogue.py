"""Which models may be asked for, and how many stay in memory."""

from __future__ import annotations

from typing import Any

import pytest

import attrib
from app.catalogue import MOST_TYPED, Catalogue

OFFERED = ("squeezenet1_1", "minilm-sentiment", "hf:*", "timm:res*")


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    monkeypatch.setattr(attrib, "load", lambda name: f"model {name}")
    return Catalogue(OFFERED)


def test_names_and_patterns_are_told_apart(catalogue: Catalogue) -> None:
    assert catalogue.names == ("squeezenet1_1", "minilm-sentiment")
    assert catalogue.of("image") == ("squeezenet1_1",)
    assert catalogue.open_to("image") == ("hf:*", "timm:res*")
    assert catalogue.open_to("text") == ("hf:*",)


def test_what_a_pattern_covers_may_be_typed(catalogue: Catalogue) -> None:
    assert catalogue.missing("hf:some/model")  # until it is loaded
    assert catalogue["hf:some/model"] == "model hf:some/model"
    assert not catalogue.missing("hf:some/model")
    assert not catalogue.missing("squeezenet1_1")


@pytest.mark.parametrize(
    "name", ["torchvision:vgg16", "timm:vgg16", "hf:", "hf", "x", "", None, 3, "hf:models/../secret", "hf:" + "x" * 600,
             "hf:a\nb"]
)  # fmt: skip
def test_what_it_does_not_cover_is_refused(catalogue: Catalogue, name: Any) -> None:
    assert name not in catalogue
    with pytest.raises(attrib.UnknownName):
        catalogue[name]


def test_typed_models_do_not_fill_the_memory(catalogue: Catalogue) -> None:
    for name in ("squeezenet1_1", *(f"hf:m{i}" for i in range(MOST_TYPED + 2))):
        catalogue[name]
    assert [catalogue.missing(f"hf:m{i}") for i in range(MOST_TYPED + 2)] == [True] * 2 + [False] * MOST_TYPED
    assert not catalogue.missing("squeezenet1_1")
