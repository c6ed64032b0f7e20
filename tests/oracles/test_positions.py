"""PA-LRP: content + position + what norms, biases and the softmax keep is the score, for positions of every kind."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from tiny_transformers import EXACT, FAMILIES, LAYERS, ROTARY, TOKENS, WIDTH, build, embeddings, explain, seeded
from torch import Tensor, nn
from torchvision.models import SwinTransformer, VisionTransformer

import attrib
from attrib.models.positions import position_sources
from attrib.rules.shadow import shadow

PRESETS = ["attn_lrp", "cp_lrp"]
TARGETS = [1, 0]
WITH_POSITIONS = [family for family in FAMILIES if family != "t5 encoder"]
LEARNED = ["bert", "roberta", "distilbert", "gpt2", "sinusoidal distilbert"]


def close(a: Tensor, b: Tensor, relative: float) -> bool:
    return bool((a - b).abs().max() <= relative * b.abs().max())


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", WITH_POSITIONS)
def test_the_identity_that_holds(family, attention, preset):
    found = explain(build(family, attention), embeddings(), TARGETS, preset=preset, positions=True)
    parts, kept = found.parts, {k: v for k, v in found.ledger.items() if k not in ("input", "position", "unaccounted")}
    assert found.coverage.uncovered == {} and set(kept) <= {"bias", "softmax remainder"}
    total = parts["content"].sum(1) + parts["position"].sum(1) + sum(kept.values())
    size = max(amounts.abs().max() for amounts in found.ledger.values())
    assert (total - found.score).abs().max() <= (1e-10 if family in EXACT else 1e-5) * size
    assert close(found.values, parts["content"] + parts["position"], 1e-12)
    assert close(parts["position_by_layer"].sum(1), parts["position"], 1e-12) or not parts["position"].any()
    reached = preset == "attn_lrp" or family in LEARNED
    assert bool(parts["position"].any()) == reached
    assert any("no relevance reaches the positions" in note for note in found.notes) == (not reached)
    assert any("experimental" in note for note in found.notes) == (family == "bloom")
    layers = LAYERS if reached and (family in ROTARY or family == "bloom") else 1
    assert parts["position_by_layer"].shape == (2, layers, TOKENS)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("family", LEARNED)
def test_learned_positions_share_with_their_token_exactly(family, preset):
    """A learned position is a summand of what its token is a summand of: both have one coefficient, R/a."""
    module, x = build(family), embeddings()
    found = explain(module, x, TARGETS, preset=preset, positions=True)
    plain = explain(module, x, TARGETS, preset=preset)
    coefficient = plain.values / x
    twin = shadow(module)
    with position_sources(twin, 2) as sources:
        twin(inputs_embeds=x)
    ((_, leaf),) = sources.leaves
    assert close(found.parts["position"], (leaf.detach() * coefficient).sum(2), 1e-9)
    assert close(found.parts["content"], plain.values.sum(2), 1e-12)


class OneRotation(nn.Module):
    """Attention with rotary positions and nothing else, whose q̃ and k̃ can be looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = RotatedAttention()

    def forward(self, inputs_embeds: Tensor) -> Tensor:
        angles = torch.outer(torch.arange(inputs_embeds.shape[1]), torch.tensor([1.0, 0.1])).double().repeat(1, 2)
        return self.inner(inputs_embeds, position_embeddings=(angles.cos()[None], angles.sin()[None]))


class RotatedAttention(nn.Module):
    seen: ClassVar[list[Tensor]] = []

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, 4, bias=False) for _ in range(3))

    def forward(self, x: Tensor, position_embeddings: tuple[Tensor, Tensor]) -> Tensor:
        cos, sin = position_embeddings
        rotated = []
        for t in (self.q(x), self.k(x)):
            rotated.append(t * cos + torch.cat((-t[..., 2:], t[..., :2]), -1) * sin)
            self.seen.append(rotated[-1])
            rotated[-1].retain_grad()
        return (torch.softmax(rotated[0] @ rotated[1].mT * 0.5, -1) @ self.v(x))[:, -1]


def test_rotary_positions_get_half_of_query_and_key():
    module, x = seeded(OneRotation()), embeddings()
    RotatedAttention.seen.clear()
    found = explain(module, x, TARGETS, preset="attn_lrp", positions=True)
    seen = RotatedAttention.seen
    assert len(seen) == 2
    halves = sum((t.detach() * t.grad).sum(2) / 2 for t in seen)
    assert halves.abs().max() > 1e-4
    assert close(found.parts["position"], halves, 1e-9)


