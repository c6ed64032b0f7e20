"""Dependencies run one way, names are real, and no file outgrows a reader."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import attrib

ROOT = Path(__file__).parent.parent
FILES = sorted((*ROOT.glob("attrib/**/*.py"), *ROOT.glob("app/**/*.py")))
RELATIVE = [str(path.relative_to(ROOT)) for path in FILES]

# part of attrib -> the parts that it may import while it is imported; `errors` is open to all
MAY_IMPORT = {
    "errors": set(),
    "rules": set(),
    "coverage": set(),
    "heatmaps": set(),
    "attribution": {"coverage", "heatmaps"},
    "saved": {"attribution", "coverage", "provenance"},
    "outputs": set(),
    "targets": set(),
    "binding": {"outputs", "targets"},
    "readouts": set(),
    "failures": {"rules"},
    "apart": {"outputs"},
    "memory": {"rules", "failures", "apart"},
    "sites": {"outputs"},
    "taps": {"sites"},
    "render": {"attribution"},
    "models": {"rules", "outputs", "binding", "failures"},
    "patching": {"rules", "sites", "failures", "models", "binding", "targets"},
    "methods": {
        "rules",
        "outputs",
        "binding",
        "sites",
        "taps",
        "readouts",
        "coverage",
        "failures",
        "models",
        "patching",
    },
    "doubts": {"methods"},
    "findings": {"methods", "rules", "binding"},
    "chunks": {"binding", "failures", "findings", "memory", "methods", "models", "patching", "rules"},
    "rows": {"models", "binding", "targets"},
    "provenance": {"methods", "models"},
}
# what stands on top of all and is imported by nothing below
DRIVERS = {
    "explain", "generation", "class_sensitivity", "verification", "cli", "command", "__init__", "__main__", "reports",
    "metrics", "truth", "circuits",
}  # fmt: skip
# methods take nothing from models but what they need to know of an architecture
MODELS_FOR_METHODS = {f"attrib.models.{name}" for name in ("first_layer", "folding", "layout", "positions", "prefix")}


def part_of(path: str) -> str:
    return Path(path).relative_to("attrib").parts[0].removesuffix(".py")


def imports(path: str) -> set[str]:
    """Modules imported when the file is imported: not those under TYPE_CHECKING, nor inside functions."""
    found: set[str] = set()

    def visit(nodes: list[ast.stmt]) -> None:
        for node in nodes:
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
                visit(node.body + node.orelse)
            elif isinstance(node, (ast.Try, ast.With, ast.ClassDef)):
                visit(node.body)

    visit(ast.parse((ROOT / path).read_text()).body)
    return found


def everywhere(path: str) -> set[str]:
    """Modules that the file imports anywhere at all."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def own_parts(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("attrib.")}


@pytest.mark.parametrize("path", [path for path in RELATIVE if path.startswith("attrib/")])
def test_attrib_imports_downwards_only(path):
    part = part_of(path)
    used = own_parts(imports(path)) - {part, "errors"}
    if part in DRIVERS:
        return
    assert part in MAY_IMPORT, f"say what {part} may import"
    assert used <= MAY_IMPORT[part], f"{path} imports {sorted(used - MAY_IMPORT[part])}"


def test_methods_know_little_of_models():
    for path in (path for path in RELATIVE if path.startswith("attrib/methods/")):
        used = {name.rpartition(".")[0] for name in imports(path) if name.startswith("attrib.models")}
        assert used <= MODELS_FOR_METHODS, f"{path} imports {used}"


def test_rules_import_torch_only():
    for path in (path for path in RELATIVE if path.startswith("attrib/rules/")):
        outside = {name.split(".")[0] for name in everywhere(path)} - {"torch", "attrib"}
        assert outside <= set(__import__("sys").stdlib_module_names), f"{path} imports {outside}"


def test_the_app_uses_public_attrib_and_no_torch():
    for path in (path for path in RELATIVE if path.startswith("app/")):
        tops = {name.split(".")[0] for name in everywhere(path)}
        assert not tops & {"torch", "torchvision", "captum", "zennit", "transformers"}, path
        assert own_parts(everywhere(path)) <= {"attribution", "models", "render", "errors"} | set(attrib.__all__), path


def test_nothing_imports_the_app():
    for path in (path for path in RELATIVE if path.startswith("attrib/") and not path.endswith("cli.py")):
        assert not {name for name in everywhere(path) if name.split(".")[0] == "app"}, path


@pytest.mark.parametrize("path", RELATIVE)
def test_files_are_short(path):
    lines = (ROOT / path).read_text().count("\n")
    assert lines <= 300, f"{path} has {lines} lines"


@pytest.mark.parametrize("path", RELATIVE)
def test_files_import_by_name_and_say_what_they_are_for(path):
    tree = ast.parse((ROOT / path).read_text())
    stars = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and any(a.name == "*" for a in n.names)]
    assert not stars, f"{path}: import *"
    assert ast.get_docstring(tree), f"{path} does not say what it is for"


@pytest.mark.parametrize("path", [path for path in RELATIVE if path.endswith("__init__.py")])
def test_public_names_exist(path):
    module = importlib.import_module(path.removesuffix("/__init__.py").replace("/", "."))
    names = getattr(module, "__all__", [])
    assert sorted(names) == sorted(set(names))
    assert [name for name in names if not hasattr(module, name)] == []


def test_attrib_says_what_is_public():
    assert {"explain", "compare", "load", "wrap", "models", "METHODS", "Attribution"} <= set(attrib.__all__)
    classes = {cls.__name__ for cls in attrib.METHODS.values()}
    assert classes <= set(attrib.__all__), f"not public: {sorted(classes - set(attrib.__all__))}"
    errors = {name for name, value in vars(attrib.errors).items() if isinstance(value, type)}
    assert {e for e in errors if issubclass(getattr(attrib.errors, e), attrib.AttribError)} <= set(attrib.__all__)
