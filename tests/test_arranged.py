"""Convolutions that keep their weights as oneDNN wants them say what they said, and give the gradients they gave."""

import torch
from torch import nn

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
    assert not any("_weight_arranged" in part.__dict__ for part in net)


def test_gradients_and_other_number_types_go_the_usual_way():
    net, x = _network(), torch.randn(2, 3, 20, 20)
    twin = shadow(net)
    arrange(twin)
    with torch.no_grad():
        twin(x)
    mine, yours = x.clone().requires_grad_(), x.clone().requires_grad_()
    found, known = torch.autograd.grad(twin(mine).sum(), mine)[0], torch.autograd.grad(net(yours).sum(), yours)[0]
    torch.testing.assert_close(found, known, rtol=0, atol=0)
    wide = shadow(net.double())
    arrange(wide)
    with torch.no_grad():
        torch.testing.assert_close(wide(x.double()), net(x.double()), rtol=0, atol=0)
