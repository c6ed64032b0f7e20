"""A real server in a process of its own and a real browser."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.app import tiny_text

START_SECONDS = 90
STOP_SECONDS = 60
_ROOT = Path(__file__).parents[2]
expect.set_options(timeout=30_000)  # two processes of tests, servers and browsers share two cores


@dataclass(frozen=True)
class Server:
    url: str
    cache: Path
    log: Path
    process: subprocess.Popen[bytes]


Start = Callable[..., Server]


@pytest.fixture(scope="session", autouse=True)
def temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """gradio's client leaves a folder among the system's temporary files for each file that it fetches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
        yield


@pytest.fixture(scope="session")
def start() -> Iterator[Start]:
    """Starts the app as `python -m app` does, or another module; its settings come from the environment."""
    with ExitStack() as stack:
        yield lambda module="app", **settings: stack.enter_context(_running(module, settings))


@pytest.fixture(scope="session")
def server(start: Start) -> Server:
    """The one that most tests share."""
    return start(ATTRIB_MAX_UPLOAD="1", ATTRIB_MODELS="squeezenet1_1,efficientnet-lite0")


@pytest.fixture(scope="session")
def texts_wait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file; as long as it is there, circuits wait in the server of the tiny text models."""
    return tmp_path_factory.mktemp("texts") / "wait"


@pytest.fixture(scope="session")
def texts(start: Start, texts_wait: Path) -> Server:
    """The one with the tiny text models."""
    names = f"squeezenet1_1,{tiny_text.CLASSIFIER},{tiny_text.LANGUAGE},{tiny_text.AGREEING}"
    return start("tests.app.tiny_text", ATTRIB_MODELS=names, ATTRIB_TEST_HOLD=str(texts_wait))


@contextmanager
def _running(module: str, settings: dict[str, str]) -> Iterator[Server]:
    folder, port = Path(tempfile.mkdtemp(prefix="attrib-test-")), _free_port()
    cache, log = folder / "cache", folder / "log"
    own = {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH", "")))),
        "ATTRIB_PORT": str(port),
        "ATTRIB_UPLOADS": str(cache),
        "ATTRIB_REPORTS": str(folder / "reports"),
    }
    environment = os.environ | own | settings
    with log.open("wb") as output:
        # started anywhere, as by a user: gradio lends files of the folder that it is started in
        process = subprocess.Popen(
            [sys.executable, "-m", module], cwd=folder, env=environment, stdout=output, stderr=output
        )
    try:
        _wait(process, log)
        yield Server(f"http://127.0.0.1:{port}/", cache, log, process)
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)
        shutil.rmtree(folder)


def _wait(process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(START_SECONDS * 5):
        if "attrib is at" in log.read_text():
            return
        if process.poll() is not None:
            break
        time.sleep(0.2)
    raise AssertionError(f"the app did not start:\n{log.read_text()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of its own; errors of its scripts fail the test."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(30_000)
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    opened.close()
    assert errors == []
