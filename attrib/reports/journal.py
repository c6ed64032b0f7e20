"""What a run has finished, in one SQLite file: a kill at any instant leaves the last whole batch."""

from __future__ import annotations

import fcntl
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from attrib.errors import ReportError
from attrib.reports.files import disk_errors

_TABLES = """
CREATE TABLE IF NOT EXISTS inputs (
    position INTEGER PRIMARY KEY, item TEXT NOT NULL, run INTEGER NOT NULL, record TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS inputs_by_item ON inputs (item, position);
CREATE TABLE IF NOT EXISTS results (
    item TEXT, model TEXT, method TEXT, target TEXT, found TEXT NOT NULL, seconds REAL, memory INTEGER,
    PRIMARY KEY (item, model, method, target)) WITHOUT ROWID;
"""


class Key(NamedTuple):
    """What is computed once: an item by its content, a model, a method and a target, by their names in the spec."""

    item: str
    model: str
    method: str
    target: str


class Finished(NamedTuple):
    """A result: `found` is the same in every run, seconds and memory are not."""

    key: Key
    found: dict[str, Any]
    seconds: float
    memory: int


class Journal:
    """The table of inputs and the table of results. One process writes; its threads may share it."""

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self._path = path
        self._writable = writable
        self._lock = threading.RLock()
        with _database_errors(path):
            where = f"{path.resolve().as_uri()}?mode={'rwc' if writable else 'ro'}"
            self._base = sqlite3.connect(where, uri=True, timeout=60, check_same_thread=False, isolation_level=None)
            if writable:
                self._base.execute("PRAGMA journal_mode = TRUNCATE")
                self._base.execute("PRAGMA synchronous = FULL")
                self._base.executescript(_TABLES)

    def close(self) -> None:
        with self._lock, _database_errors(self._path):
            if self._writable:
                self._base.execute("PRAGMA journal_mode = DELETE")  # leaves no second file behind
            self._base.close()

    def next_run(self) -> int:
        """A number for a pass over the inputs; those of earlier passes that it does not meet no longer count."""
        return int(self._one("SELECT COALESCE(MAX(run), 0) + 1 FROM inputs"))

    def add_inputs(self, run: int, inputs: Iterable[tuple[int, str, dict[str, Any]]]) -> None:
        """(position, item, record) of inputs that this run has met."""
        rows = [(position, item, run, _json(record)) for position, item, record in inputs]
        self._write("INSERT OR REPLACE INTO inputs VALUES (?, ?, ?, ?)", rows)

    def first_position(self, run: int, item: str) -> int | None:
        """Where this run met the item first."""
        found = self._one("SELECT MIN(position) FROM inputs WHERE item = ? AND run = ?", (item, run))
        return None if found is None else int(found)

    def forget_other_runs(self, run: int) -> int:
        """Drop inputs that the complete pass `run` did not meet; their number. Their results stay."""
        gone = int(self._one("SELECT COUNT(*) FROM inputs WHERE run != ?", (run,)))
        self._write("DELETE FROM inputs WHERE run != ?", [(run,)])
        return gone

    def has(self, key: Key) -> bool:
        sql = "SELECT 1 FROM results WHERE item = ? AND model = ? AND method = ? AND target = ?"
        return self._one(sql, key) is not None

    def add(self, finished: Iterable[Finished]) -> None:
        """All of them or none."""
        rows = [(*f.key, _json(f.found), f.seconds, f.memory) for f in finished]
        self._write("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def inputs(self) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """(position, item, record) in the order of the inputs; a page of them in memory at a time."""
        last = -1
        while page := self._all(
            "SELECT position, item, record FROM inputs WHERE position > ? ORDER BY position LIMIT 256", (last,)
        ):
            yield from ((position, item, json.loads(record)) for position, item, record in page)
            last = page[-1][0]

    def input_of(self, item: str) -> tuple[int, dict[str, Any]] | None:
        """(position, record) of the first input with this content."""
        found = self._all("SELECT position, record FROM inputs WHERE item = ? ORDER BY position LIMIT 1", (item,))
        return (found[0][0], json.loads(found[0][1])) if found else None

    def results_of(self, item: str) -> list[Finished]:
        """All that is known of one item, in no particular order."""
        sql = "SELECT item, model, method, target, found, seconds, memory FROM results WHERE item = ?"
        return [Finished(Key(*row[:4]), json.loads(row[4]), row[5], row[6]) for row in self._all(sql, (item,))]

    def count_results(self, item: str) -> int:
        """How many rows of one item are finished."""
        return int(self._one("SELECT COUNT(*) FROM results WHERE item = ?", (item,)))

    def count_inputs(self) -> int:
        return int(self._one("SELECT COUNT(*) FROM inputs"))

    def count_items(self) -> int:
        """Different inputs: those of the same content and target count once."""
        return int(self._one("SELECT COUNT(DISTINCT item) FROM inputs"))

    def forget_failed(self) -> None:
        """Drop the results that are errors, so that they are computed again."""
        self._write("DELETE FROM results WHERE json_extract(found, '$.error') IS NOT NULL AND 1 = ?", [(1,)])

    def _one(self, sql: str, values: Iterable[Any] = ()) -> Any:
        found = self._all(sql, values)
        return found[0][0] if found else None

    def _all(self, sql: str, values: Iterable[Any] = ()) -> list[Any]:
        with self._lock, _database_errors(self._path):
            return self._base.execute(sql, tuple(values)).fetchall()

    def _write(self, sql: str, rows: list[Any]) -> None:
        with self._lock, _database_errors(self._path):
            self._base.execute("BEGIN IMMEDIATE")
            try:
                self._base.executemany(sql, rows)
                self._base.execute("COMMIT")
            except BaseException:
                if self._base.in_transaction:  # a full disk rolls back by itself
                    self._base.execute("ROLLBACK")
                raise


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """One run at a time in a folder; the lock of a killed run is gone with it."""
    with ExitStack() as stack:
        with disk_errors(path):
            file = stack.enter_context(path.open("ab"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ReportError(f"another run is writing into {str(path.parent)!r}; wait for it or stop it") from None
        yield


@contextmanager
def _database_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise ReportError(
            f"cannot use {str(path)!r}: {error}; make sure the folder can be written and has space, then run the same "
            "command again: what is finished is kept"
        ) from error


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))
