"""What senders of edges add to the residual stream, and whether that is all that is read from it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from attrib.errors import UnsupportedModel
from attrib.patching.course import reproduces
from attrib.patching.edges import EdgeGraph, Mixing
from attrib.patching.places import Place
from attrib.rules.shadow import shadow


def output_matrices(twin: nn.Module, graph: EdgeGraph) -> list[Tensor | None]:
    """For each layer (heads, head_dim, width): what its output projection makes of each head's z, without its bias;
    None where heads do not send apart."""
    found: list[Tensor | None] = []
    heads, width = graph.structure.heads, graph.structure.head_dim
    for beside in graph.mixing:
        mixing = next((each for each in beside if each.z is not None), None)
        if mixing is None or mixing.z is None:
            found.append(None)
            continue
        projection = shadow(twin.get_submodule(mixing.z.path))
        weight: Tensor = projection.weight  # type: ignore[assignment]
        if projection._parameters.get("bias") is not None:
            projection._parameters["bias"] = torch.zeros_like(projection._parameters["bias"])  # type: ignore[assignment,arg-type]
        every = torch.eye(heads * width, dtype=weight.dtype, device=weight.device)
        with torch.no_grad():
            rows = mixing.made.rows(projection(mixing.z.back(every[None], every[None])))
        found.append(rows[0].unflatten(0, (heads, width)))
    return found


def by_head(z: Tensor, matrix: Tensor, rows: int) -> Tensor:
    """(rows, heads, tokens, width): what each head adds to the stream. z: heads side by side."""
    apart = z.reshape(rows, -1, *matrix.shape[:2])
    return torch.einsum("bthd,hdw->bhtw", apart, matrix)


def sent(mixing: Mixing, matrix: Tensor | None, values: Mapping[Place, Tensor], rows: int) -> Tensor:
    """(rows, senders, tokens, width): what the senders of a layer's attention or mixer add to the stream."""
    if mixing.z is None or matrix is None:
        return _stream(values[mixing.made], rows)[:, None]
    return by_head(values[mixing.z], matrix, rows)


def contributions(graph: EdgeGraph, matrices: list[Tensor | None], values: Mapping[Place, Tensor], rows: int) -> Tensor:
    """(rows, sender, tokens, width): what each sender adds to the stream, up to constants; linear in `values`."""
    parts = [_stream(values[graph.structure.layers[0].pre], rows)[:, None]]
    for layer, beside, matrix in zip(graph.structure.layers, graph.mixing, matrices, strict=True):
        parts += [sent(mixing, matrix, values, rows) for mixing in beside]
        parts += [_stream(values[step.place], rows)[:, None] for step in layer.joinings("mlp")]
    return torch.cat(parts, 1)


def check_course(graph: EdgeGraph, twin: nn.Module, values: Mapping[Place, Tensor]) -> None:
    """Raise UnsupportedModel where what inputs read is not what senders add, along the course of the stream."""
    for receiver in {receiver.stream: receiver for receiver in graph.receivers}.values():
        if not reproduces(receiver.course, twin, values, receiver.stream):
            raise UnsupportedModel(
                f"{graph.structure.model}: what {receiver.name} reads is not made of what components put out by "
                "sums, norms and factors alone, so that edges between them do not account for it"
            )


def _stream(tensor: Tensor, rows: int) -> Tensor:
    """(rows, tokens, width), also where the model has flattened both."""
    return tensor.reshape(rows, -1, tensor.shape[-1])
