"""What a report says of itself: spec, models, versions, machine, times, counts; and whether a run may go on with it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch

from attrib.errors import AttribError, InputError, ReportError
from attrib.explain import check_applies
from attrib.provenance import versions
from attrib.reports.batches import Model
from attrib.reports.evidence import check_kind
from attrib.reports.files import write_file
from attrib.reports.spec import Spec, another_report, spec_of
from attrib.reports.store import FORMAT, JOURNAL, LOCK, MANIFEST, read_manifest

SPEC = "spec.toml"


@dataclass(frozen=True)
class About:
    """What the manifest tells of a model."""

    name: str
    kind: str
    weights_hash: str
    device: str
    dtype: str
    classes: int | None

    @staticmethod
    def of(name: str, model: Model) -> About:
        dtype = str(model.dtype).removeprefix("torch.")
        classes = None if model.labels is None else len(model.labels)
        return About(name, model.kind, model.weights_hash, str(model.device), dtype, classes)


def check_models(spec: Spec, models: Mapping[str, Model]) -> str:
    """The kind of inputs that all models take. Raises InputError, NotApplicable where spec and models do not fit."""
    kinds = {model.kind for model in models.values()}
    if len(kinds) != 1:
        told = ", ".join(f"{name} takes {model.kind}s" for name, model in models.items())
        raise InputError(f"the models of one report must take the same kind of input: {told}; make two reports")
    for model in models.values():
        for method in spec.methods.values():
            check_applies(model, method)
    check_kind(spec.evidence, next(iter(kinds)))
    return kinds.pop()


def earlier(folder: Path) -> dict[str, Any] | None:
    """The manifest of the report that `folder` holds; None for a new or empty folder. ReportError: anything else."""
    try:
        inside = {entry.name for entry in os.scandir(folder)} - {LOCK}
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReportError(
            f"cannot use the folder {str(folder)!r}: {error.strerror}; choose another with --out"
        ) from error
    if not inside:
        return None
    if MANIFEST in inside:
        return read_manifest(folder)
    if JOURNAL in inside and inside <= {JOURNAL, f"{JOURNAL}-journal", SPEC, f"{SPEC}.partial", f"{MANIFEST}.partial"}:
        return None  # killed before its manifest was written: nothing was computed yet
    raise ReportError(
        f"the folder {str(folder)!r} holds other things: there is no {MANIFEST} in it, but {len(inside)} other files, "
        f"{sorted(inside)[0]!r} first; choose another with --out"
    )


def joined(spec: Spec, manifest: dict[str, Any], models: Mapping[str, About]) -> Spec:
    """`spec` with what the report in the folder holds already. ReportError where the two contradict."""
    for name in spec.methods.keys() & manifest["settings"].keys():
        before, now = manifest["settings"][name], spec.settings_of(name)
        now = json.loads(json.dumps(now))
        if now != before:
            differing = [
                f"{k} = {before.get(k)!r}, not {now.get(k)!r}" for k in now | before if now.get(k) != before.get(k)
            ]
            raise another_report(f"its {name} has {', '.join(differing)}")
    for about in manifest["models"]:
        model = models.get(about["name"])
        if model is not None and model.weights_hash != about["weights_hash"]:
            raise another_report(f"it was made with other weights of {about['name']} ({about['weights_hash'][:12]}…)")
    if versions() != manifest["versions"]:
        changed = {k: f"{v} → {versions().get(k)}" for k, v in manifest["versions"].items() if versions().get(k) != v}
        raise another_report(f"it was made with other versions ({changed})")
    document = manifest["spec"] | {"methods": manifest["spec"]["methods"] | _same(spec, manifest)}
    try:
        before_spec = spec_of(document)
    except AttribError as error:
        raise another_report(f"it was made in Python with what no spec can hold ({error})") from error
    return spec.joined(before_spec)


def _same(spec: Spec, manifest: dict[str, Any]) -> dict[str, Any]:
    return {name: method for name, method in spec.methods.items() if name in manifest["settings"]}


def begin(
    folder: Path, spec: Spec, models: list[About], before: dict[str, Any] | None, workers: int = 1
) -> dict[str, Any]:
    """Write spec.toml and the manifest of a report that is under way; the manifest."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    started = now if before is None else before["times"]["started"]
    manifest = {
        "format": FORMAT,
        "finished": False,
        "spec": spec.document(),
        "targets": list(spec.targets),
        "settings": {name: spec.settings_of(name) for name in spec.methods},
        "seeds": {name: method.seed for name, method in spec.methods.items() if hasattr(method, "seed")},
        "models": [vars(model) for model in models],
        "versions": versions(),
        "counts": {},
        "machine": _machine() | {"workers": workers},
        "times": {"started": started, "finished": None, "seconds": 0.0},
    }
    write_file(folder / SPEC, spec.toml())
    write(folder, manifest)
    return manifest


def end(folder: Path, manifest: dict[str, Any], counts: dict[str, int], seconds: float) -> None:
    """Write the manifest of a finished report."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    times = manifest["times"] | {"finished": now, "seconds": round(seconds, 3)}
    write(folder, manifest | {"finished": True, "counts": counts, "times": times})


def write(folder: Path, manifest: dict[str, Any]) -> None:
    write_file(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=True))


def _machine() -> dict[str, Any]:
    found = {
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "python": platform.python_version(),
    }
    if torch.cuda.is_available():
        found["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return found
