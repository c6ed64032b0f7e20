"""Occlusion and KernelSHAP against plain loops and exact Shapley values."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from tiny_nets import Twice, pictures, rectified, wrapped

import attrib
from attrib.errors import InputError, UnknownName
from attrib.methods.kernel import KernelSHAP
from attrib.methods.occlusion import Occlusion
from attrib.methods.segments import grid, superpixels
from attrib.methods.shapley import coalitions


def logits(model, x):
    out = model.module(x)
    return (out["logits"] if isinstance(out, dict) else out).detach()


def plain_occlusion(model, x, window, stride, blank, target):
    """Every pixel: the mean drop over the windows that cover it."""
    height, width = x.shape[2:]
    total, cover = torch.zeros(len(x), height, width, dtype=x.dtype), torch.zeros(height, width, dtype=x.dtype)
    whole = logits(model, x)[:, target]
    top = 0
    while True:
        left = 0
        while True:
            hidden = x.clone()
            hidden[:, :, top : top + window, left : left + window] = blank[
                :, :, top : top + window, left : left + window
            ]
            drop = whole - logits(model, hidden)[:, target]
            total[:, top : top + window, left : left + window] += drop[:, None, None]
            cover[top : top + window, left : left + window] += 1
            if left + window >= width:
                break
            left += stride
        if top + window >= height:
            break
        top += stride
    return (total / cover)[:, None].expand_as(x)


@pytest.mark.parametrize(("window", "stride"), [(4, 2), (3, 2), (5, 5), (8, 1), (1, 1)])
@pytest.mark.parametrize("net", [rectified, Twice])
def test_occlusion_equals_the_plain_loop(window, stride, net):
    x, blank = pictures(2), pictures(2, seed=7)
    model = wrapped(net(), x)
    result = attrib.explain(model, x, Occlusion(window, stride, blank), 2)
    torch.testing.assert_close(result.values, plain_occlusion(model, x, window, stride, blank, 2))


def test_kernel_shap_says_how_far_its_values_may_be_off():
    x = pictures(1)
    model = wrapped(rectified(), x)
    few, every = (attrib.explain(model, x, KernelSHAP(n_segments=9, n_samples=n)) for n in (40, 510))
    (said,) = [int(note.split("off by ")[1].split("%")[0]) for note in few.notes if "off by" in note]
    off = (few.values - every.values).abs().mean() / every.values.abs().max()
    assert 0.1 * said / 100 < off < said / 100
    assert not any("off by" in note for note in every.notes)


def test_keeping_the_window_alone_is_zennits_occlusion():
    import zennit.attribution

    x = pictures(2)
    model = wrapped(rectified(), x)
    side = x.shape[2]
    found = attrib.explain(model, x, Occlusion(side // 2, side // 2, keep="window"), 2).values
    theirs = zennit.attribution.Occlusion(
        model.module,
        window=(side // 2, side // 2),
        stride=(side // 2, side // 2),
        attr_output=lambda out: out * torch.eye(out.shape[1], dtype=out.dtype)[2],
    )
    with theirs:
        torch.testing.assert_close(found, theirs(x)[1])
    with pytest.raises(UnknownName, match="rest"):
        attrib.explain(model, x, Occlusion(keep="both"))


def test_occlusion_is_the_same_in_any_chunk():
    x = pictures(3)
    model = wrapped(rectified(), x)
    whole = attrib.explain(model, x, Occlusion(3, 2)).values
    torch.testing.assert_close(attrib.explain(model, x, Occlusion(3, 2), max_memory=1).values, whole)


def test_occlusion_refuses_gaps():
    x = pictures(1)
    model = wrapped(rectified(), x)
    with pytest.raises(InputError, match="never be covered"):
        attrib.explain(model, x, Occlusion(3, 4))


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ((1, 40), "a window of 16 was cut to the input, 1 × 16"),
        (
            (8, 10),
            "one window of 16 covers the whole input, 8 × 10, so every pixel gets the same: give a smaller window",
        ),
        (
            (16, 16),
            "one window of 16 covers the whole input, 16 × 16, so every pixel gets the same: give a smaller window",
        ),
    ],
)
def test_a_window_that_is_larger_than_the_input_is_told(size, told):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * size[0] * size[1], 2))
    result = attrib.explain(attrib.wrap(module), torch.randn(2, 3, *size), Occlusion(window=16, stride=8), target=0)
    assert told in result.notes


def exact_shapley(model, x, blank, regions, target):
    """Mean gain of each region over all orders of showing them."""
    n = int(regions.max()) + 1
    shares = torch.zeros(n, dtype=x.dtype)
    orders = list(permutations(range(n)))
    for order in orders:
        shown = blank.clone()
        before = logits(model, shown)[0, target]
        for region in order:
            shown = torch.where(regions == region, x, shown)
            after = logits(model, shown)[0, target]
            shares[region] += (after - before) / len(orders)
            before = after
    return shares


@pytest.mark.parametrize("net", [rectified, Twice])
def test_kernel_shap_of_all_sets_is_exact(net):
    x = pictures(1)
    blank = pictures(1, seed=3)
    model = wrapped(net(), x)
    result = attrib.explain(model, x, KernelSHAP(n_segments=4, n_samples=14, baseline=blank), 1)
    regions = grid(x[0], 4)
    shares = exact_shapley(model, x, blank, regions, 1)
    found = torch.stack([result.values[0][:, regions == region].sum() for region in range(4)])
    torch.testing.assert_close(found, shares)
    assert result.delta.abs().max() < 1e-10


def test_sampled_kernel_shap_nears_the_exact_one():
    x = pictures(1)
    model = wrapped(rectified(), x)
    exact = attrib.explain(model, x, KernelSHAP(n_segments=9, n_samples=510), 1).values
    near = attrib.explain(model, x, KernelSHAP(n_segments=9, n_samples=400), 1).values
    far = attrib.explain(model, x, KernelSHAP(n_segments=9, n_samples=40), 1).values
    assert (near - exact).norm() < (far - exact).norm() < exact.norm()
    assert (near - exact).norm() < 0.25 * exact.norm()


def test_coalitions_follow_the_shapley_kernel():
    kept, _ = coalitions(6, 40_000, seed=0)
    assert len(kept) == 62  # all of them are fewer
    kept, _ = coalitions(20, 20_000, seed=0)
    sizes = torch.bincount(kept.sum(1), minlength=21).double() / len(kept)
    expected = torch.tensor([0, *(1 / (k * (20 - k)) for k in range(1, 20)), 0], dtype=torch.float64)
    assert (sizes - expected / expected.sum()).abs().max() < 0.01
    assert torch.allclose(kept.double().mean(0), torch.full((20,), 0.5, dtype=torch.float64), atol=0.02)


def test_kernel_shap_with_superpixels_adds_up():
    x = pictures(2, side=16)
    model = wrapped(rectified(), x)
    result = attrib.explain(model, x, KernelSHAP("slic", 9, 60), 1)
    blank = logits(model, torch.zeros_like(x))[:, 1]
    torch.testing.assert_close(result.values.flatten(1).sum(1), result.score - blank)
    with pytest.raises(UnknownName, match="slic"):
        attrib.explain(model, x, KernelSHAP("slik"))


def test_superpixels_follow_colour():
    image = torch.zeros(3, 24, 24)
    image[:, :, 13:] = 1.0
    regions = superpixels(image, 16)
    assert not set(regions[:, :13].flatten().tolist()) & set(regions[:, 13:].flatten().tolist())
    assert regions.unique().tolist() == list(range(int(regions.max()) + 1))
    assert superpixels(torch.zeros(3, 8, 8), 4).shape == (8, 8)


def test_grids_of_any_proportion():
    assert grid(torch.zeros(3, 7, 7), 49).unique().numel() == 49
    assert grid(torch.zeros(3, 10, 40), 4).unique().numel() == 4
    assert grid(torch.zeros(3, 1, 5), 49).unique().numel() == 5
