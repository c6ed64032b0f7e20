"""The folder of the app's reports: `NAME/request.json`, `NAME/inputs/…`, and the report itself in `NAME/report/`."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrib
from app import places
from app.report_asks import ReportAsk
from app.report_inputs import Limits, Upload, placed
from app.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_REQUEST, _INPUTS, _REPORT = "request.json", "inputs", "report"
_STAGED = ".staged-"  # what is not complete yet, or being deleted
_FORGOTTEN = 3600.0  # seconds after which that is a leftover of a killed server
_SERVED = frozenset({".html", ".pdf", ".csv", ".parquet", ".json", ".toml", ".safetensors", ".png"})


@dataclass(frozen=True)
class Kept:
    """A report in the folder. finished: can be read. counts: what its manifest says, of a finished one."""

    name: str
    ask: ReportAsk
    finished: bool
    counts: dict[str, int]
    started: float


@dataclass(frozen=True)
class ReportFolder:
    """Everything goes through `place`, which no name gets out of. secret: makes addresses that nobody can guess."""

    root: Path
    limits: Limits
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def place(self, name: str) -> Path:
        """The folder of the report `name`, which need not exist. Raises InputError for what is no name of a report."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise attrib.InputError(
                f"{str(name)[:40]!r} cannot be a report's name: take 1 to 64 of the letters a to z and A to Z, digits, "
                "- and _, a letter or digit first"
            )
        path = self.root / name
        if path.is_symlink():
            raise attrib.InputError(f"{name!r} is a link to another place, so it is no report of this app")
        return path

    def token(self, name: str) -> str:
        """What an address must hold for this report's files to be served."""
        return hmac.new(self.secret, name.encode(), hashlib.sha256).hexdigest()[:40]

    def report(self, name: str) -> Path:
        return self.place(name) / _REPORT

    def inputs(self, name: str) -> Path:
        return self.place(name) / _INPUTS

    def file(self, name: str, path: str) -> Path | None:
        """A file of a finished report that may be served, or None."""
        folder = self.report(name)
        wanted = Path(os.path.realpath(folder / path))
        inside = wanted.is_relative_to(os.path.realpath(folder)) and wanted.suffix in _SERVED and wanted.is_file()
        return wanted if inside and self.get(name).finished else None

    def get(self, name: str) -> Kept:
        """Raises InputError where there is no such report."""
        path = self.place(name)
        try:
            ask = ReportAsk.from_json((path / _REQUEST).read_text(encoding="utf-8"))
            started = (path / _REQUEST).stat().st_mtime
        except (OSError, ValueError, KeyError, TypeError):
            raise attrib.InputError(f"there is no report {name!r}") from None
        manifest = _manifest(path / _REPORT)
        return Kept(name, ask, bool(manifest.get("finished")), dict(manifest.get("counts") or {}), started)

    def all(self) -> list[Kept]:
        """Every report, the latest first; what else lies in the folder is passed over."""
        found = []
        for name in sorted(os.listdir(self.root)) if self.root.is_dir() else []:
            try:
                found.append(self.get(name))
            except attrib.InputError:
                continue
        return sorted(found, key=lambda kept: -kept.started)

    def keep(self, name: str, ask: ReportAsk, uploads: Sequence[Upload]) -> Kept:
        """The report `name` with these inputs, new or as it is there. Raises InputError where it is another one."""
        target = self.place(name)
        self.check_space()
        with self._staged() as staged:
            (staged / _INPUTS).mkdir()
            ask = replace(ask, inputs=placed(uploads, staged / _INPUTS))
            (staged / _REQUEST).write_text(ask.to_json(), encoding="utf-8")
            if not target.exists():
                staged.rename(target)  # fails where somebody was quicker
        kept = self.get(name)
        if kept.ask.to_json() != ask.to_json():
            raise attrib.InputError(
                f"there is a report {name!r} already, of other files, methods or settings; choose another name, or "
                "delete that one first"
            )
        return kept

    def delete(self, name: str) -> None:
        """Raises InputError where there is nothing to delete, or it cannot be."""
        self.get(name)
        with self._staged() as staged:
            self.place(name).rename(staged / name)  # gone at once, whatever happens while files are removed

    def check_space(self, size: int | None = None) -> None:
        """Raise InputError where reports take more than they may. size: bytes, where they are known."""
        used = places.size(self.root) if size is None else size
        if used >= self.limits.disk:
            raise attrib.InputError(
                f"the reports take {used / 2**20:.0f} MB of the {self.limits.disk / 2**20:.0f} MB that they may: "
                "delete one that is no longer needed"
            )

    @contextmanager
    def _staged(self) -> Iterator[Path]:
        """A folder beside the reports, removed at the end unless it was given another name."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            staged = Path(tempfile.mkdtemp(prefix=_STAGED, dir=self.root))
            try:
                yield staged
            finally:
                shutil.rmtree(staged, ignore_errors=True)
        except OSError as error:
            raise attrib.InputError(f"the folder of the reports cannot be written: {error.strerror}") from error

    def clean(self) -> None:
        """Remove what a killed server has left half-done."""
        for path in self.root.glob(f"{_STAGED}*"):
            if time.time() - path.stat().st_mtime > _FORGOTTEN:
                shutil.rmtree(path, ignore_errors=True)


def configured(settings: Settings) -> ReportFolder | None:
    """The folder that the settings name, cleaned; it need not exist yet. None: there shall be none."""
    if settings.reports_folder is None:
        return None
    limits = Limits(settings.report_inputs, settings.report_upload * 2**20, settings.report_disk * 2**20)
    folder = ReportFolder(Path(settings.reports_folder).expanduser().absolute(), limits)
    folder.clean()
    return folder


def usual_name(model: str) -> str:
    """A name for a report that was given none."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", model.rsplit("/", 1)[-1]).strip("-_")[:40] or "report"
    return f"{stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
