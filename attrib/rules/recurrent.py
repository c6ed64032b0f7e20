"""Recurrent networks, opened step by step into linear layers, gates and products that the table has rules for.

With the gate rule (`elementwise.gate`) this is LRP for LSTMs as in Arras et al. 2017, "Explaining recurrent neural
network predictions in sentiment analysis": in a product of gate and signal, the signal takes all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attrib.rules.call import Call

State = tuple[Tensor, ...]
Weights = tuple[Tensor | None, ...]  # input weight, hidden weight, input bias, hidden bias
Map = Callable[[Tensor], Tensor]
Cell = Callable[[Tensor, State, Map, Map], State]  # (W_x x + b, state, W_h · + b, projection of the hidden state)


def _lstm(given: Tensor, state: State, recurrent: Map, projected: Map) -> State:
    hidden, memory = state
    take, keep, new, show = (given + recurrent(hidden)).chunk(4, -1)
    memory = torch.sigmoid(keep) * memory + torch.sigmoid(take) * torch.tanh(new)
    return projected(torch.sigmoid(show) * torch.tanh(memory)), memory


def _gru(given: Tensor, state: State, recurrent: Map, projected: Map) -> State:
    (hidden,) = state
    reset, keep, new = given.chunk(3, -1)
    reset_h, keep_h, new_h = recurrent(hidden).chunk(3, -1)
    candidate = torch.tanh(new + torch.sigmoid(reset + reset_h) * new_h)
    # 1 − σ(a) as σ(−a), which is a gate too
    return (torch.sigmoid(-(keep + keep_h)) * candidate + torch.sigmoid(keep + keep_h) * hidden,)


def _simple(activation: Map) -> Cell:
    def step(given: Tensor, state: State, recurrent: Map, projected: Map) -> State:
        return (activation(given + recurrent(state[0])),)

    return step


def _linear(weights: Weights, which: int) -> Map:
    """The map of the input (0) or of the hidden state (1)."""
    return lambda x: F.linear(x, weights[which], weights[which + 2])  # type: ignore[arg-type]  # both are given


_CELLS: dict[str, Cell] = {
    "lstm": _lstm,
    "gru": _gru,
    "rnn_tanh": _simple(torch.tanh),
    "rnn_relu": _simple(torch.relu),
}


def recurrence(call: Call) -> Any:
    """LSTM, GRU or plain recurrent layers and cells, rebuilt; packed sequences keep their gradient (uncovered)."""
    name = call.function.__name__
    if name.endswith("_cell"):
        return call.engine.under(lambda: _one_step(call, _CELLS[name.removesuffix("_cell")]))
    if not isinstance(call.args[3], bool):  # (data, batch sizes, state, weights, …): packed
        return NotImplemented
    return call.engine.under(lambda: _Stack.of(call).run())


def _one_step(call: Call, cell: Cell) -> Any:
    state = call.args[1] if isinstance(call.args[1], (tuple, list)) else (call.args[1],)
    weights = (*call.args[2:], None, None)[:4]
    after = cell(_linear(weights, 0)(call.x), tuple(state), _linear(weights, 1), lambda hidden: hidden)
    return after if len(after) > 1 else after[0]


@dataclass(frozen=True)
class _Stack:
    """Layers × directions of one cell. Batch first inside, since the ledger counts by rows."""

    cell: Cell
    x: Tensor
    states: State
    flat: Sequence[Tensor]
    layers: int
    directions: int
    batch_first: bool

    @staticmethod
    def of(call: Call) -> _Stack:
        x, states, flat, _, layers, _, _, bidirectional, batch_first = call.args
        states = tuple(states) if isinstance(states, (tuple, list)) else (states,)
        cell = _CELLS[call.function.__name__]
        return _Stack(cell, x, states, flat, layers, 1 + bidirectional, batch_first)

    def run(self) -> tuple[Tensor, ...]:
        x = self.x if self.batch_first else self.x.transpose(0, 1)
        last: list[State] = []
        for layer in range(self.layers):
            sides = []
            for direction in range(self.directions):
                outputs, state = self._pass(x, layer * self.directions + direction, reverse=direction == 1)
                sides.append(outputs)
                last.append(state)
            x = sides[0] if len(sides) == 1 else torch.cat(sides, -1)
        x = x if self.batch_first else x.transpose(0, 1)
        return (x, *(torch.stack([state[i] for state in last]) for i in range(len(last[0]))))

    def _pass(self, x: Tensor, which: int, reverse: bool) -> tuple[Tensor, State]:
        weights, projected = self._weights(which)
        given = _linear(weights, 0)(x).unbind(1)  # all steps at once: to a table this is one layer
        state: State = tuple(part[which] for part in self.states)
        outputs = []
        for step in reversed(given) if reverse else given:
            state = self.cell(step, state, _linear(weights, 1), projected)
            outputs.append(state[0])
        return torch.stack(outputs[::-1] if reverse else outputs, 1), state

    def _weights(self, which: int) -> tuple[Weights, Map]:
        per_pass = len(self.flat) // (self.layers * self.directions)
        own = list(self.flat[which * per_pass : (which + 1) * per_pass])
        if per_pass not in (3, 5):
            return (*own, None, None)[:4], lambda hidden: hidden
        projection = own.pop()
        return (*own, None, None)[:4], lambda hidden: F.linear(hidden, projection)
