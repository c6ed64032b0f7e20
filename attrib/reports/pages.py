"""What the pages of a report share: their templates, where things are, and how numbers are told.

Texts and names come from outside. Every one passes Jinja2's autoescape, and each page carries a policy that lets the
browser run no script but ours and load nothing at all.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from attrib.render import readable
from attrib.reports.files import replacing
from attrib.reports.store import Row

PER_PAGE = 200
MAX_NAME = 160
TARGETS = {"item": "each item's own, else the top prediction", "predicted": "the top prediction"}  # in words


def rendered(name: str, **values: Any) -> bytes:
    """The template as UTF-8; lone surrogates become question marks."""
    return _environment().get_template(name).render(**values).encode("utf-8", "replace")


def streamed(path: Path, name: str, **values: Any) -> None:
    """The same into a file, as it is made: of a page whose rows are too many to hold."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
        file.writelines(_environment().get_template(name).generate(**values))


def index_path(number: int) -> str:
    """The file of the index's page, counted from 0."""
    return "index.html" if number == 0 else f"index-{number + 1}.html"


def short(text: str, most: int = MAX_NAME) -> str:
    """A name or text for one line: nothing invisible in it, the middle cut out where it is long."""
    shown = readable(text) if text else ""
    return shown if len(shown) <= most else f"{shown[: most * 2 // 3]}…{shown[-most // 4 :]}"


def tail(name: str, most: int) -> str:
    """A name for a narrow place: of a long path its last parts, as many as fit."""
    parts = name.split("/")
    ends = ("…/" + "/".join(parts[start:]) for start in range(1, len(parts)))
    return next((short(end) for end in [name, *ends] if len(end) <= most), short(parts[-1] or name, most))


def image_uri(content: bytes) -> str:
    """A JPEG as a data URI; "" for none."""
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}" if content else ""


def percent(value: float | None) -> str:
    """0.873 → "87.3 %"; "" for None."""
    return "" if value is None else f"{100 * value:.1f} %"


def reasons(rows: list[Row]) -> list[str]:
    """Why rows failed, each reason once."""
    return list(dict.fromkeys(row.error for row in rows if row.error is not None))


@cache
def script() -> tuple[Markup, str]:
    """Our one script, and its hash as a Content-Security-Policy has it. It holds no text from outside."""
    code = files("attrib.reports").joinpath("templates/report.js").read_text(encoding="utf-8")
    return Markup(code), base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()


@cache
def _environment() -> Environment:
    loader = ChoiceLoader([PackageLoader("attrib.reports", "templates"), PackageLoader("attrib.render", "templates")])
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"short": short, "tail": tail, "percent": percent, "image_uri": image_uri}
    return made
