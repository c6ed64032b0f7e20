"""Files that appear whole or not at all, whatever happens to the process, and text that spreadsheets may open."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from attrib.errors import ReportError

PARTIAL = ".partial"  # what a file is called until it is complete
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What the disk refuses becomes a ReportError that says what to do; nothing finished is lost by it."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        what = {
            errno.ENOSPC: "free some space",
            errno.EDQUOT: "free some space",
            errno.EROFS: "choose a folder that can be written",
            errno.EACCES: "choose a folder that can be written",
            errno.EPERM: "choose a folder that can be written",
        }.get(error.errno or 0, "mend it")
        raise ReportError(
            f"cannot write {str(path)!r}: {reason}; {what} and run the same command again: what is finished is kept"
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; once the block ends without an error its content is on disk and takes the place of `path`."""
    partial = path.with_name(f"{path.name}{PARTIAL}")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)


def write_file(path: Path, content: bytes | str) -> None:
    """Write `content` (text as UTF-8) to `path`, durably; a kill leaves the old file or the new one."""
    with replacing(path) as partial:
        partial.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Several, by their paths inside `folder`, in this order; the folders that they are in are synced once, at the end.

    Syncing is what small files take their time for.
    """
    inside: dict[Path, None] = {}
    for name, content in files.items():
        path = folder / name
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"{path.name}{PARTIAL}")
            partial.write_bytes(content)
            _sync(partial)
            os.replace(partial, path)
            inside[path.parent] = None
    for parent in inside:
        with disk_errors(parent):
            _sync(parent)


def remove_partial_files(folder: Path) -> None:
    """What a killed run left half-written."""
    for path in folder.rglob(f"*{PARTIAL}"):
        with disk_errors(path):
            path.unlink(missing_ok=True)


def harmless(text: str) -> str:
    """`text` for a cell of a spreadsheet: what would be taken for a formula gets an apostrophe in front."""
    return f"'{text}" if text.lstrip(" \u00a0").startswith(_FORMULA_STARTS) else text


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
