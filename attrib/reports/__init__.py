"""Batch reports: from a folder of inputs to an audit that can be read, resumed and checked again."""

from __future__ import annotations

from attrib.reports.api import report
from attrib.reports.how import How
from attrib.reports.run import Report, run
from attrib.reports.spec import Spec, spec_of
from attrib.reports.store import Input, Row, Store

__all__ = ["How", "Input", "Report", "Row", "Spec", "Store", "report", "run", "spec_of"]
