"""The templates of this package; every text in them passes Jinja2's autoescape."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_SURROGATES = re.compile("[\ud800-\udfff]")  # no file and no browser takes them


def rendered(name: str, **values: Any) -> str:
    """The template `name` with these values."""
    return _SURROGATES.sub("\ufffd", str(_environment().get_template(name).render(**values)))


@cache
def _environment() -> Environment:
    loader = PackageLoader("attrib.render", "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
