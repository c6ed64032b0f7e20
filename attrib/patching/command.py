"""`attrib sites MODEL`: which sites a model has, and in which module each is found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attrib.patching.sites import PatchSite
    from attrib.patching.structure import Layer

_out = Console()


def sites(
    model: Annotated[str, typer.Argument(help="A name from `attrib models list`, or hf:…")],
    pattern: Annotated[list[str] | None, typer.Option(help="Such as 'head.*.3'; may be given again.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; default: cpu.")] = None,
) -> None:
    """The sites of a transformer that patching can look at, and the module each is found in."""
    import attrib
    from attrib.patching.probing import structure_of
    from attrib.patching.sites import all_sites, select

    structure = structure_of(attrib.load(model, device=device))  # type: ignore[arg-type]  # refused if it is no text model
    found = select(structure, pattern) if pattern else all_sites(structure)
    rows = [("site", "module", ""), *((site.name, site.path, _where(site, structure.layers)) for site in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for name, path, where in rows:  # not a rich table, which cuts paths to the terminal's width
        line = f"{name:<{widths[0]}}  {path:<{widths[1]}}  {where}".rstrip()
        _out.print(line, soft_wrap=True, highlight=False, markup=False)
    for reason in structure.missing:
        _out.print(f"not found: {reason}", soft_wrap=True, highlight=False, markup=False)


def _where(site: PatchSite, layers: Sequence[Layer]) -> str:
    place, bounds = site.place, site.columns or ()
    stretches = [f"{first} to {behind - 1}" for first, behind in zip(bounds[::2], bounds[1::2], strict=True)]
    columns = f", columns {' and '.join(stretches)}" if stretches else ""
    call = "" if place.call is None else f" of call {place.call}"
    what = f"its {place.reads}"
    if place.operation is not None:
        name, *_, number = place.operation
        what = f"what its own {name} makes, number {number}"
    if site.layer is not None and place.reads == "experts":
        layer, what = layers[site.layer], f"what {place.experts} multiplies"
        columns += f"; {layer.experts} experts of {layer.units // layer.experts} neurons, expert by expert"
    return f"{what}{call}{columns}"
