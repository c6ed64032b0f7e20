"""Reports being made, in threads of the server: they outlive the page that asked, and stop when they are cancelled."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import attrib
from app import questions
from app.catalogue import Catalogue
from app.places import size
from app.report_asks import ReportAsk
from app.report_folder import ReportFolder, usual_name
from app.report_inputs import TABLES, Upload, check
from app.report_told import failures, for_visitors, summary
from app.runs import Run

log = logging.getLogger("attrib.app")

LONGEST = 7 * 86_400.0  # seconds; inputs and disk are what bounds a report
LOOK_AT_DISK = 10.0  # seconds between two looks
AT_ONCE = 8  # inputs that go through a model together: Cancel and the bar need not wait for more


@dataclass(eq=False)
class Job:
    """One report under way. done, total: rows. before: rows that were finished when it began. ended: set at last.

    error: the sentence why it did not finish; summary: what there is to say of a finished one.
    """

    name: str
    total: int
    run: Run = field(default_factory=lambda: Run(LONGEST))
    done: int = 0
    before: int | None = None
    began: float = 0.0  # when the first row was to be computed, on time.monotonic
    moved: float = 0.0  # when `done` grew last
    message: str = "waiting for the model"
    error: str = ""
    summary: str = ""
    failures: dict[str, str] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)

    def told(self, done: int, message: str) -> None:
        """Note how far it is. Raises attrib.Cancelled once it shall stop."""
        self.run.check()
        if message == "explaining" and self.before is None and done:
            self.before, self.began = done, time.monotonic()
        if done > self.done:
            self.moved = time.monotonic()
        self.done, self.message = max(done, self.done), message

    def left(self) -> float | None:
        """Seconds until everything is explained, as far as can be told."""
        fresh = self.done - (self.before or 0)
        if self.before is None or fresh < 1 or self.message != "explaining":
            return None
        # rows come in batches: between two of them the time that is left shrinks
        left = (self.moved - self.began) / fresh * (self.total - self.done) - (time.monotonic() - self.moved)
        return max(left, 0.0)


class Jobs:
    """At most `slots` reports are made at a time; one more is refused."""

    def __init__(self, folder: ReportFolder, catalogue: Catalogue, slots: int) -> None:
        self.folder = folder
        self._catalogue = catalogue
        self._slots = slots
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}

    def running(self) -> list[Job]:
        with self._lock:
            return [job for job in self._jobs.values() if not job.ended.is_set()]

    def latest(self, name: str) -> Job | None:
        """The last time that this server worked on the report, if it did."""
        return self._jobs.get(name)

    def start(self, name: str, ask: ReportAsk, uploads: Sequence[Upload]) -> Job:
        """Begin a report, or go on with the same one. Raises attrib's errors, and then nothing was kept."""
        name, uploads = name.strip() or usual_name(ask.model), sorted(uploads, key=lambda upload: upload.name)
        self.folder.place(name)
        check(uploads, ask, self.folder.limits)
        self._check_slots(name)
        self.folder.keep(name, ask, uploads)
        return self.go_on(name)

    def go_on(self, name: str) -> Job:
        """Work on a report that is there: what is finished of it is kept. Raises InputError."""
        ask = self.folder.get(name).ask
        self.folder.check_space()
        with self._lock:
            self._check_slots(name, locked=True)
            job = self._jobs[name] = Job(name, self._rows(name, ask))
        threading.Thread(target=self._work, args=(job, ask), name=f"report-{name}", daemon=True).start()
        return job

    def cancel(self, name: str) -> bool:
        """Stop it between two chunks of a method; what is finished is kept. False: it does not run."""
        job = self._jobs.get(name)
        if job is None or job.ended.is_set():
            return False
        job.run.stop()
        return True

    def delete(self, name: str) -> None:
        """Raises InputError for a report that is being made, or is not there."""
        if any(job.name == name for job in self.running()):
            raise attrib.InputError(f"{name} is being made: cancel it first")
        self.folder.delete(name)
        self._jobs.pop(name, None)

    def _check_slots(self, name: str, locked: bool = False) -> None:
        jobs = list(self._jobs.values()) if locked else self.running()
        busy = [job.name for job in jobs if not job.ended.is_set()]
        if name in busy:
            raise attrib.InputError(f"{name} is being made already")
        if len(busy) >= self._slots:
            raise attrib.InputError(f"another report, {busy[0]}, is being made: wait for it, or cancel it")

    def _rows(self, name: str, ask: ReportAsk) -> int:
        """Inputs × methods × targets."""
        inputs = [Upload(str(self.folder.inputs(name) / file), shown) for file, shown, _ in ask.inputs]
        return check(inputs, ask, self.folder.limits) * len(ask.methods) * max(1, len(ask.targets))

    def _work(self, job: Job, ask: ReportAsk) -> None:
        place = self.folder.place(job.name)
        try:
            made = self._made(job, ask)
            job.failures = failures(made)
            job.summary = summary(made, job.failures)
        except attrib.Cancelled as error:
            job.error = f"{error}: what is finished is kept, and Continue goes on with it"
        except attrib.AttribError as error:
            job.error = for_visitors(str(error), str(place), job.name)
            if not self.folder.report(job.name).exists():  # the question itself was wrong
                self._forget(job.name)
        except Exception:
            log.exception("the report %s failed", job.name)
            job.error = "the report failed for a reason that is not yours; the server's log has it"
        finally:
            job.run.stop()
            job.ended.set()

    def _made(self, job: Job, ask: ReportAsk) -> Any:
        model = questions.of_kind(self._catalogue, ask.model, ask.kind)  # before anything is read as texts or paths
        options: dict[str, Any] = {
            "targets": list(ask.targets) or None,
            "batch": AT_ONCE,
            "evidence": list(ask.evidence) or None,
            "on_progress": self._progress(job),
        }
        inputs, out = self.folder.inputs(job.name), self.folder.report(job.name)
        if ask.kind == "image":
            photos = [{"path": str(inputs / file), "id": shown} for file, shown, _ in ask.inputs]
            return attrib.report(photos, model, ask.made(), out, **options)
        table = inputs / ask.inputs[0][0]
        with table.open("rb") as file:
            columns = dict(ask.columns)
            return attrib.report(file, model, ask.made(), out, format=TABLES[table.suffix], columns=columns, **options)

    def _progress(self, job: Job) -> Callable[[int, int | None, str], None]:
        """Told how far a report is; looks after the disk, too."""
        others = size(self.folder.root) - size(self.folder.place(job.name))
        looked = time.monotonic()

        def told(done: int, total: int | None, message: str) -> None:
            nonlocal looked
            job.told(done, message)
            if time.monotonic() - looked > LOOK_AT_DISK:
                self.folder.check_space(others + size(self.folder.place(job.name)))
                looked = time.monotonic()

        return told

    def _forget(self, name: str) -> None:
        try:
            self.folder.delete(name)
        except attrib.InputError:
            log.exception("the report %s cannot be deleted", name)
