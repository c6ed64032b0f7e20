"""`attrib.report`: what a caller says, as a spec and a way to run it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from attrib.errors import InputError, UnknownName
from attrib.methods.base import Method
from attrib.models.text import TextModel
from attrib.models.vision import VisionModel
from attrib.reports.batches import Model
from attrib.reports.how import How, OnProgress
from attrib.reports.run import Report, run
from attrib.reports.spec import read_toml, spec_of

_RUNNING = ("out", "workers", "ray")  # keys of a spec file that do not decide what a report holds


def report(
    inputs: str | os.PathLike[str] | Iterable[Any] | BinaryIO,
    models: str | Model | Sequence[str | Model] | None = None,
    methods: str | Method | Sequence[str | Method] | Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    targets: str | int | Sequence[str | int] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    workers: int | None = None,
    ray: str | None = None,
    retry_failed: bool = False,
    on_progress: OnProgress | None = None,
    **fields: Any,
) -> Report:
    """Explain every input with every model, method and target, into a folder that can be read, resumed and verified.

    inputs: a folder or glob of images; a file of lines, CSV, TSV, JSONL, Parquet; a Hugging Face data set's folder;
        "-" for standard input; a spec file (.toml), whose keys the other arguments override; or paths, texts or dicts
        with the keys text or path, target, id, which are taken one by one; or a file of lines, or of what `format`
        says, opened in binary mode.
    models: names for `attrib.load`, or models of one's own (then workers and ray cannot be used).
    methods: names, method objects, or a table name → settings. settings: method → settings, on top of those.
    out: the folder; where it holds the same report, what is finished is kept and what is missing is computed.
    targets, fields: the other fields of `attrib.reports.Spec`.
    workers: processes on this machine. They import the calling script: guard it with `if __name__ == "__main__"`.
    ray: the address of a Ray cluster, or "local". retry_failed: compute anew what failed before.
    on_progress: called with (settled rows, all rows or None, message), also between the chunks of a method where there
        are no workers; what it raises stops the run, keeping all that is finished.

    Raises InputError where there is nothing to explain, ReportError where the folder holds another report or cannot be
    written; an input that fails becomes a row with its error.
    """
    stream: Any = None
    document = {key: value for key, value in fields.items() if value is not None}
    if isinstance(inputs, (str, os.PathLike)):
        document |= {"inputs": os.fspath(inputs)}
    elif isinstance(inputs, io.IOBase):
        document |= {"inputs": "-"}
        stream = inputs
    else:
        document |= {"inputs": "-", "format": "jsonl"}
        stream = io.BufferedReader(_Lines(inputs))
    own, names = _own_models(models)
    given = {"models": names, "methods": methods, "targets": targets, "out": out, "workers": workers, "ray": ray}
    document |= {key: value for key, value in given.items() if value is not None}
    wanted, running = asked_for(document, settings or {})
    how = How(running.get("workers"), running.get("ray"), retry_failed, own)
    return run(spec_of(wanted), running.get("out", "report"), how, on_progress, stream)


def asked_for(
    document: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(document of the spec, what of it is about running): a spec file's keys, overridden by those of `document`.

    Methods that are only named keep the settings that the file has for them.
    """
    given = dict(document)
    if str(given.get("inputs", "")).lower().endswith(".toml"):
        base = read_toml(given.pop("inputs"))
        if isinstance(given.get("columns"), Mapping) and isinstance(base.get("columns"), Mapping):
            given["columns"] = base["columns"] | given["columns"]
        given["methods"] = _methods(given.get("methods", base.get("methods", ())), base.get("methods"))
        given = base | given
    table = _methods(given.get("methods", ()), None)
    for name, own in settings.items():
        if name not in table:
            raise UnknownName("method of this report", name, table)
        if isinstance(table[name], Method):
            raise InputError(f"{name} is given as an object, so it takes no further settings")
        table[name] = {**table[name], **own}
    given["methods"] = table
    running = {key: given.pop(key) for key in _RUNNING if key in given}
    if not isinstance(running.get("workers", 1), int) or running.get("workers", 1) < 1:
        raise InputError(f"workers = {running['workers']!r}: give a whole number from 1")
    return given, running


def _methods(given: Any, known: Any) -> dict[str, Any]:
    """name → settings or method, in order; settings of names that come alone are looked up in `known`."""
    before = known if isinstance(known, Mapping) else {}
    if isinstance(given, Mapping):
        return dict(given)
    found: dict[str, Any] = {}
    for method in given if isinstance(given, (list, tuple)) else [given]:
        if not isinstance(method, (str, Method)):
            raise InputError(f"methods = {given!r}: give names, methods, or a table name → settings")
        name, number = (method, 2) if isinstance(method, str) else (method.name, 2)
        if name in found and isinstance(method, str):
            raise InputError(f"the method {name} is asked for twice")
        first = name
        while name in found:
            name, number = f"{first}_{number}", number + 1
        found[name] = dict(before.get(name, {})) if isinstance(method, str) else method
    return found


def _own_models(given: Any) -> tuple[dict[str, Model], list[str] | None]:
    """(models that are objects, by name; all names in order)."""
    if given is None:
        return {}, None
    several = list(given) if isinstance(given, (list, tuple)) else [given]
    names = [model.name if isinstance(model, (VisionModel, TextModel)) else model for model in several]
    return {model.name: model for model in several if isinstance(model, (VisionModel, TextModel))}, names


class _Lines(io.RawIOBase):
    """Inputs given in Python as the lines of a JSONL file, made as they are read."""

    def __init__(self, inputs: Iterable[Any]) -> None:
        self._lines = self._encoded(inputs)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or next(self._lines, b"")
        taken = self._rest[: len(buffer)]
        buffer[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)

    @staticmethod
    def _encoded(inputs: Iterable[Any]) -> Iterator[bytes]:
        for given in inputs:
            if isinstance(given, Path):
                given = {"path": os.fspath(given)}
            elif isinstance(given, str):
                given = {"path": given, "text": given}
            if not isinstance(given, Mapping):
                raise InputError(f"cannot take {type(given).__name__} as an input; give paths, texts or dicts of them")
            yield json.dumps(dict(given)).encode() + b"\n"


__all__ = ["Report", "asked_for", "report"]
