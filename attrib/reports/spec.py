"""What a report is asked to hold: inputs × models × methods × targets, from TOML, flags or Python."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import tomli_w

from attrib.errors import InputError, ReportError, UnknownName
from attrib.methods import METHODS
from attrib.methods.base import Method
from attrib.provenance import plain
from attrib.reports.asked import ITEM, check_target
from attrib.reports.evidence import check_evidence
from attrib.reports.settings import build, changed

VALUES = ("raw", "heatmap")
FORMATS = ("auto", "images", "lines", "csv", "tsv", "jsonl", "parquet", "arrow")
COLUMNS = ("text", "path", "target", "id")


@dataclass(frozen=True)
class Spec:
    """Everything that decides what a report holds; how fast it comes about (workers, Ray) does not belong here.

    inputs: a folder, a glob, a file, or "-" for standard input. format: one of FORMATS; "auto" reads it off the name.
    columns: what the columns text, path, target and id of a table are called there.
    root: where the paths of a table must lie, None: anywhere. limit: explain the first so many inputs only.
    models: names for `attrib.load`. methods: by the name that they have in the report.
    targets: "item" (the input's own target, else the top prediction), "predicted", a label or index, "log_prob: LABEL",
        "LABEL vs LABEL".
    profile_layer: a layer whose neurons' mean activations per class the dataset page shows; None: none.
    evidence: what is measured of every map, names of `attrib.METRICS`, and "lights" for all four lights: dear.
    batch: how many inputs at most go through a model at once. values: "raw" keeps every channel of a map, "heatmap"
        what `Attribution.heatmap` makes of it (a third of the space for pictures).
    pdf_items: how many items report.pdf shows, evenly spaced; 0: none. index.html has all of them.
    """

    inputs: str
    models: tuple[str, ...]
    methods: dict[str, Method]
    targets: tuple[str, ...] = (ITEM,)
    format: str = "auto"
    columns: dict[str, str] = field(default_factory=dict)
    root: str | None = None
    limit: int | None = None
    device: str | None = None
    batch: int = 16
    values: str = "raw"
    profile_layer: str | None = None
    evidence: tuple[str, ...] = ()
    pdf_items: int = 24

    def __post_init__(self) -> None:
        _check_one_of("format", self.format, FORMATS)
        _check_one_of("values", self.values, VALUES)
        for column in self.columns:
            if column not in COLUMNS:
                raise UnknownName("column of a table of inputs", column, COLUMNS)
        for name, several in (("model", self.models), ("method", self.methods), ("target", self.targets)):
            if not several:
                raise InputError(f"a report needs at least one {name}")
            if len(set(several)) != len(several):
                raise InputError(f"the same {name} is asked for twice: {', '.join(several)}")
        for name, least in (("batch", 1), ("limit", 1), ("pdf_items", 0)):
            number = getattr(self, name)
            if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < least):
                raise InputError(f"{name} = {number!r}: give a whole number from {least}")
        for target in self.targets:
            check_target(target)
        check_evidence(self.evidence)

    def document(self) -> dict[str, Any]:
        """As TOML and JSON hold it; `spec_of` reads it back."""
        methods = {
            name: ({} if METHODS.get(name) is type(method) else {"method": method.name}) | changed(method)
            for name, method in self.methods.items()
        }
        plain_fields = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "methods"}
        document = {name: list(v) if isinstance(v, tuple) else v for name, v in plain_fields.items()}
        return {k: v for k, v in document.items() if v is not None and v != {} and v != []} | {"methods": methods}

    def toml(self) -> str:
        return tomli_w.dumps(self.document())

    def settings_of(self, method: str) -> dict[str, Any]:
        """Every setting of a method, the defaults too, as JSON holds it."""
        found: dict[str, Any] = plain(self.methods[method])
        return found

    def joined(self, earlier: Spec) -> Spec:
        """This spec with what the report in the folder holds already. ReportError where the two contradict."""
        for name in ("inputs", "format", "columns", "root", "limit", "device", "batch", "values", "evidence"):
            before, now = getattr(earlier, name), getattr(self, name)
            if before != now:
                raise another_report(f"its {name} is {before!r}, not {now!r}")
        return replace(
            self,
            models=tuple(dict.fromkeys((*earlier.models, *self.models))),
            methods=earlier.methods | self.methods,  # common ones are the same: their settings were compared
            targets=tuple(dict.fromkeys((*earlier.targets, *self.targets))),
        )


def another_report(why: str) -> ReportError:
    """The refusal to mix two reports in a folder."""
    return ReportError(
        f"the folder holds another report: {why}; choose another folder with --out, or delete that one first"
    )


def read_toml(path: str | Path) -> dict[str, Any]:
    """The document of a spec file. Raises InputError for what is not TOML."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"cannot read the spec {str(path)!r}: {error}") from error


def spec_of(document: Mapping[str, Any]) -> Spec:
    """The spec that a document (TOML, flags, a manifest) holds. UnknownName for keys and names that nobody knows.

    methods is a list of names, or a table: name → settings; `method = "lrp"` in one gives a second name to a method.
    """
    known = [f.name for f in fields(Spec)]
    for key in document:
        if key not in known:
            raise UnknownName("key of a report's spec", key, known)
    if document.get("inputs") in (None, ""):
        raise InputError("the spec names no inputs: give a folder, a glob, a file or - for standard input")
    given = dict(document)
    given["models"] = tuple(_names("models", given.get("models", ())))
    given["evidence"] = tuple(_names("evidence", given.get("evidence", ())))
    given["targets"] = tuple(str(target) for target in _several(given.get("targets", (ITEM,))))
    given["methods"] = _methods(given.get("methods", ()))
    wanted: dict[str, type] = {"inputs": str, "format": str, "columns": dict, "root": str, "device": str, "values": str}
    wanted["profile_layer"] = str
    for key, kind in wanted.items():
        if given.get(key) is not None and not isinstance(given[key], kind):
            raise InputError(f"{key} = {given[key]!r} in the spec: a {kind.__name__} is needed")
    given["inputs"] = os.path.normpath(given["inputs"])  # "photos" and "photos/" are the same
    return Spec(**given)


def _methods(given: Any) -> dict[str, Method]:
    if not isinstance(given, Mapping):
        given = {name: {} for name in _names("methods", given)}
    return {str(name): _method(str(name), settings) for name, settings in given.items()}


def _method(name: str, settings: Any) -> Method:
    if isinstance(settings, Method):
        return settings
    if not isinstance(settings, Mapping):
        raise InputError(f"[methods.{name}] in the spec is {settings!r}: a table of settings is needed")
    own = {key: value for key, value in settings.items() if key != "method"}
    return build(METHODS, settings.get("method", name), own)


def _names(key: str, given: Any) -> list[str]:
    names = _several(given)
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"{key} = {given!r} in the spec: names are needed")
    return list(names)


def _several(given: Any) -> Sequence[Any]:
    return given if isinstance(given, (list, tuple)) else [given]


def _check_one_of(key: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UnknownName(key, value, known)
