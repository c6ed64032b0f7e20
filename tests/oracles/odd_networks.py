"""Networks of 3 × 8 × 8 pixels and five classes whose parts meet in ways that hook engines miss."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm


class Routed(nn.Module):
    """A mixture of experts: each patch goes to its top two, whose answers are added by index."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.router, self.head = nn.Linear(12, 8), nn.Linear(8, 4), nn.Linear(8, 5)
        self.experts = nn.Parameter(torch.randn(4, 8, 8) * 0.4)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch(x.flatten(2).transpose(1, 2).reshape(-1, 12))
        shares, chosen = self.router(patches).softmax(-1).topk(2, -1)
        added = torch.zeros_like(patches)
        for number, weight in enumerate(self.experts):
            rows, place = (chosen == number).nonzero(as_tuple=True)
            added.index_add_(0, rows, torch.relu(patches[rows] @ weight) * shares[rows, place, None])
        return self.head((patches + added).view(len(x), -1, 8).mean(1))


class Scattered(nn.Module):
    """Pooling over segments by scatter_add."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(24, 5)
        self.register_buffer("segments", torch.arange(64) % 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv(x)).flatten(2)
        pooled = y.new_zeros(len(x), 6, 4).scatter_add(2, self.segments.expand_as(y), y)
        return self.head(pooled.flatten(1) / 16)


class Reparametrised(nn.Module):
    """Weight norm and spectral norm; a dictionary comes out, whose first entry is no score."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.middle = weight_norm(nn.Conv2d(3, 8, 3, stride=2)), spectral_norm(nn.Linear(72, 16))
        self.head = weight_norm(nn.Linear(16, 5))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = F.leaky_relu(self.middle(F.elu(self.conv(x)).flatten(1)), 0.1)
        return {"loss": y.sum(), "logits": self.head(y)}


class Tied(nn.Module):
    """One weight reads and, transposed, writes."""

    def __init__(self) -> None:
        super().__init__()
        self.coder, self.head = nn.Linear(192, 16), nn.Linear(192, 5)

    def forward(self, x: Tensor) -> Tensor:
        code = F.relu(self.coder(x.flatten(1)))
        return self.head(F.relu(F.linear(code, self.coder.weight.t()) + x.flatten(1)))


class Nested(nn.Module):
    """Modules in dictionaries of lists; a hardswish in place behind a group norm; a tuple comes out."""

    def __init__(self) -> None:
        super().__init__()
        left = nn.ModuleList([nn.Conv2d(3, 4, 3, padding=1), nn.GELU()])
        stem = nn.ModuleDict({"left": left, "right": nn.Conv2d(3, 4, 1)})
        self.stages = nn.ModuleDict({"stem": stem, "norm": nn.GroupNorm(2, 8), "head": nn.Linear(8, 5)})

    def forward(self, x: Tensor) -> tuple[Tensor]:
        stem: Any = self.stages["stem"]
        left = x
        for module in stem["left"]:
            left = module(left)
        y = self.stages["norm"](torch.cat([left, stem["right"](x)], 1))
        return (self.stages["head"](F.hardswish(y, inplace=True).mean((2, 3))),)


class Gated(nn.Module):
    """SwiGLU and GLU through the same two layers, a layer scale, a spelled-out RMS norm, a maximum over patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.up, self.down, self.head = (
            nn.Conv2d(3, 8, 2, 2),
            nn.Linear(8, 32),
            nn.Linear(16, 8),
            nn.Linear(8, 5),
        )
        self.scale = nn.Parameter(torch.full((8,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        t = self.patch(x).flatten(2).mT
        gate, up = self.up(t).chunk(2, -1)
        t = t + self.scale * self.down(F.silu(gate) * up)
        t = t * torch.rsqrt(t.pow(2).mean(-1, keepdim=True) + 1e-5)
        gate, up = self.up(t).tensor_split(2, -1)
        return self.head((t + self.down(torch.sigmoid(gate).mul(up))).amax(1))


class Unrolled(nn.Module):
    """How often it loops, and how it pools, depends on the values; each sample goes its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.odd, self.even, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._one(row[None]) for row in x])

    def _one(self, y: Tensor) -> Tensor:
        turn = 0
        while turn < 4 and (turn < 2 or y.detach().abs().mean() > 0.2):
            y = F.relu(self.odd(y)) + y * 0.5 if turn % 2 else F.relu(self.even(y), inplace=True)
            turn += 1
        answer: Tensor = self.head(y.mean((2, 3)) if y.sum() > 0 else y.amax((2, 3)))
        return answer


class LinearAttention(nn.Module):
    """Attention without a softmax, by einsum over three tensors; then a softmax over positions, on running sums."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.qkv, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 24), nn.Linear(8, 5)
        self.direction = nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor) -> Tensor:
        t = self.patch(x).flatten(2).mT
        q, k, v = self.qkv(t).unflatten(-1, (3, 2, 4)).unbind(2)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        kept = torch.einsum("bthd,bthe->bhde", k, v)
        scale = 1 / (torch.einsum("bthd,bhd->bth", q, k.sum(1)) + 1e-6)
        t = t + torch.einsum("bthd,bhde,bth->bthe", q, kept, scale).flatten(2)
        weights = torch.softmax(torch.tanh(t) @ self.direction, -1)
        return self.head((weights[..., None] * t.cumsum(1)).sum(1))


class InPlace(nn.Module):
    """A chain of changes in place, of slices and of views of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(256, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y[:, 1:3] += y[:, :2].clone() * 0.3
        y[:, 0].mul_(2)
        y.clamp_(min=0).add_(x.mean(1, keepdim=True))
        y[:, :, ::2].relu_()
        return self.head(y.flatten(1))


class Upsampled(nn.Module):
    """Transposed convolution, bilinear and sampled upscaling, pixel shuffle, unfold and fold."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.ConvTranspose2d(8, 4, 2, 2), nn.Linear(14, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv(x))
        small = F.max_pool2d(y, 2)
        folded = F.fold(F.unfold(self.up(small), 3, padding=1), (8, 8), 3, padding=1)
        wide = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
        places = torch.eye(2, 3, dtype=x.dtype).expand(len(x), 2, 3) * 0.9
        sampled = F.grid_sample(wide, F.affine_grid(places, list(wide.shape), align_corners=False), align_corners=False)
        parts = (part.mean((2, 3)) for part in (folded, sampled, F.pixel_shuffle(y, 2)))
        return self.head(torch.cat(list(parts), 1))


class Compared(nn.Module):
    """One tower for both halves of a pair; distances to prototypes are the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(6, 6, 3, padding=1))
        self.prototypes = nn.Parameter(torch.randn(5, 6))

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.tower(x).mean((2, 3)), self.tower(x.flip(-1)).amax((2, 3))
        near = F.cosine_similarity((one - other).abs()[:, None], self.prototypes[None], dim=-1)
        return near - torch.cdist(one, self.prototypes)


COVERED = (Routed, Scattered, Reparametrised, Tied, Nested, Gated, Unrolled, LinearAttention, InPlace, Upsampled)
UNCOVERED = {Compared: "cdist"}
