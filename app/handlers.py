"""What the app does, without a page: plain values in, plain values out. No gradio in here."""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import attrib
from app import controls
from app.runs import Run
from attrib.attribution import labels_of
from attrib.models import MODELS, models, photos
from attrib.models.pull import is_pulled
from attrib.render import Display, Entry, readable

log = logging.getLogger("attrib.app")

DEFAULT_METHODS = {
    "image": ("lrp", "integrated_gradients", "excitation_pullback", "normgrad", "grad_cam", "guided_backprop"),
    "text": ("lrp", "integrated_gradients", "input_x_gradient", "occlusion"),
}
# kind -> method -> values of its controls that suit this kind of input better than the method's defaults
USUAL_SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "image": {},
    "text": {"lrp": {"preset": "attn_lrp", "positions": True}},
}
VIEWS = ("over the photo", "map alone")
USUAL = Display(blur=1.0)  # single pixels are hard to see; one pixel of smoothing moves nothing
USUAL_TEXT = Display(whole_words=True)
TEXT_SCALES = {"relative": "Shared, % of each method's strongest", "raw": "Shared, raw values", "own": "Each its own"}
ASCENT = "excitation_pullback"  # its steps > 0 give a changed photo to compare with the original
TICK = 0.4  # seconds between two signs of life
# text, and the model it is for where that is on offer
EXAMPLE_TEXTS: tuple[tuple[str, str], ...] = (
    ("The plot is thin, but the acting is wonderful and I left the cinema smiling.", "minilm-sentiment"),
    ("The food was not good at all, and nobody seemed to care.", "minilm-sentiment"),
    ("I expected to hate this phone. I was wrong.", "minilm-sentiment"),
    ("The capital of France is", "smollm2-135m"),
    ("When Mary and John went to the store, John gave a drink to", "smollm2-135m"),
    ("Roses are red, violets are", "smollm2-135m"),
)
VERSUS = {
    "logits": "explain the difference of the two logits",
    "maps": "subtract the two maps, each in shares of its own total",
}


class Catalogue:
    """The models on offer, loaded once and then shared by everybody."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names = tuple(names) or models()
        self._loaded: dict[str, Any] = {}
        self._locks = {name: threading.Lock() for name in self.names}  # a slow one keeps nobody from the others

    def __getitem__(self, name: str) -> Any:
        """Raises attrib.UnknownName for what is not on offer, attrib.ModelUnavailable for what cannot be had."""
        if name not in self.names:
            raise attrib.UnknownName("model", name, self.names)
        with self._locks[name]:
            if name not in self._loaded:
                self._loaded[name] = attrib.load(name)
            return self._loaded[name]

    def of(self, kind: str) -> tuple[str, ...]:
        """The names for one kind of input, without loading anything."""
        return tuple(name for name in self.names if kind in kinds_of(name))

    def missing(self, name: str) -> bool:
        """Whether the model has to be fetched before it can be used."""
        entry = MODELS.get(name)
        return entry is not None and name not in self._loaded and not _is_here(entry)


def kinds_of(name: str) -> tuple[str, ...]:
    """What a model explains, as far as its name tells; both where only loading it would."""
    if name in MODELS:
        return (MODELS[name].kind,)
    prefix, _, rest = name.partition(":")
    if prefix != "hf":
        return ("image",)
    try:
        config = json.loads(Path(rest, "config.json").expanduser().read_text(encoding="utf-8"))
        heads = " ".join(config.get("architectures") or ())
    except (OSError, ValueError, AttributeError, TypeError):
        return ("image", "text")
    return ("image",) if "ImageClassification" in heads else ("text",)


def _is_here(entry: Any) -> bool:
    return entry.source is None or is_pulled(entry.name, entry.source)


@dataclass(frozen=True)
class Ask:
    """One question. methods: (name, values of its controls); target, versus: class index, label or None.

    photo: a file. text: the text to explain instead of a photo.
    """

    photo: str
    model: str
    methods: tuple[tuple[str, Mapping[str, Any]], ...]
    target: int | str | None = None
    versus: int | str | None = None
    versus_by: str = "logits"
    text: str | None = None

    @property
    def kind(self) -> str:
        return "image" if self.text is None else "text"

    @property
    def given(self) -> str:
        """What is handed to the model. Raises attrib.InputError where there is nothing."""
        return given(self.photo, self.text)


@dataclass(frozen=True)
class Answer:
    """What is known so far. slider: (before, after) pictures of an ascent. text: what was explained, if a text."""

    results: dict[str, attrib.Attribution] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    slider: tuple[Any, Any] | None = None
    photo_name: str = ""
    text: str | None = None


@dataclass(frozen=True)
class Step:
    """How far a run is; `answer` has grown when `fresh`."""

    fraction: float
    message: str
    answer: Answer
    fresh: bool = False
    done: bool = False


def method_titles(kind: str = "image") -> dict[str, str]:
    """Methods for a kind of input: name to title."""
    return {name: cls.card.title for name, cls in attrib.METHODS.items() if kind in cls.applies_to}


def preselected(kind: str = "image") -> list[str]:
    known = method_titles(kind)
    return [name for name in DEFAULT_METHODS[kind] if name in known] or list(known)[:4]


def usual_settings(kind: str, name: str) -> dict[str, Any]:
    """The values of a method's controls that differ from its defaults for this kind of input."""
    known = {control.name for control in controls.describe(attrib.METHODS[name])}
    return {key: value for key, value in USUAL_SETTINGS[kind].get(name, {}).items() if key in known}