def test_no_rotation_no_relevance_of_the_sine():
    """At position 0 sin = 0: whatever comes back, its relevance is 0, and cos has all."""
    from tiny_transformers import Stub

    from attrib.binding import BoundTarget
    from attrib.methods.base import Question
    from attrib.methods.propagation import Flow
    from attrib.rules.presets import ATTN_LRP

    module = build("llama", "eager")
    question = Question(
        Stub(module), shadow(module), embeddings(), BoundTarget("logit", positive=torch.tensor(TARGETS))
    )
    with position_sources(question.twin, 2) as sources:
        (flow,) = Flow.each(question, ATTN_LRP, sources.leaves)
    reached = sources.relevance(flow.sources, TOKENS)
    assert len(reached) == 2 * LAYERS
    cosines, sines = reached[::2], reached[1::2]
    for (_, cos), (_, sin) in zip(cosines, sines, strict=True):
        assert (sin[:, 0] == 0).all() and sin[:, 1:].abs().max() > 0 and cos[:, 0].abs().max() > 0


def picture(height: int = 16, width: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_vision_transformers_positions(preset):
    torch.manual_seed(0)
    model = attrib.wrap(seeded(VisionTransformer(16, 8, 2, 4, 32, 48, num_classes=3)))
    result = attrib.explain(model, picture(), attrib.LRP(preset=preset, positions=True), TARGETS)
    ledger, position = result.ledger, result.parts["position"]
    assert position.shape == (2, 5) and ledger["unaccounted"].abs().max() < 1e-10
    torch.testing.assert_close(torch.as_tensor(ledger["position"]), torch.as_tensor(position).sum(1))
    # each patch's position is spread over its pixels; the class token's has no pixels
    spread = torch.as_tensor(result.values) - torch.as_tensor(result.parts["content"])
    per_patch = spread.unfold(2, 8, 8).unfold(3, 8, 8).sum((1, 4, 5)).flatten(1)
    torch.testing.assert_close(per_patch, torch.as_tensor(position)[:, 1:])


class Wide(nn.Module):
    """Two rows of four patches, a token before them, learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 4, 8, 8), nn.Linear(4, 3)
        self.token, self.pos_embed = (nn.Parameter(torch.zeros(1, n, 4)) for n in (1, 9))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).mT
        return self.head((torch.cat((self.token.expand(len(x), -1, -1), tokens), 1) + self.pos_embed).mean(1))


def test_positions_of_a_picture_that_is_not_square():
    """Nine tokens are one and 2 × 4 here, and not 3 × 3."""
    result = attrib.explain(attrib.wrap(seeded(Wide())), picture(16, 32), attrib.LRP(positions=True), TARGETS)
    spread = torch.as_tensor(result.values) - torch.as_tensor(result.parts["content"])
    per_patch = spread.unfold(2, 8, 8).unfold(3, 8, 8).sum((1, 4, 5)).flatten(1)
    torch.testing.assert_close(per_patch, torch.as_tensor(result.parts["position"])[:, 1:])


def swin() -> nn.Module:
    return seeded(SwinTransformer([2, 2], 16, [2, 2], [2, 2], [2, 2], num_classes=3))


def test_a_model_without_such_positions_says_so():
    plain = seeded(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 3)))
    for module in (plain, swin()):
        with pytest.raises(attrib.NotApplicable, match="no position embedding"):
            attrib.explain(attrib.wrap(module), picture(), attrib.LRP(preset="attn_lrp", positions=True), TARGETS)


def test_t5s_relative_bias_is_no_source_and_says_so():
    with pytest.raises(attrib.NotApplicable, match="no position embedding"):
        explain(build("t5 encoder"), embeddings(), TARGETS, preset="attn_lrp", positions=True)


class OneHead(nn.Module):
    """Patches, positions, attention whose weights are constants to CP-LRP, and a sum; nothing has a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8, bias=False)
        self.pos_embed = nn.Parameter(torch.zeros(1, 4, 8))
        self.q, self.k, self.v, self.head = (nn.Linear(8, n, bias=False) for n in (8, 8, 8, 3))

    def tokens(self, x: Tensor) -> Tensor:
        return self.patches(x).flatten(2).mT + self.pos_embed

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x)
        q, k, v = (f(x)[:, None] for f in (self.q, self.k, self.v))
        return self.head((x + F.scaled_dot_product_attention(q, k, v)[:, 0]).sum(1))


