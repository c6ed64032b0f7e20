"""Integrated gradients over words: the path against the authors' steps written out, one token and word at a time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib.errors import InputError, UnknownName
from attrib.methods.discretized import refined, word_paths
from attrib.models.text import TextModel, wrap_text

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
import text_families

TEXT, SHORT = "The film was not good at all.", "wonderful music"


def model(family: str = "bert") -> TextModel:
    bert = family == "bert"
    tokenizer = text_families.word_piece() if bert else text_families.byte_level()
    return wrap_text(text_families.model(family, "classification" if bert else "next_token").double(), tokenizer)


def slow_monotone(word: list[float], before: list[float], base: list[float], steps: int) -> list[float]:
    moved = []
    for w, x, b in zip(word, before, base, strict=True):
        between = b >= w >= x or b <= w <= x
        moved.append(w if between else x - (x - b) / steps)
    return moved


def slow_path(vocabulary: Tensor, x: Tensor, base: Tensor, steps: int, neighbours: int) -> Tensor:
    """Sanyal & Ren 2021, greedy: anchors, each near the one before; then their monotone path."""
    taken = {i for i, v in enumerate(vocabulary) if torch.equal(v, x) or torch.equal(v, base)}
    anchors, word = [], x
    for _ in range(steps):
        near = sorted(range(len(vocabulary)), key=lambda i: float((vocabulary[i] - word).norm()))[:neighbours]
        best, least = None, float("inf")
        for i in near:
            moved = torch.tensor(slow_monotone(vocabulary[i].tolist(), word.tolist(), base.tolist(), steps))
            cost = float((vocabulary[i] - moved).norm())
            if i not in taken and cost < least:
                best, least = i, cost
        assert best is not None
        taken.add(best)
        anchors.append(best)
        word = vocabulary[best]
    points = [x]
    for i in anchors:
        points.append(torch.tensor(slow_monotone(vocabulary[i].tolist(), points[-1].tolist(), base.tolist(), steps)))
    return torch.stack([base, *reversed(points)])


def test_the_path_is_the_authors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attrib.methods.discretized.NEIGHBOURS", 9)
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        vocabulary = torch.randn(40, 5)
        x, base = vocabulary[[3, 8, 11]][None], torch.stack([vocabulary[0], torch.zeros(5), vocabulary[11]])[None]
        path = word_paths(vocabulary, x, base, 6)
        for token in (0, 1):
            torch.testing.assert_close(path[:, 0, token], slow_path(vocabulary, x[0, token], base[0, token], 6, 9))
    finally:
        torch.set_default_dtype(torch.float32)
    assert (path[:, 0, 2] == x[0, 2]).all()  # nothing to go to
    apart = path[1:] - path[:-1]
    assert (apart * (x - base)[None] >= 0).all()  # the path never turns back


def test_when_words_run_out_the_path_ends_at_the_baseline() -> None:
    vocabulary = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    path = word_paths(vocabulary, vocabulary[None, 2:], vocabulary[None, :1], 4)
    assert path[:, 0, 0].tolist() == [[0, 0], [0, 0], [0, 0], [0, 0], [1, 1], [2, 2]]


def test_refining_puts_a_point_between_every_two() -> None:
    path = torch.tensor([0.0, 1.0, 4.0])[:, None]
    assert refined(path)[:, 0].tolist() == [0.0, 0.5, 1.0, 2.5, 4.0]


@pytest.mark.parametrize("left", [False, True])
def test_values_are_the_sums_along_the_path(left: bool) -> None:
    subject = model("gpt2")
    e = subject.encode(SHORT)
    blank = subject.embeddings.weight[subject.tokenizer.pad_token_id].detach().expand_as(e.x)
    path = word_paths(subject.embeddings.weight.detach(), e.x, blank, 5)
    expected = torch.zeros_like(e.x)
    for k in range(len(path) - 1):
        points = [path[k]] if left else [path[k], path[k + 1]]
        for point in points:
            leaf = point.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(subject.module(inputs_embeds=leaf).logits[0, -1, 7], leaf)
            expected += (path[k + 1] - path[k]) * gradient / len(points)
    how = {"n_steps": 5, "baseline": "pad", "path": "discretized"} | ({"quadrature": "riemann_left"} if left else {})
    found = attrib.explain(subject, SHORT, attrib.IntegratedGradients(**how), 7)
    torch.testing.assert_close(found.values, expected.sum(2))


def test_a_tolerance_halves_the_steps() -> None:
    """The tolerance is a third of what the first steps leave, whatever vocabulary the tokenizer's trainer found."""
    subject = model()

    def explained(tolerance: float | None) -> attrib.Attribution:
        how = attrib.IntegratedGradients(8, quadrature="riemann_left", path="discretized", tolerance=tolerance)
        return attrib.explain(subject, TEXT, how, 1)

    few = explained(None)
    assert few.delta is not None and few.delta[0] != 0
    difference = float(few.values.sum() - few.delta[0])
    tolerance = abs(float(few.delta[0]) / difference) / 3
    fine = explained(tolerance)
    assert fine.delta is not None
    assert abs(fine.delta[0]) <= tolerance * abs(difference) * (1 + 1e-9)
    assert any(f"steps meet the tolerance of {tolerance:g}" in note for note in fine.notes)


def test_padding_and_special_tokens_get_nothing() -> None:
    subject, how = model(), attrib.IntegratedGradients(6, baseline="mask", path="discretized")
    together, alone = attrib.explain(subject, [TEXT, SHORT], how, 1), attrib.explain(subject, SHORT, how, 1)
    n = alone.values.shape[1]
    torch.testing.assert_close(together.values[1, :n], alone.values[0], rtol=1e-6, atol=1e-9)
    assert (together.values[1, n:] == 0).all() and (alone.values[0, [0, -1]] == 0).all()


def test_pictures_have_no_words() -> None:
    net = attrib.wrap(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)))
    with pytest.raises(InputError, match="which pictures have none of"):
        attrib.explain(net, torch.randn(1, 3, 2, 2), attrib.IntegratedGradients(path="discretized"))
    with pytest.raises(UnknownName, match="straight"):
        attrib.explain(net, torch.randn(1, 3, 2, 2), attrib.IntegratedGradients(path="strait"))
