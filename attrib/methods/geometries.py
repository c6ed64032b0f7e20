"""What NormGrad's layers look at around each position: virtual identity layers, and real convolutions."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from attrib.errors import InputError, UnknownName
from attrib.readouts import Geometry

VIRTUAL = ("bias", "scaling", "conv1x1", "conv3x3", "depthwise3x3", "none")


def virtual_geometry(virtual: str, channels: int) -> Geometry:
    """What a virtual identity layer looks at: `none` has the geometry of a real layer instead."""
    if virtual == "bias":
        return Geometry(constant=True)
    if virtual == "scaling":
        return Geometry(groups=channels)
    square = re.fullmatch(r"(conv|depthwise)(\d+)x\2", virtual)
    if square is not None and int(square[2]) % 2 == 1:
        side = int(square[2])
        groups = channels if square[1] == "depthwise" else 1
        return Geometry(groups=groups, kernel=(side, side), padding=(side // 2,) * 4)
    if virtual == "none":
        return Geometry()
    raise UnknownName("virtual layer", virtual, VIRTUAL)


def geometry_of(module: nn.Module, path: str) -> Geometry:
    """The geometry of a real convolution or linear layer."""
    if isinstance(module, nn.Linear):
        return Geometry()
    if not isinstance(module, nn.Conv2d):
        inside = [
            f"{path}.{name}" for name, m in module.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and name
        ]
        hint = f"; it holds {', '.join(inside[-3:])}" if inside else ""
        raise InputError(
            f"virtual='none' reads a layer's own weights, but {path!r} is {type(module).__name__}; name a Conv2d{hint}"
        )
    return Geometry(
        module.groups,
        _pair(module.kernel_size),
        _pair(module.stride),
        _padding(module),
        module.padding_mode,
        _pair(module.dilation),
    )


def _padding(module: nn.Conv2d) -> tuple[int, int, int, int]:
    if isinstance(module.padding, str):
        if module.padding == "valid":
            return (0, 0, 0, 0)
        # "same" puts the odd one right and below, as torch does
        (above, below), (left, right) = (
            ((k - 1) * d // 2, (k - 1) * d - (k - 1) * d // 2)
            for k, d in zip(module.kernel_size, module.dilation, strict=True)
        )
        return (left, right, above, below)
    vertical, horizontal = _pair(module.padding)
    return (horizontal, horizontal, vertical, vertical)


def _pair(value: Any) -> tuple[int, int]:
    return (int(value[0]), int(value[1]))