def list_methods() -> list[dict[str, Any]]:
    """Every method with its card and its settings, as JSON can hold them."""
    return [
        {
            "name": name,
            "title": title,
            "idea": attrib.METHODS[name].card.idea,
            "formula": attrib.METHODS[name].card.formula,
            "reference": attrib.METHODS[name].card.reference,
            "misleads": attrib.METHODS[name].card.misleads,
            "cost": attrib.METHODS[name].card.cost,
            "inputs": sorted(attrib.METHODS[name].applies_to),
            "settings": [
                {"name": c.name, "kind": c.kind, "default": c.shown, "help": c.help, "choices": list(c.choices),
                 "low": c.low, "high": c.high}
                for c in controls.describe(attrib.METHODS[name])
            ],
        }
        for name, title in (method_titles("image") | method_titles("text")).items()
    ]  # fmt: skip


def predict(catalogue: Catalogue, photo: str | None, model: str, k: int = 5) -> list[dict[str, Any]]:
    """The k most probable classes: index, label, probability. Raises attrib's errors without the server's paths."""
    with _WithoutPaths(photo):
        found = catalogue[model].predict(given(photo), k=k)[0]
    return [_plain(p) for p in found]


def predict_text(catalogue: Catalogue, text: str, model: str, k: int | None = None) -> list[dict[str, Any]]:
    """The k most probable classes or next tokens (None: five or ten): index, label, probability."""
    loaded = _of_kind(catalogue, model, "text")
    wanted = k if k is not None else (10 if loaded.task == "next_token" else 5)
    return [_plain(p) for p in loaded.predict(given(None, text), k=wanted)[0]]


def _plain(p: Any) -> dict[str, Any]:
    return {"index": int(p.index), "label": str(p.label), "probability": float(p.probability)}


def _of_kind(catalogue: Catalogue, name: str, kind: str) -> Any:
    model = catalogue[name]
    if model.kind != kind:
        raise attrib.InputError(f"{name} is a model for {model.kind}s, not for {kind}s")
    return model


def class_choices(catalogue: Catalogue, model: str) -> list[tuple[str, int]]:
    """(text, index) of every class, for a searchable list."""
    return [(f"{label} ({index})", index) for index, label in enumerate(catalogue[model].labels or ())]


