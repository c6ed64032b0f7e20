"""Runs rows on cases: each row's calls and the reference take turns in this process."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from benchmarks.cases import Case
from benchmarks.measure import Cost, Run, compare, once
from benchmarks.rows import Limit, Row

OURS = "attrib"


@dataclass(frozen=True)
class Line:
    """A measured row. costs: by library, ours under "attrib". failures: what a library raised instead."""

    row: Row
    network: str
    batch: int | str
    costs: dict[str, Cost]
    failures: dict[str, str] = field(default_factory=dict)
    remark: str | None = None

    @property
    def limit(self) -> Limit:
        return self.row.limits.get(self.network, Limit())


def measured(row: Row, case: Case, repeats: int) -> Line:
    """One row. A peer that cannot do it is reported; if we cannot, the error is raised."""
    calls: dict[str, Run] = {OURS: row.ours(case)}
    failures: dict[str, str] = {}
    reference = case.bare if row.per is None else case.forward
    with _seeds_and_silence():
        for name, start in row.peers.items():
            failed = _tried(calls, name, start, case, row.long)
            if failed is not None:
                failures[name] = failed
        costs = once(reference, calls, case.device) if row.long else compare(reference, calls, repeats, case.device)
        costs = {name: _each(row, case, name, cost) for name, cost in costs.items()}
        remark = None if row.remark is None else row.remark(case)
    return Line(row, case.network, case.batch, costs, failures, remark)


def _each(row: Row, case: Case, name: str, cost: Cost) -> Cost:
    per = row.per if name == OURS else row.peers_per or row.per
    return cost if per is None else cost.each(per(case))


def _tried(calls: dict[str, Run], name: str, start: Callable[[Case], Run], case: Case, long: bool) -> str | None:
    """Add the peer's call, if it works; else what it raised. A long one is only set up."""
    try:
        call = start(case)
        if not long:
            call()
    except ImportError:
        return "not installed"
    except Exception as error:  # anything may come out of a peer that does not support a network
        return f"raises {type(error).__name__}"
    calls[name] = call
    return None


@contextmanager
def _seeds_and_silence() -> Iterator[None]:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers' remarks about gradients and hooks
        yield
