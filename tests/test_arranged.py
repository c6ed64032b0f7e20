"""Convolutions that keep their weights as oneDNN wants them say what they said, and give the gradients they gave."""

import copy

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from attrib.rules.arranged import arrange
from attrib.rules.onednn import usable
from attrib.rules.shadow import shadow


class _Twice(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


def _network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, groups=4, bias=False),
        nn.Conv2d(8, 6, 1), nn.Conv2d(6, 6, 3, padding="same"), nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect"),
        _Twice(6, 4, 3, dilation=2), nn.Flatten(), nn.Linear(100, 5),
    ).eval()  # fmt: skip


def test_same_outputs_in_batches_of_any_size_and_layout_and_nothing_on_the_model():
    net, x = _network(), torch.randn(5, 3, 20, 20)
    expected = net(x).detach()
    kinds = [type(part) for part in net]
    twin = shadow(net)
    assert arrange(twin) == usable()
    with torch.no_grad():
        for rows in (x, x[:1], x.contiguous(memory_format=torch.channels_last), x[1:4]):
            torch.testing.assert_close(twin(rows), net(rows), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(net(x).detach(), expected, rtol=0, atol=0)
    assert [type(part) for part in net] == kinds
    assert not any("_kept" in part.__dict__ for part in net)


def _gradient(net, x, twice=False):
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=twice)
    return torch.autograd.grad(found.square().sum(), x)[0] if twice else found


def test_gradients_are_the_same():
    net, x = _network(), torch.randn(2, 3, 21, 21)
    net[-1] = nn.Linear(144, 5)
    twin = shadow(net)
    arrange(twin)
    for rows in (x, x[:1], x.contiguous(memory_format=torch.channels_last)):
        for twice in (False, True):
            torch.testing.assert_close(_gradient(twin, rows, twice), _gradient(net, rows, twice), rtol=1e-4, atol=1e-5)


def test_changed_weights_are_arranged_anew_and_copies_keep_their_own():
    net, x = _network()[0], torch.randn(1, 3, 20, 20)
    own = shadow(net)
    arrange(own)
    for change in (lambda: None, lambda: net.weight.data.mul_(2), lambda: own.weight.detach().mul_(0.5)):
        change()
        for twin in (shadow(own), copy.deepcopy(own)):
            torch.testing.assert_close(_gradient(twin, x), _gradient(net, x))
    own._parameters["weight"] = own.weight * 3
    torch.testing.assert_close(own(x), net(x) * 3 - 2 * net.bias[:, None, None])


def test_short_weights_that_are_changed_uncounted_are_arranged_anew():
    net, x = _network()[0], torch.randn(1, 3, 20, 20)
    plain = copy.deepcopy(net)
    arrange(net)
    for _ in range(2):  # in the same place, at the same version
        torch.testing.assert_close(_gradient(shadow(net), x), _gradient(plain, x))
        for weight in (net.weight, plain.weight):
            weight.data.mul_(2)


def test_what_looks_at_operations_sees_convolutions():
    seen = []

    class Looking(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    twin = shadow(_network())
    arrange(twin)
    with Looking():
        twin(torch.randn(1, 3, 20, 20))
    assert torch.conv2d in seen and torch.ops.mkldnn._convolution_pointwise.default not in seen


def test_other_number_types_go_the_usual_way():
    net, x = _network(), torch.randn(2, 3, 20, 20)
    wide = shadow(net.double())
    arrange(wide)
    with torch.no_grad():
        torch.testing.assert_close(wide(x.double()), net(x.double()), rtol=0, atol=0)
