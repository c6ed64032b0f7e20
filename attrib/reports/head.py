"""What stands at the head of a report: its title, facts, warnings, and where its numbers come from."""

from __future__ import annotations

from typing import Any

from attrib.reports.dataset import DatasetView
from attrib.reports.dataset_page import alarms
from attrib.reports.evidence_page import EVIDENCE
from attrib.reports.index_page import LINKS
from attrib.reports.pages import TARGETS, short
from attrib.reports.store import Store


def title_of(store: Store) -> str:
    """What the report is called."""
    return short(f"Report on {', '.join(store.models)}", 120)


def facts_of(store: Store, view: DatasetView) -> list[tuple[str, str, bool]]:
    """(name, value, whether it is long) for the head of the report."""
    times = store.manifest.get("times", {})
    classes = len({label for _, label in view.classes})
    return [
        ("items", str(store.journal.count_inputs()), False),
        ("failed", str(view.failed) + (f" (+ {view.partly} in part)" if view.partly else ""), False),
        ("classes explained", str(classes), False),
        ("models", short(", ".join(store.models), 200), True),
        ("methods", short(", ".join(store.methods), 300), True),
        ("targets", short(", ".join(TARGETS.get(t, t) for t in store.targets), 200), True),
        *([("started", _minute(str(times["started"])), True)] if times.get("started") else []),
    ]


def summary_of(store: Store, view: DatasetView) -> dict[str, Any]:
    found = [{"text": a["text"], "href": f"dataset.html#{a['anchor']}"} for a in alarms(view)]
    if view.failed or view.partly:
        many = f"{view.failed} item{'s' * (view.failed != 1)} failed"
        what = f"{many}{f', {view.partly} in part' if view.partly else ''}: filter the table by state to see why."
        found.insert(0, {"text": what, "href": ""})
    manifest = store.manifest
    models = [
        (f"model {m['name']}", f"weights {m['weights_hash']}, {m['device']}, {m['dtype']}") for m in manifest["models"]
    ]
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    settings = [(f"method {name}", _plain(value)) for name, value in manifest["spec"]["methods"].items()]
    pairs = [*models, *settings, ("versions", versions)]
    links = ((EVIDENCE, "How far to trust the maps"), *LINKS) if manifest["spec"].get("evidence") else LINKS
    return {
        "links": links,
        "facts": facts_of(store, view),
        "warnings": found,
        "provenance": [(short(name, 80), short(value, 400)) for name, value in pairs],
    }


def _plain(value: Any) -> str:
    told = ", ".join(f"{k} = {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
    return told or "default settings"


def _minute(time: str) -> str:
    """ISO 8601 in UTC, to the minute."""
    return f"{time[:16].replace('T', ' ')} UTC" if time.endswith(("+00:00", "Z")) else time
