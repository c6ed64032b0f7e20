"""Questions and files for reports as the page hands them over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette

from app import report_routes
from app.catalogue import Catalogue
from app.report_asks import checked
from app.report_folder import ReportFolder
from app.report_inputs import Upload
from app.report_jobs import Job

NAME = "squeezenet1_1"
HOSTILE = "<img src=x onerror=alert(1)>{{1}}.jpg"


def uploaded(tmp_path: Path, **files: Path | bytes | str) -> list[Upload]:
    """Files as the page hands them over; the keys are names with _ for the dot before the ending."""
    found = []
    for number, (name, content) in enumerate(files.items()):
        path = tmp_path / f"upload-{number}"
        data = content.read_bytes() if isinstance(content, Path) else content
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        found.append(Upload(str(path), ".".join(name.rsplit("_", 1))))
    return found


def asked(catalogue: Catalogue, methods: tuple[str, ...] = ("saliency",), model: str = NAME, targets: str = "") -> Any:
    return checked(catalogue, model, [(name, {}) for name in methods], targets)


def ended(job: Job) -> Job:
    assert job.ended.wait(60)
    return job


def client(folder: ReportFolder) -> httpx.Client:
    from starlette.testclient import TestClient

    return TestClient(Starlette(routes=report_routes.routes(folder)), raise_server_exceptions=True)
