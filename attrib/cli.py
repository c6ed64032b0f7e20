"""The command line: one function a command; those of more than a few lines stand in their own packages."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from attrib.command import explain
from attrib.errors import AttribError, UnknownName
from attrib.patching.command import sites
from attrib.reports.command import report, verify

if TYPE_CHECKING:
    from attrib.methods.base import Card

commands = typer.Typer(no_args_is_help=True, add_completion=False, help="See why a neural network decided what it did.")
model_commands = typer.Typer(no_args_is_help=True, help="The models that can be explained.")
commands.add_typer(model_commands, name="models")
commands.command()(explain)
commands.command()(sites)
commands.command()(report)
commands.command()(verify)
_out = Console()


def main() -> None:
    """Run the command line; an error of attrib becomes one line on stderr and exit status 1."""
    try:
        commands()
    except AttribError as error:
        sys.stderr.write(f"attrib: {' '.join(str(error).split())}\n")
        sys.exit(1)


@commands.command()
def app() -> None:
    """Start the browser app; its settings are read from ATTRIB_HOST, ATTRIB_PORT and others."""
    from app.main import main as start  # deferred: gradio takes seconds to import

    start()


@model_commands.command("list")
def list_models() -> None:
    """The models that `--model` knows by name."""
    from attrib.models import MODELS, SOURCES

    table = Table("name", "what", "licence", "size", "", box=None)
    for entry in MODELS.values():
        here = "" if entry.present() else f"not here yet: attrib models pull {entry.name}"
        table.add_row(entry.name, entry.description, entry.licence, f"{entry.size / 1e6:.1f} MB", here)
    for source in SOURCES.values():
        table.add_row(source.example, source.description, "its own", "", "")
    _out.print(table)


@model_commands.command()
def pull(name: Annotated[str, typer.Argument(help="As for --model.")]) -> None:
    """Fetch the weights of a model, so that it can be used offline, and check that it loads."""
    import attrib
    from attrib.models import MODELS

    if name in MODELS:
        with Progress(transient=True, console=_out) as progress:
            task = progress.add_task(name, total=1.0)
            MODELS[name].pull(lambda part, message: progress.update(task, completed=part, description=message))
    model = attrib.load(name)
    _out.print(
        f"{name} is on this machine and loads; weights sha256 {model.weights_hash}", highlight=False, soft_wrap=True
    )


@commands.command()
def methods(name: Annotated[str | None, typer.Argument(help="A method; default: list them all.")] = None) -> None:
    """The methods, or one method's card: its idea, formula, reference, and when it misleads."""
    from attrib.methods import METHODS

    if name is None:
        table = Table("name", "idea", "cost", box=None)
        for key, method in METHODS.items():
            table.add_row(key, Text(method.card.idea), Text(method.card.cost))
        _out.print(table)
    elif name in METHODS:
        _show_card(METHODS[name].card)
    else:
        raise UnknownName("method", name, METHODS)


def _show_card(card: Card) -> None:
    _out.print(card.title, style="bold")
    table = Table(box=None, show_header=False)
    for part in ("idea", "formula", "reference", "assumptions", "misleads", "cost"):
        name = "when it misleads" if part == "misleads" else part
        table.add_row(name, Text(getattr(card, part)))  # Text: brackets in formulas are no markup
    _out.print(table)


if __name__ == "__main__":
    main()
