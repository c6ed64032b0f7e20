"""`attrib explain`: a picture or a text, by one or more methods; a table or JSON, and files of everything."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from attrib.errors import InputError

if TYPE_CHECKING:
    from attrib.attribution import Attribution

DEFAULTS = {"image": ("efficientnet-lite0", "integrated_gradients"), "text": ("minilm-sentiment", "lrp")}
_MOST_BYTES = 2**20
_out = Console()


def explain(
    image: Annotated[Path | None, typer.Argument(help="The picture to explain; or give --text or --file.")] = None,
    text: Annotated[str | None, typer.Option(help="The text to explain.")] = None,
    file: Annotated[Path | None, typer.Option(help="A file with the text to explain, in UTF-8.")] = None,
    model: Annotated[
        str | None, typer.Option(help="A name from `attrib models list`, or torchvision:…, timm:…, hf:…")
    ] = None,
    method: Annotated[list[str] | None, typer.Option(help="A name from `attrib methods`; may be given again.")] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="A class by label or index; of a language model a token (' Paris') or its id. Default: the top."
        ),
    ] = None,
    contrast: Annotated[str | None, typer.Option(help="Why --target (or the top) rather than this one.")] = None,
    out: Annotated[Path, typer.Option(help="The folder for pictures, a page and the raw values.")] = Path("explained"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON and nothing else.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; default: cpu.")] = None,
    strict: Annotated[bool, typer.Option(help="Fail where a method has no rule for an operation.")] = False,
) -> None:
    """Explain what a model sees in a picture or reads in a text; each method's values go into a folder of its own."""
    import attrib

    subject = _subject(image, text, file)
    _check_place(out)
    usual_model, usual_method = DEFAULTS["text" if isinstance(subject, str) else "image"]
    loaded = attrib.load(model or usual_model, device=device)
    predicted = loaded.predict(subject)[0]
    if not as_json:
        for label, index, probability in predicted:
            _out.print(f"  {probability:6.1%}  {_plain(label)} ({index})", highlight=False, markup=False)
    wanted = _wanted(target, contrast, predicted[0].index)
    results = {
        name: _explained(loaded, subject, name, wanted, strict, as_json)
        for name in dict.fromkeys(method or [usual_method])
    }
    with _writing(out):
        for name, result in results.items():
            _write(result, out / name)
    if as_json:
        typer.echo(json.dumps({name: _document(result, out / name) for name, result in results.items()}, indent=1))
    else:
        _show(results, out)


def _subject(image: Path | None, text: str | None, file: Path | None) -> Any:
    """What is explained: a path of a picture, or a text."""
    if sum(given is not None for given in (image, text, file)) != 1:
        raise typer.BadParameter("give one of: a picture, --text, --file")
    if file is None:
        return image if text is None else text
    try:
        with open(file, "rb") as opened:
            content = opened.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise InputError(f"{file} has more than {_MOST_BYTES} bytes; no model here takes so long a text")
        return content.decode("utf-8-sig").rstrip("\r\n")
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is no text in UTF-8: byte {error.start} is wrong; convert it first") from error


def _wanted(target: str | None, contrast: str | None, top: int) -> Any:
    import attrib

    first, second = (int(name) if name is not None and name.isdecimal() else name for name in (target, contrast))
    if second is None:
        return first
    return attrib.LogitDiff(top if first is None else first, second)


def _explained(loaded: Any, subject: Any, name: str, wanted: Any, strict: bool, quiet: bool) -> Attribution:
    import attrib

    with Progress(transient=True, console=_out, disable=quiet) as progress:
        task = progress.add_task(name, total=1.0)

        def on_progress(fraction: float, message: str) -> None:
            progress.update(task, completed=fraction)

        return attrib.explain(loaded, subject, name, wanted, strict=strict, on_progress=on_progress)


def _check_place(out: Path) -> None:
    """Before anything is computed: whether `out` is, or can become, a folder that files go into."""
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "may not be written into" if there.is_dir() else "is no folder"
        raise InputError(f"--out {out}: {there} {why}; give another folder")


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"--out {out}: nothing can be written there: {error.strerror or error}") from error


def _write(result: Attribution, folder: Path) -> None:
    from attrib.render import standalone

    result.save(folder)
    result.plot().savefig(folder / "heatmap.png", dpi=150, bbox_inches="tight")
    (folder / "explanation.html").write_text(standalone(result, title=result.method), encoding="utf-8")


def _show(results: dict[str, Attribution], out: Path) -> None:
    from attrib.attribution import labels_of
    from attrib.render.terminal import ledger_line, token_table

    tokens = {name: result for name, result in results.items() if result.token_texts is not None}
    if tokens:
        _out.print(token_table(tokens))
    for name, result in results.items():
        told = f"{result.method} of {_plain(labels_of(result.target)[0])}: score {float(result.score[0]):.3f}"
        if result.delta is not None:
            told += f", completeness error {float(result.delta[0]):+.3g}"
        for line in (f"{told} → {out / name}", ledger_line(result), *(f"note: {note}" for note in result.notes)):
            if line:
                _out.print(
                    line if line.startswith(told) else f"  {line}", highlight=False, markup=False, soft_wrap=True
                )


def _document(result: Attribution, folder: Path) -> dict[str, Any]:
    """What fits on a screen of a result; the raw values lie in the folder."""
    ledger = {name: float(amount[0]) for name, amount in (result.ledger or {}).items()}
    document = {
        "model": result.provenance.model,
        "target": result.target[0],
        "score": float(result.score[0]),
        "completeness_error": None if result.delta is None else float(result.delta[0]),
        "ledger": ledger or None,
        "notes": list(result.notes),
        "folder": str(folder),
    }
    if result.token_texts is not None and result.kind == "tokens":
        document["tokens"] = [{"text": text, "value": value} for text, value in result.tokens()]
    return document


def _plain(label: str) -> str:
    """A label as text that cannot act on the terminal."""
    from attrib.render import readable

    return readable(label)