@pytest.mark.parametrize(("value_path", "scale"), [("whole", 1.0), ("halved", 0.5)])
def test_the_value_path_whole_or_halved(value_path, scale):
    """Slowly: what reaches the tokens is their own way and `scale` of what attention gives the values."""
    module, x = seeded(OneHead()), picture()
    method = attrib.LRP(preset="cp_lrp", positions=True, value_path=value_path)
    result = attrib.explain(attrib.wrap(module), x, method, TARGETS)
    expected, lost = torch.zeros(2, 4, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for i, target in enumerate(TARGETS):
        t = module.tokens(x).detach()[i]
        q, k = module.q(t), module.k(t)
        weights = torch.softmax(q @ k.mT / 8**0.5, -1).detach()
        u = module.head.weight[target].detach()
        coefficient = u + scale * (weights.sum(0)[:, None] * (u @ module.v.weight.detach()))
        expected[i] = (module.pos_embed.detach()[0] * coefficient).sum(1)
        lost[i] = (1 - scale) * (weights @ module.v(t).detach() @ u).sum()
    torch.testing.assert_close(torch.as_tensor(result.parts["position"]), expected, rtol=1e-9, atol=1e-12)
    booked = torch.as_tensor(result.ledger.get("halved value path", torch.zeros(2)), dtype=torch.float64)
    torch.testing.assert_close(booked, lost, rtol=1e-9, atol=1e-12)
    assert result.ledger["unaccounted"].abs().max() < 1e-12 and bool(booked.any()) == (scale != 1)


def test_a_halved_value_path_is_the_reference_s_leak():
    """On a whole ViT: the identity holds for both, and the lost half stands in the ledger."""
    torch.manual_seed(0)
    model = attrib.wrap(seeded(VisionTransformer(16, 8, 2, 4, 32, 48, num_classes=3)))
    whole, halved = (
        attrib.explain(model, picture(), attrib.LRP(preset="cp_lrp", positions=True, value_path=path), TARGETS)
        for path in ("whole", "halved")
    )
    for result in (whole, halved):
        assert result.ledger["unaccounted"].abs().max() < 1e-10
    assert "halved value path" not in whole.ledger and halved.ledger["halved value path"].abs().min() > 1e-6
    assert not torch.allclose(torch.as_tensor(whole.values), torch.as_tensor(halved.values))


def test_where_a_value_path_cannot_be_halved():
    torch.manual_seed(0)
    model = attrib.wrap(seeded(VisionTransformer(16, 8, 2, 4, 32, 48, num_classes=3)))
    with pytest.raises(attrib.InputError, match="variant of cp_lrp"):
        attrib.explain(model, picture(), attrib.LRP(preset="attn_lrp", value_path="halved"), TARGETS)
    with pytest.raises(attrib.NotApplicable, match="attn_implementation='sdpa'"):
        explain(build("bert", "eager"), embeddings(), TARGETS, preset="cp_lrp", value_path="halved")


def sines(length: int, width: int) -> Tensor:
    angles = torch.arange(length)[:, None] / 10_000 ** (torch.arange(0, width, 2) / width)
    return torch.stack((angles.sin(), angles.cos()), 2).flatten(1).double()


class HandWritten(nn.Module):
    """A table of sines in a buffer of any name and shape, added to embeddings; then attention, read at the end."""

    def __init__(self, shape: str, start: int = 0) -> None:
        super().__init__()
        table = sines(12, WIDTH)
        self.register_buffer(
            "whatever", {"rows": table, "batch first": table[None], "batch second": table[:, None]}[shape]
        )
        self.q, self.k, self.v = (nn.Linear(WIDTH, 8, bias=False) for _ in range(3))
        self.shape, self.start = shape, start

    def forward(self, inputs_embeds: Tensor) -> Tensor:
        n = inputs_embeds.shape[1]
        rows = slice(self.start, self.start + n)
        if self.shape == "batch second":
            x = (inputs_embeds.transpose(0, 1) + self.whatever[rows]).transpose(0, 1)
        else:
            x = inputs_embeds + (self.whatever[:, rows] if self.shape == "batch first" else self.whatever[rows])
        q, k, v = (f(x)[:, None] for f in (self.q, self.k, self.v))
        return F.scaled_dot_product_attention(q, k, v)[:, 0, -1]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("shape", ["rows", "batch first", "batch second"])
def test_sines_written_by_hand(shape, start, preset):
    module, x = seeded(HandWritten(shape, start)), embeddings()
    found = explain(module, x, TARGETS, preset=preset, positions=True)
    coefficient = explain(module, x, TARGETS, preset=preset).values / x
    table = sines(12, WIDTH)[start : start + TOKENS]
    torch.testing.assert_close(found.parts["position"], (table * coefficient).sum(2), rtol=1e-9, atol=1e-12)
    total = found.parts["content"].sum(1) + found.parts["position"].sum(1)
    total = total + sum(v for k, v in found.ledger.items() if k not in ("input", "position", "unaccounted"))
    torch.testing.assert_close(total, found.score, rtol=1e-9, atol=1e-12)
