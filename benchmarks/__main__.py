"""`python -m benchmarks`: every method beside captum, zennit and pytorch-grad-cam, in ratios to the bare pass."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from benchmarks.cases import NETWORKS, Case
from benchmarks.report import machine, markdown, remarks, table, verdict
from benchmarks.rows import ROWS
from benchmarks.run import OURS, Line, measured
from benchmarks.text import Plan, plan, text_lines
from benchmarks.text_cases import NETWORKS as TEXT_NETWORKS
from benchmarks.text_cases import TOKENS
from benchmarks.text_rows import TEXT_ROWS


def main(
    models: Annotated[str, typer.Option(help="Networks, with commas.")] = ",".join(NETWORKS),
    batches: Annotated[str, typer.Option(help="Batch sizes, with commas.")] = "1,8",
    methods: Annotated[str, typer.Option(help="Parts of row names, with commas; empty: all rows.")] = "",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    repeats: Annotated[int, typer.Option(min=1, help="Rounds of a row; the median counts.")] = 5,
    size: Annotated[int, typer.Option(min=64, help="Side of the pictures in pixels.")] = 224,
    quick: Annotated[bool, typer.Option("--quick", help="resnet50 at batch 1, 3 rounds, no row of minutes.")] = False,
    long: Annotated[bool, typer.Option("--long", help="Rows of minutes at every batch size, not only at 1.")] = False,
    only: Annotated[str, typer.Option(help="images, or text: transformers at 32, 128 and 512 tokens.")] = "images",
    tokens: Annotated[str, typer.Option(help="Lengths of texts, with commas.")] = ",".join(map(str, TOKENS)),
    alone: Annotated[bool, typer.Option("--alone", help="Texts without peers, which take most of the time.")] = False,
    file: Annotated[Path | None, typer.Option("--markdown", help="Write the table here as well.")] = None,
) -> None:
    """Measure, show a table, and say where a target is missed."""
    console = Console(width=max(150, Console().width))
    torch.set_num_threads(1)  # two libraries that thread differently would not be compared otherwise
    if only == "text":
        asked = TEXT_NETWORKS if models == ",".join(NETWORKS) else _names(models)
        lengths = TOKENS[:1] if quick else tuple(int(n) for n in _names(tokens))
        _texts(console, _planned(asked, lengths, _names(methods), long, alone), torch.device(device), repeats, file)
        return
    networks, sizes = (("resnet50",), (1,)) if quick else (_names(models), tuple(int(b) for b in _names(batches)))
    unknown = [name for name in networks if name not in NETWORKS]
    if unknown:
        raise typer.BadParameter(f"no network {unknown[0]!r}; there are {', '.join(NETWORKS)}")
    rows = [row for row in ROWS if not _names(methods) or any(part in row.name for part in _names(methods))]
    if not rows:
        raise typer.BadParameter(f"no row matches {methods!r}; there are {', '.join(row.name for row in ROWS)}")
    console.print(machine(torch.device(device)))
    lines: list[Line] = []
    for network in networks:
        for batch in sizes:
            case = Case(network, batch, torch.device(device), size)
            for row in rows:
                if not row.long or (not quick and (batch == 1 or long)):
                    lines.append(measured(row, case, 3 if quick else repeats))
                    console.print(_progress(lines[-1]), highlight=False)
                    if file is not None:  # so that a run that is cut short leaves what it has
                        file.write_text(markdown(lines, torch.device(device)))
    console.print(table(lines))
    for remark in remarks(lines):
        console.print(remark, highlight=False)


def _planned(
    networks: tuple[str, ...], lengths: tuple[int, ...], rows: tuple[str, ...], long: bool, alone: bool
) -> Plan:
    """What is measured on transformers. Raises BadParameter for unknown names, and where nothing is."""
    unknown = [name for name in networks if name not in TEXT_NETWORKS]
    if unknown:
        raise typer.BadParameter(f"no transformer {unknown[0]!r}; there are {', '.join(TEXT_NETWORKS)}")
    planned = plan(networks, lengths, rows, long, alone)
    if not planned:
        names = "; ".join(row.name for row in TEXT_ROWS)
        raise typer.BadParameter(f"no row of these runs here; there are {names}. Some need --long beyond 128 tokens")
    return planned


def _texts(console: Console, planned: Plan, device: torch.device, repeats: int, file: Path | None) -> None:
    """The table of transformers."""
    console.print(machine(device))
    lines: list[Line] = []
    for line in text_lines(planned, repeats, device):
        lines.append(line)
        console.print(_progress(line), highlight=False)
        if file is not None:
            file.write_text(markdown(lines, device))
    console.print(table(lines))
    for remark in remarks(lines):
        console.print(remark, highlight=False)


def _names(listed: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in listed.split(",") if part.strip())


def _progress(line: Line) -> str:
    cost = line.costs[OURS]
    where = f"{line.row.name:32} {line.network} batch {line.batch}"
    return f"{where}: {cost.time_ratio:.2f}× time, {cost.memory_ratio:.2f}× memory {verdict(line)}"


if __name__ == "__main__":
    typer.run(main)
