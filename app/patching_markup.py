"""Pieces of HTML of the patching tab. Prompts and tokens are anybody's text: all of it is escaped."""

from __future__ import annotations

import html
import math

from app.markup import inert
from app.patching import PatchAnswer, kind_title
from app.patching_heatmaps import drawn_panels, heatmap, legend, scales_of
from app.patching_pairs import Look
from app.patching_scatter import alike, scatter
from attrib.attribution import labels_of
from attrib.render import readable
from attrib.render.lights import SIGNS
from attrib.render.scale import number

TOP = 10  # effects in the list
NO_PAIR = "Both prompts will be here, token under token, with what the model says next."


def aligned(look: Look) -> str:
    """Both prompts token under token: a list, so that it wraps on a phone; differences marked."""
    items, differing = [], sum(column.differs for column in look.columns)
    for place, column in enumerate(look.columns):
        a, b = ("∅" if token is None else readable(token) for token in column)
        says = f"{place}: clean {a}, corrupted {b}, they differ" if column.differs else f"{place}: {a} in both"
        mark = ' class="pt-differs"' if column.differs else ""
        items.append(
            f'<li{mark} aria-label="{html.escape(says)}"><small>{place}</small><span>{html.escape(a)}</span>'
            f"<span>{html.escape(b)}</span></li>"
        )
    count = "1 place differs" if differing == 1 else f"{differing} places differ"
    warning = f'<p class="at-warning" role="alert">{html.escape(look.problem)}</p>' if look.problem else ""
    return inert(
        f'<p class="pt-caption">{len(items)} tokens, clean above, corrupted below; <strong>{count}</strong></p>'
        f'<ol class="pt-aligned" dir="auto">{"".join(items)}</ol>{warning}'
    )


def shown(answer: PatchAnswer, how: str, palette: str) -> str:
    """The metric, the heatmaps and the strongest effects."""
    return inert(_summary(answer) + heatmaps(answer, how, palette) + strongest(answer))


def heatmaps(answer: PatchAnswer, how: str, palette: str) -> str:
    drawn = drawn_panels(answer.result, answer.kinds)
    found = scales_of(answer, drawn, how, palette)
    share = how == "share" and answer.metric[0] != answer.metric[1]
    unit = (
        "Effect in % of the metric's change: 100 % makes the corrupted run answer as the clean one does."
        if share
        else "Effect in units of the metric (logits): how far the patch moves it."
    )
    if how == "own":
        maps = [heatmap(panel, scale, unit) for (_, panel), scale in zip(drawn, found, strict=True)]
        return f'<div class="pt-panels">{"".join(maps)}</div>'
    maps = [heatmap(panel, scale) for (_, panel), scale in zip(drawn, found, strict=True)]
    return f'<div class="pt-legend">{legend(found[0], unit)}</div><div class="pt-panels">{"".join(maps)}</div>'


def strongest(answer: PatchAnswer) -> str:
    change = answer.metric[0] - answer.metric[1]
    rows = "".join(
        f"<tr><td>{html.escape(e.site)}</td><td>{e.position}</td><td>{html.escape(_tokens(e.clean, e.corrupted))}</td>"
        f"<td>{_signed(e.value)}</td><td>{_share(e.value, change)}</td></tr>"
        for e in answer.result.top(TOP)
    )
    return (
        f'<div class="pt-scroll"><table class="pt-list"><caption>The {TOP} strongest effects</caption><thead><tr>'
        '<th scope="col">site</th><th scope="col">position</th><th scope="col">token</th><th scope="col">effect</th>'
        f'<th scope="col">of the change</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def verification(answer: PatchAnswer) -> str:
    """The true effects beside the estimates: the correlation, a scatter, a table."""
    found = answer.verified
    if found is None:
        return ""
    of = f" of {kind_title(answer.of).lower()}" if answer.of else ""
    r = (
        "not defined, as one of the two does not vary"
        if math.isnan(found.correlation)
        else _minus(f"{found.correlation:.3f}")
    )
    rows = "".join(
        f"<tr><td>{html.escape(e.site)}</td><td>{e.position}</td><td>{html.escape(_tokens(e.clean, e.corrupted))}</td>"
        f"<td>{_signed(e.estimated)}</td><td>{_signed(e.true)}</td></tr>"
        for e in found.entries
    )
    return inert(
        f'<section class="pt-verified" aria-label="Verification"><h3>Against activation patching</h3>'
        f"<p>Pearson’s r over the {len(found.entries)} strongest estimates{html.escape(of)}: <strong>{r}</strong>. "
        f"{alike(found)}It says nothing of effects that the estimate missed.</p>"
        f'{scatter(found)}{_light(answer)}<details class="pt-numbers"><summary>The values as a table</summary>'
        '<div class="pt-scroll"><table class="pt-list"><thead><tr><th scope="col">site</th><th scope="col">position'
        '</th><th scope="col">token</th><th scope="col">estimated</th><th scope="col">true</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details></section>"
    )


def _light(answer: PatchAnswer) -> str:
    """What entries drawn at random say, by a sign and words; colour only repeats it."""
    if answer.checked is None:
        return ""
    (light,) = answer.checked.lights[0]
    kind = light.verdict.replace(" ", "-")
    return (
        f'<p class="pt-light pt-{kind}"><strong><span aria-hidden="true">{SIGNS[light.verdict]}</span> '
        f"{html.escape(light.verdict)}: {html.escape(light.name)}</strong> {html.escape(_minus(light.words))}</p>"
    )


def metric_name(answer: PatchAnswer) -> str:
    names = labels_of(answer.result.target)[0]
    target = answer.result.target[0]
    if "versus" in target:
        first, second = target.get("label", target.get("index")), target.get("versus_label", target["versus"])
        return f"logit of “{readable(str(first))}” − logit of “{readable(str(second))}”"
    return f"logit of “{readable(names)}”"


def _summary(answer: PatchAnswer) -> str:
    clean, corrupted = answer.metric
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in answer.result.notes)
    equal = (
        f'<p class="at-warning" role="alert">The metric is {_signed(clean)} in both runs, so effects are no share of '
        "its change; take an answer and a wrong answer that the two prompts tell apart.</p>"
        if clean == corrupted
        else ""
    )
    return (
        f"<h2>{html.escape(metric_name(answer))}</h2>"
        f'<dl class="pt-metric"><div><dt>clean run</dt><dd>{_signed(clean)}</dd></div><div><dt>corrupted run</dt>'
        f"<dd>{_signed(corrupted)}</dd></div><div><dt>change</dt><dd>{_signed(clean - corrupted)}</dd></div></dl>"
        f"{equal}{f'<ul class=at-notes>{notes}</ul>' if notes else ''}"
    )


def _tokens(clean: str, corrupted: str) -> str:
    return readable(clean) if clean == corrupted else f"{readable(clean)} / {readable(corrupted)}"


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{_minus(number(value))}"


def _share(value: float, change: float) -> str:
    return _minus(f"{100 * value / change:.0f} %") if change else "–"


def _minus(number: str) -> str:
    return number.replace("-", "−", 1)
