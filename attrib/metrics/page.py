"""An evaluation as HTML for notebooks. Every text is escaped."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from attrib.metrics import METRICS
from attrib.metrics.evaluation import Evaluation
from attrib.metrics.summary import Summary, number

_TABLE = Markup('<table style="border-collapse:collapse;font-size:90%">{}</table>')
_ROW = Markup("<tr>{}</tr>")
_HEAD = Markup('<th style="text-align:left;padding:2px 8px" title="{}">{}</th>')
_CELL = Markup('<td style="padding:2px 8px;border-top:1px solid #ccc">{}</td>')


def fragment(evaluation: Evaluation) -> str:
    """A table: a line per method and metric with its interval, the references and the verdict in words; the notes."""
    names = list(dict.fromkeys(name for row in evaluation.rows for name in row.references))
    heads = ["metric", "method", "mean", "interval", *(name.replace("_", " ") for name in names), "verdict"]
    lines = [_ROW.format(_joined(_HEAD.format("", head) for head in heads))]
    lines += [_ROW.format(_joined(map(_CELL.format, _cells(line, names)))) for line in evaluation.summary()]
    notes = _joined(Markup("<p>{}</p>").format(note) for note in evaluation.notes)
    return str(Markup("<div>{}{}{}</div>").format(_TABLE.format(_joined(lines)), _questions(evaluation), notes))


def _cells(line: Summary, names: list[str]) -> list[str]:
    interval = "–" if line.low is None or line.high is None else f"{number(line.low)} to {number(line.high)}"
    better = "" if line.better == "neither" else f" ({line.better} is better)"
    references = [number(line.references.get(name, float("nan"))) for name in names]
    return [f"{line.metric}{better}", line.method, number(line.mean), interval, *references, line.verdict]


def _questions(evaluation: Evaluation) -> Markup:
    """What each metric asks, and when it misleads."""
    known = [METRICS[name].card for name in evaluation.metrics if name in METRICS]
    line = Markup("<p><b>{}</b> {} <i>Misleading:</i> {}</p>")
    return _joined(line.format(card.title, card.question, card.misleads) for card in known)


def _joined(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)