def text_choices(catalogue: Catalogue, model: str, found: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """(text, index) of what may be a target: every class, or the likeliest tokens of a language model."""
    labels = _of_kind(catalogue, model, "text").labels
    if labels is not None:
        return [(f"{readable(label)} ({index})", index) for index, label in enumerate(labels)]
    return [(f"“{readable(row['label'])}” ({row['index']})", row["index"]) for row in found]


def example_photos() -> dict[str, str]:
    """Example photos by name."""
    return {name: str(path) for name, path in photos().items()}


def fetch(catalogue: Catalogue, name: str, run: Run) -> Iterator[tuple[float, str]]:
    """Get a model that is not on this machine; yields (fraction, message). Raises attrib.ModelUnavailable."""
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def on_progress(fraction: float, message: str) -> None:
        run.check()
        told.put((fraction, message))

    def work() -> None:
        try:
            if name in MODELS and MODELS[name].source is not None:
                MODELS[name].loader(on_progress)
            catalogue[name]  # loads it
            told.put(None)
        except attrib.AttribError as error:
            told.put(error)
        except Exception:
            log.exception("fetching %s failed", name)
            told.put(attrib.ModelUnavailable(f"{name} could not be fetched; the server's log says why"))

    threading.Thread(target=work, name="attrib-fetch", daemon=True).start()
    shown: tuple[float, str] = (0.0, f"fetching {name}")
    try:
        while True:
            try:
                found = told.get(timeout=TICK)
            except queue.Empty:
                yield shown
                continue
            if found is None:
                return
            if isinstance(found, Exception):
                raise found
            shown = found
    finally:
        run.stop()


def explain(ask: Ask, catalogue: Catalogue, run: Run) -> Iterator[Step]:
    """Run the methods one after the other in a thread of their own; yields at least twice a second.

    A method that fails leaves its sentence in `failures`, and the others go on. Raises attrib's errors when the
    question itself is wrong (photo, model, target, settings), and attrib.Cancelled when the run is stopped.
    """
    model = _of_kind(catalogue, ask.model, ask.kind)
    methods = [(name, _method(name, values, ask.kind)) for name, values in ask.methods]
    if not methods:
        raise attrib.InputError("choose at least one method")
    _checked_target(model, ask)
    with _WithoutPaths(ask.photo):
        model.predict(ask.given, k=1)  # a bad photo is one error, not one for each method
    told: queue.SimpleQueue[tuple[str, Any, Any]] = queue.SimpleQueue()
    worker = threading.Thread(target=_work, args=(model, ask, methods, run, told), name="attrib-run", daemon=True)
    worker.start()
    try:
        answer = Answer(photo_name=Path(ask.photo).stem, text=ask.text)
        yield from _steps(told, answer, [name for name, _ in methods], run)
    finally:
        run.stop()  # also when nobody listens any more


def titled(answer: Answer) -> list[Entry]:
    """Cards for the gallery: each result with what its method's card says."""
    entries = []
    for name, attribution in answer.results.items():
        card = attrib.METHODS[name].card
        entries.append(Entry(attribution, card.title, card.misleads, card.formula, card.reference))
    return entries


def target_name(answer: Answer) -> str:
    """What is explained, in words."""
    first = next(iter(answer.results.values()), None)
    return "" if first is None else readable(labels_of(first.target)[0])


def display_of(opacity: float, palette: str, how: str, percentile: float, view: str, blur: float) -> Display:
    """From the values of the page's display controls."""
    return Display(float(opacity), palette, how, float(percentile), view == VIEWS[1], float(blur))


def _steps(told: queue.SimpleQueue[Any], answer: Answer, names: Sequence[str], run: Run) -> Iterator[Step]:
    position, fraction, shown = 0, 0.0, 0.0
    while position < len(names):
        title = attrib.METHODS[names[position]].card.title
        if time.monotonic() - shown > TICK:
            shown = time.monotonic()
            yield Step((position + fraction) / len(names), f"{title} ({position + 1} of {len(names)})", answer)
        try:
            kind, name, value = told.get(timeout=TICK)
        except queue.Empty:
            continue
        if kind == "progress":
            fraction = value
            continue
        if kind == "cancelled":
            raise value
        answer = _grown(answer, kind, name, value)
        position, fraction = position + 1, 0.0
        yield Step(position / len(names), f"{title} is ready", answer, fresh=True)
    yield Step(1.0, _summary(answer), answer, done=True)


def _grown(answer: Answer, kind: str, name: str, value: Any) -> Answer:
    if kind == "failure":
        return replace(answer, failures={**answer.failures, name: value})
    result, slider = value
    return replace(answer, results={**answer.results, name: result}, slider=slider or answer.slider)


def _summary(answer: Answer) -> str:
    seconds = sum(a.provenance.seconds for a in answer.results.values())
    failed = f", {len(answer.failures)} failed" if answer.failures else ""
    return f"{len(answer.results)} methods in {seconds:.1f} s{failed}"


def _work(model: Any, ask: Ask, methods: Sequence[tuple[str, Any]], run: Run, told: queue.SimpleQueue[Any]) -> None:
    for name, method in methods:

        def on_progress(fraction: float, message: str = "", name: str = name) -> None:
            run.check()
            told.put(("progress", name, fraction))

        try:
            run.check()
            told.put(("result", name, _one(model, ask, method, on_progress)))
        except attrib.Cancelled as error:
            told.put(("cancelled", name, error))
            return
        except attrib.AttribError as error:
            told.put(("failure", name, str(error)))
        except Exception:
            log.exception("%s failed", name)
            told.put(("failure", name, "this method failed for a reason that is not yours; the server's log has it"))


def _one(model: Any, ask: Ask, method: Any, on_progress: Any) -> tuple[attrib.Attribution, tuple[Any, Any] | None]:
    if ask.versus is None or ask.versus_by == "logits":
        target = ask.target if ask.versus is None else attrib.LogitDiff(_settled(model, ask), ask.versus)
        result = attrib.explain(model, ask.given, method, target, on_progress=on_progress)
        return _named(model, ask, result), _slider(model, ask, method, result)
    halves = []
    for start, target in ((0.0, _settled(model, ask)), (0.5, ask.versus)):

        def half(fraction: float, message: str = "", start: float = start) -> None:
            on_progress(start + fraction / 2, message)

        halves.append(attrib.explain(model, ask.given, method, target, on_progress=half))
    return difference(*halves), None


def _named(model: Any, ask: Ask, result: attrib.Attribution) -> attrib.Attribution:
    """A language model has no list of labels: its targets are called as their tokens read."""
    if ask.kind != "text":
        return result
    named = [
        {**target, **{name: model.label_of(target[key]) for key, name in _LABELS if key in target}}
        for target in result.target
    ]
    return replace(result, target=named)


_LABELS = (("index", "label"), ("versus", "versus_label"))


def difference(first: attrib.Attribution, second: attrib.Attribution) -> attrib.Attribution:
    """The signed map (first − second), each divided by the sum of its magnitudes, so that neither drowns the other."""
    maps = []
    for attribution in (first, second):
        heatmap = attribution.heatmap()
        maps.append(heatmap / max(float(abs(heatmap).sum()), 1e-12))
    target = dict(first.target[0], versus=second.target[0].get("index"), versus_label=second.target[0].get("label"))
    note = "Difference of two maps, each divided by the sum of its magnitudes; it adds up to nothing in particular."
    return replace(
        first,
        kind="layer",
        values=first.values.new_tensor(maps[0] - maps[1]),
        target=[{k: v for k, v in target.items() if v is not None}],
        score=first.score - second.score,
        delta=None,
        ledger=None,
        parts=None,
        signed=True,
        notes=(note, *dict.fromkeys((*first.notes, *second.notes))),
        provenance=replace(first.provenance, seconds=first.provenance.seconds + second.provenance.seconds),
    )


def _slider(model: Any, ask: Ask, method: Any, result: attrib.Attribution) -> tuple[Any, Any] | None:
    if ask.kind != "image" or method.name != ASCENT or not getattr(method, "steps", 0) or result.pictures is None:
        return None
    changed = model.encode(ask.photo).x.cpu() + result.values.cpu()
    return result.pictures[0], model.preprocessing.inverse(changed)[0]


def _settled(model: Any, ask: Ask) -> int | str:
    return ask.target if ask.target is not None else int(model.predict(ask.given, k=1)[0][0].index)


def _checked_target(model: Any, ask: Ask) -> None:
    if ask.kind != "image" and ask.versus_by != "logits":
        raise attrib.InputError("maps are subtracted for photos only; a text is contrasted by the difference of logits")
    if ask.versus_by not in VERSUS:
        raise attrib.UnknownName("comparison", ask.versus_by, VERSUS)
    indices = [model.index_of(name) for name in (ask.target, ask.versus) if name is not None]
    if len(indices) == 2 and indices[0] == indices[1]:
        raise attrib.TargetError("both targets are the same class; choose two different ones, or only one")


def _method(name: str, values: Mapping[str, Any], kind: str) -> Any:
    known = method_titles(kind)
    if name not in known:
        raise attrib.UnknownName("method", name, known)
    return controls.build(attrib.METHODS[name], {**usual_settings(kind, name), **values})


def given(photo: str | None, text: str | None = None) -> str:
    """What the model is asked about. Raises attrib.InputError where there is nothing."""
    if text is not None:
        if not text.strip():
            raise attrib.InputError("write or paste a text first, or take an example")
        return text
    if not photo:
        raise attrib.InputError("choose a photo first: drop one, paste one, or take an example")
    return photo


class _WithoutPaths:
    """Says `name.png` where an error says the path of a temporary file of the server."""

    def __init__(self, photo: str | None) -> None:
        self._photo = photo or ""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, attrib.InputError) and self._photo and self._photo in str(error):
            raise attrib.InputError(str(error).replace(self._photo, Path(self._photo).name)) from None
