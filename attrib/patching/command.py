"""`attrib sites MODEL`: which sites a model has, and in which module each is found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from attrib.patching.sites import PatchSite

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
    rows = [("site", "module", ""), *((site.name, site.path, _where(site)) for site in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for name, path, where in rows:  # not a rich table, which cuts paths to the terminal's width
        line = f"{name:<{widths[0]}}  {path:<{widths[1]}}  {where}".rstrip()
        _out.print(line, soft_wrap=True, highlight=False, markup=False)
    for reason in structure.missing:
        _out.print(f"not found: {reason}", soft_wrap=True, highlight=False, markup=False)


def _where(site: PatchSite) -> str:
    columns = "" if site.columns is None else f", columns {site.columns[0]} to {site.columns[1] - 1}"
    call = "" if site.place.call is None else f" of call {site.place.call}"
    return f"its {site.reads}{call}{columns}"
