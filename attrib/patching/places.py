"""A tensor inside a model and how its rows and columns lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Columns = tuple[int, ...]  # first, and behind the last; the same of each stretch where they do not lie side by side


def width_of(columns: Columns) -> int:
    return len(numbers_of(columns))


def numbers_of(columns: Columns) -> list[int]:
    """Each of them."""
    return [number for at in range(0, len(columns), 2) for number in range(*columns[at : at + 2])]


@dataclass(frozen=True)
class Axes:
    """Where a tensor that is not (batch, tokens, width) has these.

    order: which of its dimensions are the batch, the tokens and, together, the width. stacked: a dimension in which all
    tokens of one stream are followed by those of the next, and how many streams there are; it counts as two.
    """

    order: tuple[int, ...]
    stacked: tuple[int, int] | None = None

    def rows(self, tensor: Tensor) -> Tensor:
        """The tensor as (batch, tokens, width)."""
        return self._apart(tensor).permute(self.order).flatten(2)

    def back(self, rows: Tensor, like: Tensor) -> Tensor:
        """Rows as the model keeps them; like: its tensor, of any number of rows and tokens."""
        if self.plain:
            return rows.permute([self.order.index(i) for i in range(3)])
        apart = self._apart(like)
        sizes = [*rows.shape[:2], *(apart.shape[i] for i in self.order[2:])]
        turned = rows.reshape(sizes).permute([self.order.index(i) for i in range(len(sizes))])
        return turned if self.stacked is None else turned.flatten(self.stacked[0], self.stacked[0] + 1)

    @property
    def plain(self) -> bool:
        """Whether dimensions are only exchanged."""
        return self.stacked is None and len(self.order) == 3

    def _apart(self, tensor: Tensor) -> Tensor:
        return tensor if self.stacked is None else tensor.unflatten(self.stacked[0], (self.stacked[1], -1))


Operation = tuple[str, int, int, int]  # name, dimensions, width, number; see `Place`


@dataclass(frozen=True)
class Place:
    """A tensor of the model, (batch, tokens, width): the first tensor that the module at `path` puts out or is given;
    or one inside, that an operation of its own code makes; or the units of its experts, side by side, in front of their
    last weights, the parameter `experts` that holds `matrices` of them (zero where no row was sent).

    shared: others read the very same tensor too (the residual stream going past a norm): what is written there has to
    be written in place, so that they see it. own: others have read it before, so what is meant is what this module is
    given, and no more. changed: the model changes the tensor in place later on. call: which of
    the module's calls in a forward is meant, from 0; None where it runs once. axes: where the model keeps it otherwise
    (SqueezeBERT's channels in front, XLNet's tokens, heads in a dimension of their own). operation: of what is made:
    the operation's name, the dimensions and the width (0 where that is tokens) of what it makes, and which of its calls
    by the module's own code that make the like it is, from 0.
    """

    path: str
    reads: Literal["input", "output", "made", "experts"]
    shared: bool = False
    own: bool = False
    changed: bool = False
    call: int | None = None
    axes: Axes | None = None
    operation: Operation | None = None
    experts: str = ""
    matrices: int = 0

    def rows(self, tensor: Tensor) -> Tensor:
        """The model's tensor as (batch, tokens, width)."""
        return tensor if self.axes is None else self.axes.rows(tensor)

    def back(self, rows: Tensor, like: Tensor) -> Tensor:
        """The other way round; `like`: the model's tensor."""
        return rows if self.axes is None else self.axes.back(rows, like)
