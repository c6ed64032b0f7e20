"""`attrib report` and `attrib verify`.

Exit status: 0 all is well; 1 an error, nothing or not everything was computed; 2 wrong usage; 3 the report is finished
and some inputs failed; 4 verify: rows differ; 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from attrib.errors import InputError
from attrib.reports.run import Report

SOME_FAILED, DIFFERS, INTERRUPTED = 3, 4, 130
_DEFAULT_MODEL = "efficientnet-lite0"
_DEFAULT_METHODS = "integrated_gradients"
_SHOWN = 5  # of the inputs that failed

Several = list[str] | None


def report(
    inputs: Annotated[
        str,
        typer.Argument(
            help="A folder or glob of images; a file of lines, .csv, .jsonl, .parquet; a Hugging Face data set; "
            "- for standard input; or a spec (.toml), which the options override."
        ),
    ],
    model: Annotated[Several, typer.Option(help="A name from `attrib models list`, or hf:…; may be repeated.")] = None,
    methods: Annotated[str | None, typer.Option(help="Names from `attrib methods`, with commas between.")] = None,
    target: Annotated[
        Several,
        typer.Option(
            help="A label or index, 'LABEL vs LABEL', 'log_prob: LABEL', 'predicted', or 'item': the input's own, "
            "else the top prediction. May be repeated."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The report's folder. [default: report]")] = None,
    setting: Annotated[Several, typer.Option("--set", help="METHOD.SETTING=VALUE; may be repeated.")] = None,
    format: Annotated[str | None, typer.Option(help="images, lines, csv, tsv, jsonl, parquet, arrow.")] = None,
    text_column: Annotated[str | None, typer.Option(help="The column of the texts. [default: text]")] = None,
    path_column: Annotated[str | None, typer.Option(help="The column of the images. [default: path, image]")] = None,
    target_column: Annotated[str | None, typer.Option(help="The column of targets. [default: target]")] = None,
    id_column: Annotated[str | None, typer.Option(help="The column of names. [default: id]")] = None,
    root: Annotated[str | None, typer.Option(help="Where the paths in a table must lie. [default: anywhere]")] = None,
    limit: Annotated[int | None, typer.Option(help="Explain the first so many inputs only.")] = None,
    batch: Annotated[int | None, typer.Option(help="Inputs at most that go through a model at once.")] = None,
    values: Annotated[str | None, typer.Option(help="raw, or heatmap: channels reduced, less space.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; default: cpu.")] = None,
    evidence: Annotated[
        str | None,
        typer.Option(help="What to measure of every map: metrics, with commas between; lights: all four lights, dear."),
    ] = None,
    profile_layer: Annotated[str | None, typer.Option(help="A layer whose neurons are profiled per class.")] = None,
    pdf_items: Annotated[int | None, typer.Option(help="Items shown in report.pdf. [default: 24]")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes on this machine.")] = None,
    ray: Annotated[str | None, typer.Option(help="The address of a Ray cluster, or local.")] = None,
    retry_failed: Annotated[bool, typer.Option(help="Compute anew what failed in an earlier run.")] = False,
) -> None:
    """Explain many inputs, with any number of models, methods and targets: pages, tables, raw maps, a manifest.

    Stopped or killed, it goes on with the same command. Exit status 3: finished, but some inputs failed.
    """
    import attrib

    is_spec = inputs.lower().endswith(".toml")
    columns = {"text": text_column, "path": path_column, "target": target_column, "id": id_column}
    named = {name: column for name, column in columns.items() if column is not None}
    listed = None if methods is None else [name.strip() for name in methods.split(",") if name.strip()]
    with _progress("inputs × methods") as (bar, task):
        made = attrib.report(
            inputs,
            model or (None if is_spec else [_DEFAULT_MODEL]),
            listed or (None if is_spec else [_DEFAULT_METHODS]),
            out,
            targets=target,
            settings=_settings(setting or []),
            workers=workers,
            ray=ray,
            retry_failed=retry_failed,
            on_progress=_shown(bar, task),
            format=format,
            columns=named or None,
            root=root,
            limit=limit,
            batch=batch,
            values=values,
            device=device,
            profile_layer=profile_layer,
            pdf_items=pdf_items,
            evidence=None if evidence is None else [name.strip() for name in evidence.split(",") if name.strip()],
        )
    counts, console = made.counts, Console()
    console.print(f"{counts['inputs']} inputs, {counts['rows']} rows → {made.folder}", markup=False, soft_wrap=True)
    if made.failed:
        console.print(f"{made.failed} inputs failed; the first of them:", markup=False)
        for name, error in islice(_reasons(made), _SHOWN):
            console.print(f"  {name!r}: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(SOME_FAILED)


def _shown(bar: Progress, task: TaskID) -> Callable[[int, int | None, str], None]:
    """What moves the bar; what evidence costs stays on the screen."""

    def shown(done: int, total: int | None, message: str) -> None:
        if message.startswith("evidence: "):
            bar.console.print(message, markup=False, soft_wrap=True)
        bar.update(task, completed=done, total=total, description=message)

    return shown


def verify(
    folder: Annotated[Path, typer.Argument(help="A report's folder.")],
    sample: Annotated[int, typer.Option(min=0, help="How many rows to compute again; 0: all.")] = 20,
    seed: Annotated[int, typer.Option(help="Which rows the sample takes.")] = 0,
    device: Annotated[str | None, typer.Option(help="Where to compute; default: as the report says.")] = None,
) -> None:
    """Compute rows of a report again and say which differ, by how much, and why. Exit status 4: some differ."""
    from attrib.reports.verify import verify as verified

    console = Console()
    with _progress("verifying") as (bar, task):
        verdict = verified(
            folder,
            sample or None,
            seed=seed,
            device=device,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for reason in verdict.reasons:
        console.print(f"changed: {reason}", markup=False, soft_wrap=True)
    for check in verdict.differing:
        row = check.row
        where = f"{row.name!r}, {row.model}, {row.method}, {row.target}"
        console.print(f"differs: {where}: {check.problem}", markup=False, soft_wrap=True)
    same = [check for check in verdict.checks if check.same]
    most = max((check.values or 0.0 for check in same), default=0.0)
    console.print(
        f"{len(same)} of {len(verdict.checks)} rows computed again are the same (maps to {most:.2g} of their largest "
        f"value); the report has {verdict.rows}",
        markup=False,
        soft_wrap=True,
    )
    if verdict.differing:
        if not verdict.reasons:
            console.print("weights, versions and device are the same: the report's files were changed", markup=False)
        raise typer.Exit(DIFFERS)


def _reasons(made: Report) -> Iterator[tuple[str, str | None]]:
    """(name, reason) of each input that failed, the first reason where there are several."""
    for _, rows in groupby(made.failures(), lambda row: row.position):
        row = next(rows)
        yield row.name, row.error


def _settings(given: list[str]) -> dict[str, dict[str, Any]]:
    """METHOD.SETTING=VALUE as method → setting → value; values as TOML has them, else text."""
    found: dict[str, dict[str, Any]] = {}
    for one in given:
        path, equals, text = one.partition("=")
        method, dot, name = path.strip().partition(".")
        if not (equals and dot and method and name):
            raise InputError(f"--set {one!r}: write METHOD.SETTING=VALUE, such as integrated_gradients.n_steps=20")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        found.setdefault(method, {})[name] = value
    return found


@contextmanager
def _progress(what: str) -> Iterator[tuple[Progress, TaskID]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=Console(stderr=True)) as bar:
            yield bar, bar.add_task(what, total=None)
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; what is finished is kept: the same command goes on with it")
        raise typer.Exit(INTERRUPTED) from None
