"""Two rules on pictures: a patch whose colour decides, and two patterns of which one decides."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from attrib.models.vision import wrap
from attrib.truth.base import Proof, Truth
from attrib.truth.training import predicted, seeded, trained

SIDE = 24
_CELL = 8  # pictures are 3 × 3 cells, and a patch stands somewhere in a cell of its own
_PATCH = 6
_TRAINING = 3000

RED, GREEN, BLUE, YELLOW = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 0.0)
COLOUR_RULE = "The class is the colour of one patch, red or green, or none; blue and yellow patches mean nothing."
PATTERN_RULE = "The class is the direction of the stripes, across or down, or none; a ring or a cross means nothing."


@dataclass(frozen=True)
class Scene:
    """What decides every picture: rows × places. Everything else follows from it.

    labels: (n,), 0: nothing there, 1 or 2: which of the two kinds. others: (n, k), kind of what means nothing,
        or −1: not there.
    corners: (n, 1 + k, 2): top left corners, the deciding patch first. background: (n, 3, SIDE, SIDE).
    """

    labels: Tensor
    others: Tensor
    corners: Tensor
    background: Tensor


def drawn(n: int, n_others: int, seed: int) -> Scene:
    """Scenes with labels and meaningless patches drawn independently of each other and of all places."""
    random = torch.Generator().manual_seed(seed)
    cells = torch.rand(n, 9, generator=random).argsort(1)[:, : 1 + n_others]
    corners = torch.stack([cells // 3, cells % 3], 2) * _CELL
    corners = corners + torch.randint(0, _CELL - _PATCH + 1, corners.shape, generator=random)
    return Scene(
        torch.randint(0, 3, (n,), generator=random),
        torch.randint(-1, 2, (n, n_others), generator=random),
        corners,
        0.5 + 0.1 * torch.randn(n, 3, SIDE, SIDE, generator=random),
    )


def painted(scene: Scene, deciding: Tensor, meaningless: Tensor) -> Tensor:
    """(n, 3, SIDE, SIDE): deciding, meaningless: (2, 3, _PATCH, _PATCH), the patches of either kind."""
    x = scene.background.clone()
    for row in range(len(x)):
        kinds = [int(scene.labels[row]) - 1, *scene.others[row].tolist()]
        for place, kind in enumerate(kinds):
            top, left = scene.corners[row, place].tolist()
            if kind >= 0:
                patches = meaningless if place else deciding
                x[row, :, top : top + _PATCH, left : left + _PATCH] = patches[kind]
    return x


def masks(scene: Scene) -> Tensor:
    """(n, SIDE, SIDE): the deciding patch."""
    found = torch.zeros(len(scene.labels), SIDE, SIDE, dtype=torch.bool)
    for row in range(len(found)):
        top, left = scene.corners[row, 0].tolist()
        found[row, top : top + _PATCH, left : left + _PATCH] = True
    return found


def network() -> nn.Module:
    """Three convolutions with ReLUs and max-pooling, averaged over the picture, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 3),
    )  # fmt: skip


def colour_patch(seed: int, n: int) -> Truth:
    """A patch whose colour decides, beside up to two patches whose colours are drawn at random."""
    return _made(
        "colour_patch", COLOUR_RULE, _flat(RED, GREEN), _flat(BLUE, YELLOW), 2, ("none", "red", "green"), seed, n
    )


def two_features(seed: int, n: int) -> Truth:
    """Two patterns, equally bright and equally frequent, of which the class uses one."""
    across = (torch.arange(_PATCH) // 2 % 2).float().expand(_PATCH, -1).T
    ring = torch.ones(_PATCH, _PATCH)
    ring[1:-1, 1:-1] = 0.0
    cross = torch.zeros(_PATCH, _PATCH)
    cross[2:4], cross[:, 2:4] = 1.0, 1.0
    stripes, other = torch.stack([across, across.T]), torch.stack([ring, cross])
    three = [pair[:, None].expand(2, 3, _PATCH, _PATCH) for pair in (stripes, other)]
    return _made("two_features", PATTERN_RULE, three[0], three[1], 1, ("none", "across", "down"), seed, n)


def _flat(first: tuple[float, ...], second: tuple[float, ...]) -> Tensor:
    return torch.tensor([first, second])[:, :, None, None].expand(2, 3, _PATCH, _PATCH)


def _made(
    name: str, rule: str, deciding: Tensor, meaningless: Tensor, others: int, labels: tuple[str, ...], seed: int, n: int
) -> Truth:  # fmt: skip
    started = time.process_time()
    scene = drawn(_TRAINING, others, seed)
    with seeded(seed):
        module = network()
        module = trained(module, module, painted(scene, deciding, meaningless), scene.labels, epochs=8, rate=0.01)
    held_out = drawn(8 * n, others, seed + 1)
    x = painted(held_out, deciding, meaningless)
    accuracy = float((predicted(module, x) == held_out.labels).double().mean())
    proofs = _proofs(module, held_out, deciding, meaningless)
    good = ((predicted(module, x) == held_out.labels) & (held_out.labels > 0)).nonzero()[:n, 0]
    return Truth(
        name, rule, wrap(module, name=name, labels=labels), x[good], held_out.labels[good].tolist(),
        masks(held_out)[good], accuracy, proofs, time.process_time() - started,
    )  # fmt: skip


def _proofs(module: nn.Module, scene: Scene, deciding: Tensor, meaningless: Tensor) -> tuple[Proof, ...]:
    """What the rule says of every intervention, and how often the network does so."""
    shown = scene.labels > 0
    turned = torch.where(shown, 3 - scene.labels, 0)
    swapped = torch.where(scene.others < 0, -1, 1 - scene.others)
    changes = (
        ("the deciding patch becomes the other kind", replace(scene, labels=turned), turned, "the class follows"),
        ("the deciding patch goes", replace(scene, labels=torch.zeros_like(turned)), torch.zeros_like(turned), "none"),
        ("the others become the other kind", replace(scene, others=swapped), scene.labels, "nothing changes"),
        ("the others go", replace(scene, others=-torch.ones_like(scene.others)), scene.labels, "nothing changes"),
    )
    found = [predicted(module, painted(after, deciding, meaningless)) for _, after, _, _ in changes]
    return tuple(
        Proof(what, expected, float((classes == label)[shown].double().mean()))
        for classes, (what, _, label, expected) in zip(found, changes, strict=True)
    )
