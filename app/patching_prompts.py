"""The patching tab's prompts: examples, tokens under each other, both runs' predictions, the two answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import gradio as gr

import attrib
from app import markup, patching_markup, patching_pairs
from app.catalogue import Catalogue
from app.fetching import how_to_get
from app.model_choice import connect_model
from app.parts import Parts
from app.patching_parts import ASKED, LIKELY, verify_label
from app.patching_questions import EXAMPLES, USUAL_FILLER, PatchAsk, example, kinds_for, model_of
from app.running import PRIVATE, UNCHANGED, Updates, guarded
from app.server import Server
from app.text_parts import NOTHING
from attrib.render import readable


def looked_at(parts: Parts) -> list[Any]:
    names = "seen looked predictions clean_next corrupted_next answer_token wrong pad_box fetch wished"
    return [parts.named[name] for name in names.split()]


def connect_prompts(server: Server, parts: Parts) -> None:
    catalogue = server.catalogue
    inputs, outputs = [parts.named[name] for name in (*ASKED[:3], "pad", "filler")], looked_at(parts)
    look = guarded(partial(look_at, parts, catalogue), parts.predictions)
    latest: dict[str, Any] = {"trigger_mode": "always_last", **PRIVATE}

    def look_again(seen: Any, wished: PatchAsk | None, *given: Any) -> Updates:
        # a page that is still being drawn tells of empty prompts, maybe later than a link has written them
        if seen is None and not any(given[:2]):
            return UNCHANGED
        written = [] if wished is None else [a == (b or "") for a, b in zip(_texts(wished), given, strict=False)]
        if wished is None or not any(written):
            return UNCHANGED if seen == given else look(*given)
        if not all(written):
            return UNCHANGED  # one of the two is written, the other is about to be
        # what a link or an example has written; the page may tell of its prompts before its model
        given = (wished.clean, wished.corrupted, wished.model, bool(wished.filler), wished.filler or given[4])
        updates = {} if seen == given else answered(parts, catalogue, look(*given), wished)
        return {**updates, parts.wished: None}

    # one event for both: when an example writes both, it may be told of the one before the other
    gr.on(
        [parts.clean.change, parts.corrupted.change], look_again, [parts.seen, parts.wished, *inputs], outputs, **latest
    )
    parts.pad.input(look, inputs, outputs, **latest)
    parts.filler.input(look, inputs, outputs, **latest)
    connect_model(server, parts, look, inputs, outputs)
    parts.looked.change(
        guarded(partial(_fitting, parts, catalogue), parts.predictions), [parts.model, parts.kinds],
        [parts.kinds, parts.predictions], **latest,
    )  # fmt: skip

    taken = [*outputs, parts.task, parts.clean, parts.corrupted, parts.pad, parts.seed]
    take = guarded(partial(_taken, parts, catalogue), parts.predictions)
    wanted = [parts.task, parts.seed, parts.model, parts.filler, parts.clean, parts.corrupted]
    parts.task.input(take, wanted, taken, **PRIVATE)
    parts.another.click(
        lambda task, seed, *others: take(task or next(iter(EXAMPLES)), int(seed or 0) + 1, *others), wanted, taken,
        **PRIVATE,
    )  # fmt: skip

    for which, (bars, answer) in enumerate(
        ((parts.clean_next, parts.answer_token), (parts.corrupted_next, parts.wrong))
    ):
        bars.click(_choosing(which), parts.looked, [answer, bars], **PRIVATE)
        answer.input(_chosen(which), [answer, parts.looked], bars, **PRIVATE)
    shown = [parts.groups[name] for name in parts.groups]
    parts.method.change(
        lambda name: [gr.update(visible=each == name) for each in parts.groups], parts.method, shown, queue=False,
        **PRIVATE,
    )  # fmt: skip
    parts.k.change(lambda k: verify_label(int(k or 0)), parts.k, parts.verify, queue=False, **PRIVATE)


def _fitting(parts: Parts, catalogue: Catalogue, model: str, chosen: Sequence[str] | None) -> Updates:
    """The kinds of sites to choose from, of the model that was looked at."""
    if catalogue.missing(model):
        return UNCHANGED
    try:
        choices, kept = kinds_for(model_of(catalogue, model), chosen or ())
    except attrib.AttribError:
        return UNCHANGED  # which is told where prompts are looked at, or when they are patched
    return {parts.kinds: gr.update(choices=choices, value=kept)}


def _choosing(which: int) -> Any:
    def choose(event: gr.EventData, found: Any) -> Any:
        return int(event.index), markup.bars(found[which], int(event.index), LIKELY)

    return choose


def _chosen(which: int) -> Any:
    def choose(value: Any, found: Any) -> str:
        """The bar of the token that was written, or chosen from the list."""
        index = next((row["index"] for row in found[which] if value in (row["index"], row["label"])), None)
        return markup.bars(found[which], index, LIKELY)

    return choose


def look_at(parts: Parts, catalogue: Catalogue, *given: Any) -> Updates:
    """What follows from the prompts and the model: tokens under each other and both runs' predictions."""
    ask = _asked(given)
    missing = catalogue.missing(ask.model)
    updates = {
        parts.seen: given, parts.looked: ([], []), parts.clean_next: markup.bars([], None, LIKELY),
        parts.corrupted_next: markup.bars([], None, LIKELY), parts.fetch: gr.update(visible=missing),
    }  # fmt: skip
    if missing:
        return updates | {parts.predictions: markup.status(how_to_get(ask.model), "error")}
    try:
        model = model_of(catalogue, ask.model)
        if not ask.clean.strip() or not ask.corrupted.strip():
            return updates | {parts.predictions: f'<p class="at-empty">{patching_markup.NO_PAIR}</p>'}
        found = patching_pairs.look(model, ask)
    except attrib.AttribError as error:
        return updates | {parts.predictions: markup.status(str(error), "error")}
    first, second = found.clean[0]["index"], found.corrupted[0]["index"]
    second = second if second != first else found.corrupted[1]["index"]
    choices = _choices([*found.clean, *found.corrupted])
    return updates | {
        parts.looked: (found.clean, found.corrupted),
        parts.predictions: patching_markup.aligned(found),
        parts.clean_next: markup.bars(found.clean, first),
        parts.corrupted_next: markup.bars(found.corrupted, second),
        parts.answer_token: gr.update(choices=choices, value=first),
        parts.wrong: gr.update(choices=[NOTHING, *choices], value=second),
        parts.pad_box: gr.update(visible=found.uneven or bool(ask.filler)),
    }


