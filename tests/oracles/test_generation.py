"""Explanations of what a model writes: token by token, stopped, and of what cannot be explained."""

from __future__ import annotations

import pytest
import torch
from text_subjects import model

import attrib
from attrib.errors import InputError, NotApplicable


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_generation_is_explained_token_by_token(family):
    subject = model(family)
    prompt = list(subject.encode("The film was").token_ids[0])
    new = attrib.explain_generation(subject, "The film was", "input_x_gradient", max_new_tokens=3)
    generated = [row["index"] for row in new.target]
    assert new.values.shape == (len(generated), len(prompt) + len(generated) - 1)
    for i, token in enumerate(generated):
        ids = prompt + generated[:i]
        alone = attrib.explain(subject, ids, "input_x_gradient")  # what is likeliest is what was generated
        assert alone.target[0]["index"] == token
        torch.testing.assert_close(new.values[i, : len(ids)], alone.values[0], rtol=1e-6, atol=1e-9)
        assert (new.values[i, len(ids) :] == 0).all()
    given = attrib.explain_generation(subject, "The film was", "lrp", generated, target=attrib.LogProb)
    assert [row["kind"] for row in given.target] == ["log_probability"] * len(generated)


def test_writing_stops_between_two_tokens():
    told: list[tuple[float, str]] = []

    def stop_at_the_third(fraction: float, message: str) -> None:
        told.append((fraction, message))
        if len(told) == 3:
            raise attrib.Cancelled("stopped")

    with pytest.raises(attrib.Cancelled):
        attrib.explain_generation(model("gpt2"), "The film was", max_new_tokens=6, on_progress=stop_at_the_third)
    assert told == [(0.0, "writing"), (0.5 / 6, "writing"), (1 / 6, "writing")]


def test_what_no_generation_can_be_explained_of():
    with pytest.raises(NotApplicable, match="does not generate"):
        attrib.explain_generation(model("bert"), "The film")
    with pytest.raises(InputError, match="no generated token"):
        attrib.explain_generation(model("gpt2"), "The film", "lrp", "")
    with pytest.raises(InputError, match="takes one"):
        attrib.explain_generation(model("gpt2"), ["The film", "was"], "lrp", " good")
