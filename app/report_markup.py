"""Reports as HTML for the page: how far one is, the list of all, and one to read. Every text is escaped."""

from __future__ import annotations

import html
import time
from collections.abc import Sequence

from app import markup
from app.report_folder import Kept, ReportFolder
from app.report_jobs import Job, Jobs
from app.report_routes import SANDBOX, address

MOST_LISTED = 100

# a row's buttons say what they are for; what cannot be undone is asked for twice
CHOOSE_REPORT = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-action]');
  if (!button) return;
  if (button.dataset.confirm && !window.confirm(button.dataset.confirm)) return;
  trigger('click', {action: button.dataset.action, name: button.dataset.name});
});"""

# a report that was opened with a button is shown; one that becomes ready leaves the page where it is
COME_INTO_VIEW = """
new MutationObserver(() => {
  const button = document.activeElement;
  if (element.querySelector('iframe') && button?.dataset.action === 'open') element.scrollIntoView();
}).observe(element, {childList: true, subtree: true});"""


def progress(job: Job) -> str:
    """A report's state: the bar with what is left, or how it ended."""
    if not job.ended.is_set():
        left = job.left()
        message = "stopping after the current step" if job.run.stopped.is_set() else job.message
        told = f"{job.name}: {message}, {job.done} of {job.total}"
        eta = "" if left is None or job.run.stopped.is_set() else f", about {duration(left)} left"
        return markup.status(told + eta, "busy", job.done / job.total if job.total else 0.0)
    if job.error:
        return markup.status(f"{job.name}: {job.error}", "error")
    return markup.status(f"{job.name} is ready: {job.summary}", "error" if job.failures else "done")


def duration(seconds: float) -> str:
    """In words, with no more precision than it deserves."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole < 600 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def listed(jobs: Jobs) -> str:
    """All reports of the folder, the latest first."""
    running = {job.name for job in jobs.running()}
    kept = jobs.folder.all()
    if not kept:
        return '<p class="at-empty">There is no report yet.</p>'
    rows = "".join(_row(jobs.folder, report, report.name in running) for report in kept[:MOST_LISTED])
    more = f"<p>{len(kept) - MOST_LISTED} older ones are not listed.</p>" if len(kept) > MOST_LISTED else ""
    return markup.inert(f'<h2>Reports</h2><ul class="at-reports">{rows}</ul>{more}')


def viewer(folder: ReportFolder, name: str) -> str:
    """The report in a frame of its own, which can reach nothing of the page around it."""
    place = html.escape(address(folder, name, "index.html"))
    return markup.inert(
        f'<h2>{html.escape(name)}</h2><p><a href="{place}" target="_blank" rel="noopener noreferrer">Open it in a tab '
        f'of its own</a></p><iframe class="at-report" sandbox="{SANDBOX}" referrerpolicy="no-referrer" src="{place}" '
        f'title="The report {html.escape(name)}"></iframe>'
    )


def _row(folder: ReportFolder, kept: Kept, running: bool) -> str:
    name = html.escape(kept.name)
    state = "being made" if running else "ready" if kept.finished else "not finished"
    if running:
        buttons = _button("watch", name, "Watch") + _button("cancel", name, "Cancel")
    else:
        first = _button("open", name, "Open") if kept.finished else _button("continue", name, "Continue")
        saved = f'<a href="{html.escape(address(folder, kept.name, f"{kept.name}.zip"))}" download>Zip</a>'
        sure = f"Delete the report {name} with its uploads? This cannot be undone."
        buttons = first + (saved if kept.finished else "") + _button("delete", name, "Delete", sure)
    return (
        f'<li><div><strong>{name}</strong> <span class="at-state at-{state.split()[0]}">{state}</span>'
        f"<small>{html.escape(_about(kept))}</small></div><div>{buttons}</div></li>"
    )


def _about(kept: Kept) -> str:
    inputs = kept.counts.get("inputs") or len(kept.ask.inputs)
    what = ("picture" if kept.ask.kind == "image" else "text") if kept.finished or kept.ask.kind == "image" else "file"
    failed = kept.counts.get("failed_inputs", 0)
    facts: Sequence[str] = (
        f"{inputs} {what}{'' if inputs == 1 else 's'}" + (f", {failed} failed" if failed else ""),
        kept.ask.model,
        ", ".join(kept.ask.methods),
        time.strftime("%Y-%m-%d %H:%M", time.gmtime(kept.started)) + " UTC",
    )
    return " · ".join(facts)


def _button(action: str, name: str, label: str, confirm: str = "") -> str:
    asks = f' data-confirm="{confirm}"' if confirm else ""
    return (
        f'<button type="button" data-action="{action}" data-name="{name}"{asks} aria-label="{label} {name}">{label}'
        "</button>"
    )