def _choices(found: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    each = {row["index"]: row["label"] for row in found}
    return [(f"“{readable(label)}” ({index})", index) for index, label in each.items()]


def _taken(parts: Parts, catalogue: Catalogue, task: str, seed: Any, model: str, filler: str, *old: str) -> Updates:
    """An example pair in place of what was there."""
    if catalogue.missing(model):
        return {parts.predictions: markup.status(how_to_get(model), "error"), parts.fetch: gr.update(visible=True)}
    seed = int(seed or 0)
    try:
        ask = example(catalogue, model, task, seed)
    except attrib.AttribError as error:
        return {parts.predictions: markup.status(str(error), "error")}
    updates = look_at(parts, catalogue, ask.clean, ask.corrupted, model, False, filler)
    return answered(parts, catalogue, updates, ask) | {
        parts.wished: ask if _texts(ask) != old else None,
        parts.clean: ask.clean, parts.corrupted: ask.corrupted, parts.task: task, parts.pad: False,
        parts.seed: seed,
    }  # fmt: skip


def answered(parts: Parts, catalogue: Catalogue, updates: Updates, ask: PatchAsk) -> Updates:
    """The same updates with the question's answers chosen."""
    found = updates.get(parts.looked, ([], []))
    for row, name, answer, bars in (
        (found[0], ask.answer, parts.answer_token, parts.clean_next),
        (found[1], ask.wrong, parts.wrong, parts.corrupted_next),
    ):
        if found[0] and name is not None:
            choices = _choices([*found[0], *found[1], *_labelled(catalogue, ask.model, name)])
            updates |= {answer: gr.update(choices=[NOTHING, *choices], value=name), bars: markup.bars(row, name)}
    return updates


def _labelled(catalogue: Catalogue, model: str, name: int | str) -> list[dict[str, Any]]:
    """A token given by its index, as the lists show it; nothing for one that the model has not."""
    loaded = model_of(catalogue, model)
    try:
        return [{"index": name, "label": loaded.label_of(loaded.index_of(name))}] if isinstance(name, int) else []
    except attrib.AttribError:
        return []


def _asked(given: Sequence[Any]) -> PatchAsk:
    clean, corrupted, model, pad, filler = given
    return PatchAsk(clean or "", corrupted or "", model, filler=(filler or USUAL_FILLER) if pad else "")


def _texts(ask: PatchAsk) -> tuple[str, str]:
    return ask.clean, ask.corrupted
