"""Models and a folder for reports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.catalogue import Catalogue
from app.report_folder import ReportFolder
from app.report_inputs import Limits
from attrib.models import MODELS
from tests.app import tiny_text
from tests.app.reports.making import NAME


@pytest.fixture(scope="module")
def catalogue() -> Iterator[Catalogue]:
    known = dict(MODELS)
    tiny_text.offer()
    yield Catalogue((NAME, tiny_text.CLASSIFIER))
    MODELS.clear()
    MODELS.update(known)


@pytest.fixture
def folder(tmp_path: Path) -> ReportFolder:
    return ReportFolder(tmp_path / "reports", Limits(10, 2**20, 2**30))
