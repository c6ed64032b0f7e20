"""The set-up: what the Makefile, the Dockerfile and the package promise, checked without running them."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NEEDS_MAKE = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def text(name: str) -> str:
    return (ROOT / name).read_text()


def project() -> dict[str, Any]:
    return tomllib.loads(text("pyproject.toml"))


def make(folder: Path, *arguments: str) -> str:
    # as from a shell: under `make test` this make would take itself for a part of that one
    shell = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, timeout=60, env=shell)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder as a fresh clone has it, as far as make can see."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def floor(package: str) -> tuple[int, ...]:
    found = [d for d in project()["project"]["dependencies"] if re.match(rf"{package}\s*>=", d)]
    assert len(found) == 1
    return tuple(int(part) for part in found[0].split(">=")[1].split("."))


def test_floors_known_from_advisories() -> None:
    for package, least in (
        ("torch", (2, 10)),
        ("gradio", (6, 7)),
        ("python-multipart", (0, 0, 27)),
        ("zennit", (0, 5, 1)),
    ):
        assert floor(package) >= least


def test_every_dependency_has_a_floor() -> None:
    extras = project()["project"]["optional-dependencies"].values()
    for dependency in [*project()["project"]["dependencies"], *(d for extra in extras for d in extra)]:
        assert re.search(r"(>=|==)\d", dependency), dependency


def imported(folder: str) -> set[str]:
    """The top-level names that the modules in `folder` import, also inside functions."""
    found: set[str] = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(str(node.module).partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"attrib", "app"}


def test_what_is_imported_is_declared() -> None:
    optional = project()["project"]["optional-dependencies"]["ray"]
    needed = [*project()["project"]["dependencies"], *optional]
    declared = {re.split(r"[><=]", d)[0].replace("-", "_") for d in needed}
    names = {"pil": "pillow", "sklearn": "scikit_learn"}
    for folder in ("attrib", "app"):
        missing = {name for name in imported(folder) if names.get(name.lower(), name.lower()) not in declared}
        assert not missing, f"{folder} imports what pyproject.toml does not name: {missing}"


def test_model_packages_are_pinned_as_the_registry_says() -> None:
    from attrib.models import MODELS

    wanted = {package for entry in MODELS.values() if entry.embedded for package in entry.packages}
    assert wanted <= set(project()["project"]["dependencies"])


def test_warnings_are_errors() -> None:
    assert project()["tool"]["pytest"]["ini_options"]["filterwarnings"][0] == "error"
    assert project()["tool"]["mypy"]["strict"] is True
    assert project()["tool"]["mypy"]["files"] == ["attrib", "app"]


def test_the_wheel_holds_packages_and_assets() -> None:
    wheel = project()["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["attrib", "app"]
    assert wheel["force-include"] == {"assets": "attrib/assets"}
    assert (ROOT / "attrib" / "py.typed").is_file()


def test_assets_say_where_they_are_from() -> None:
    for folder in ("photos", "weights"):
        origin = text(f"assets/{folder}/ORIGIN.md")
        for file in (ROOT / "assets" / folder).iterdir():
            assert file.name == "ORIGIN.md" or file.name in origin


@NEEDS_MAKE
def test_app_installs_once(checkout: Path) -> None:
    first = make(checkout, "-n", "app")
    assert "-m venv .venv" in first
    assert "install --quiet --editable ." in first
    assert first.rstrip().endswith(".venv/bin/attrib app")
    (checkout / ".venv/bin").mkdir(parents=True)
    for name in ("bin/python", ".installed"):
        (checkout / ".venv" / name).touch()
    assert make(checkout, "-n", "app").split() == [".venv/bin/attrib", "app"]
    stamp = (checkout / ".venv/.installed").stat().st_mtime
    os.utime(checkout / "pyproject.toml", (stamp + 10, stamp + 10))
    assert "install" in make(checkout, "-n", "app")


@NEEDS_MAKE
def test_test_runs_everything(checkout: Path) -> None:
    steps = make(checkout, "-n", "test")
    order = ["-m venv", "[test]", "ruff check", "mypy", "scripts/browser.sh", "-m pytest"]
    assert [step for step in order if step in steps] == order
    assert os.access(ROOT / "scripts/browser.sh", os.X_OK)


@NEEDS_MAKE
def test_no_python_is_said(checkout: Path) -> None:
    done = subprocess.run(["make", "install", "PYTHON="], cwd=checkout, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "Python 3.11" in done.stderr


@NEEDS_MAKE
def test_a_virtual_environment_that_failed_is_made_again(checkout: Path) -> None:
    """Debian's python without python3-venv leaves half of one behind."""
    stub = checkout / "python"
    stub.write_text("#!/bin/sh\nmkdir -p .venv/bin; echo > .venv/bin/python; exit 1\n")
    stub.chmod(0o755)
    done = subprocess.run(
        ["make", "install", f"PYTHON={stub}"], cwd=checkout, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert "python3-venv" in done.stderr
    assert not (checkout / ".venv/bin/python").exists()


def browser(folder: Path, **commands: str) -> str:
    """What scripts/browser.sh does where only `commands` exist."""
    tools = folder / "tools"
    tools.mkdir()
    for name, body in ({"id": "echo 0", "playwright": 'echo "playwright $*"'} | commands).items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", str(ROOT / "scripts/browser.sh")], env={"PATH": str(tools)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_browser_that_is_there_is_taken(tmp_path: Path) -> None:
    assert browser(tmp_path, chromium="true") == ""


def test_debians_browser_is_installed_where_apt_is(tmp_path: Path) -> None:
    install = f'echo "apt-get $*"; echo > {tmp_path}/tools/chromium; /bin/chmod 755 {tmp_path}/tools/chromium'
    out = browser(tmp_path, **{"apt-get": install})
    assert "install -y -qq --no-install-recommends chromium" in out
    assert "playwright" not in out


def test_else_playwrights(tmp_path: Path) -> None:
    assert "playwright install chromium" in browser(tmp_path)


@pytest.mark.parametrize(
    "commands", [{"apt-get": "exit 100"}, {"apt-get": "exit 0"}, {"id": "echo 7", "apt-get": "exit 3"}]
)
def test_playwrights_where_apt_cannot(tmp_path: Path, commands: dict[str, str]) -> None:
    assert "playwright install chromium" in browser(tmp_path, **commands)


def test_ci_runs_make_test_only() -> None:
    commands = [line for line in text(".ci/run").splitlines() if line and not line.startswith("#")]
    assert commands == ["set -eu", 'cd "$(dirname "$0")/.."', "exec make test"]
    assert os.access(ROOT / ".ci/run", os.X_OK)


def instructions() -> list[tuple[str, str]]:
    """(instruction, argument) of the Dockerfile, continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", text("Dockerfile"))
    lines = [line.strip() for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def the(instruction: str) -> str:
    found = [argument for name, argument in instructions() if name == instruction]
    assert len(found) == 1, f"{instruction}: {found}"
    return found[0]


def test_dockerfile_is_slim_and_pinned() -> None:
    known = {"FROM", "RUN", "USER", "WORKDIR", "ENV", "COPY", "EXPOSE", "HEALTHCHECK", "CMD"}
    assert {name for name, _ in instructions()} <= known
    assert instructions()[0][0] == "FROM"
    assert re.fullmatch(r"python:3\.1\d-slim", the("FROM"))
    for name, argument in instructions():
        if name == "RUN" and "apt-get install" in argument:
            assert "--no-install-recommends" in argument
            assert "apt-get update &&" in argument
            assert "rm -rf /var/lib/apt/lists/*" in argument
        assert not (name == "RUN" and re.search(r"\b(sudo|curl|wget)\b", argument))
    assert "PIP_NO_CACHE_DIR=1" in the("ENV")


def test_dockerfile_does_not_run_as_root() -> None:
    names = [name for name, _ in instructions()]
    user = the("USER")
    assert user not in ("root", "0")
    assert any(
        name == "RUN" and f"useradd --create-home --uid 10001 {user}" in argument for name, argument in instructions()
    )
    assert names.index("USER") < names.index("COPY")
    assert the("COPY").startswith(f"--chown={user}:{user} ")


def test_dockerfile_takes_the_makefiles_steps() -> None:
    after_copy = instructions()[[name for name, _ in instructions()].index("COPY") :]
    assert [argument for name, argument in after_copy if name == "RUN"] == ["make install"]
    assert json.loads(the("CMD")) == ["make", "app"]
    targets = re.findall(r"^([a-z-]+):", text("Makefile"), flags=re.MULTILINE)
    assert {"install", "app", "test", "lint", "bench", "weights"} <= set(targets)


def test_dockerfile_listens_where_it_is_asked() -> None:
    environment = dict(re.findall(r"(\w+)=(\S+)", the("ENV")))
    assert environment["ATTRIB_HOST"] == "0.0.0.0"
    assert environment["ATTRIB_PORT"] == the("EXPOSE") == "7860"


def test_dockerfile_health_check_runs_and_fails_where_nothing_listens() -> None:
    options, command = the("HEALTHCHECK").split("CMD", maxsplit=1)
    assert {"--interval", "--timeout", "--start-period", "--retries"} <= {o.split("=")[0] for o in options.split()}
    arguments = json.loads(command)
    assert arguments[0] == ".venv/bin/python"
    done = subprocess.run([sys.executable, *arguments[1:]], env={"ATTRIB_PORT": "1"}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "URLError" in done.stderr


def test_dockerignore_keeps_the_build_small_and_complete() -> None:
    ignored = set(text(".dockerignore").split())
    assert {".git", ".venv"} <= ignored
    needed = {"attrib", "app", "assets", "Makefile", "pyproject.toml", "README.md", "LICENSE", "scripts"}
    assert not needed & ignored


def test_licence() -> None:
    assert "Apache License" in text("LICENSE")
    assert "Version 2.0, January 2004" in text("LICENSE")
    assert project()["project"]["license"] == "Apache-2.0"


def test_no_paths_of_a_machine_and_no_registry_hosts() -> None:
    for name in (
        "Makefile",
        "Dockerfile",
        "pyproject.toml",
        ".ci/run",
        "scripts/browser.sh",
        "scripts/convert_squeezenet.py",
    ):
        assert not re.search(r"/work/|/opt/|/root/|index-url|pypi\.org|extra-index", text(name)), name
