"""Pruned models against forwards written out by hand, which edges make a circuit, and what is exported of it."""

from __future__ import annotations

import dataclasses
import json

import networkx as nx
import pytest
import text_families
import torch
from edge_oracles import FAMILIES, exact, metric_of, run, whole
from patching_oracles import wrapped

import attrib
from attrib.patching.circuit import Cut
from attrib.patching.edges import edge_graph
from attrib.patching.probing import structure_of
from attrib.patching.selecting import count_of, selected

CLEAN = torch.tensor([[5, 9, 17, 23, 8, 3, 30], [6, 9, 18, 23, 4, 3, 31], [6, 8, 18, 20, 4, 3, 31]])
CORRUPTED = torch.tensor([[5, 9, 21, 23, 8, 3, 30], [6, 11, 18, 23, 24, 3, 31], [6, 8, 19, 20, 14, 3, 31]])
ANSWER = attrib.LogitDiff(12, 25)
PAIR = attrib.pair(CLEAN, CORRUPTED)
EDGES = attrib.RelP(edges=True)


def by_hand(module, family: str, kept: set[tuple[str, str]], ablation: str) -> float:
    """The mean metric of the clean prompts where every edge that is not kept shows the sender's ablated value."""
    with torch.no_grad():
        ablated = run(module, family, CORRUPTED if ablation == "corrupted" else CLEAN, whole)[1]
        if ablation == "mean":
            ablated = {name: value.mean(0, keepdim=True) for name, value in ablated.items()}
        edge = lambda u, v, value: value if (u, v) in kept else ablated[u]  # noqa: E731
        return float(metric_of(family)(run(module, family, CLEAN, edge)[0]).mean())


def possible(result: attrib.Attribution) -> set[tuple[str, str]]:
    return {(e.sender, e.receiver) for e in result.top(10**6, None)}


@pytest.mark.parametrize("ablation", ["corrupted", "mean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_pruned_models_are_those_by_hand(family, ablation):
    module = exact(family)
    subject = wrapped(module)
    result = attrib.explain(subject, PAIR, EDGES, ANSWER)
    every = possible(result)
    full, empty = (by_hand(module, family, kept, ablation) for kept in (every, set()))
    for keep in (12, 30, 0.5):
        found = attrib.circuit(subject, PAIR, result, keep, sizes=(), ablation=ablation)
        assert len(found.curve) == 1 and found.possible == len(every) and found.pairs == 3
        kept = {(e.sender, e.receiver) for e in found.edges}
        assert len(kept) == found.size.edges > 0
        inside, outside = (by_hand(module, family, each, ablation) for each in (kept, every - kept))
        ours = (found.full, found.empty, found.size.metric, found.size.without)
        assert ours == pytest.approx((full, empty, inside, outside), abs=1e-9, rel=1e-9)
        assert found.faithfulness == pytest.approx((inside - empty) / (full - empty), rel=1e-7)
        assert found.completeness == pytest.approx((outside - empty) / (full - empty), rel=1e-7)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_strongest_edges_are_cut_one_at_a_time(family):
    module = exact(family)
    subject = wrapped(module)
    result = attrib.explain(subject, PAIR, EDGES, ANSWER)
    found = attrib.circuit(subject, PAIR, result, 40, sizes=(3,))
    kept = [(e.sender, e.receiver) for e in found.edges]
    first = next(edge for edge in kept if edge[0] == "embed")
    assert [(cut.sender, cut.receiver) for cut in found.cuts] == list(dict.fromkeys([*kept[:5], first]))
    every = possible(result)
    full, empty = (by_hand(module, family, kept, "corrupted") for kept in (every, set()))
    for cut in found.cuts:
        left = by_hand(module, family, every - {(cut.sender, cut.receiver)}, "corrupted")
        assert cut.left == pytest.approx((left - empty) / (full - empty), rel=1e-7, abs=1e-9)
    assert found.bottleneck is None and "other edges do the same" in str(found)
    tight = dataclasses.replace(found, cuts=(Cut("embed", "mlp_in.0", 0.004), *found.cuts))
    assert tight.bottleneck == tight.cuts[0] and "embed → mlp_in.0, 0% of the change is left" in str(tight)
    lost = dataclasses.replace(found, size=found.size._replace(faithfulness=0.24, completeness=0.004))
    assert lost.reading.startswith("Neither these edges alone nor all others carry the change: 24% and 0%")
    assert json.loads(tight.to_json())["cuts"][0] == {"sender": "embed", "receiver": "mlp_in.0", "left": 0.004}


@pytest.mark.parametrize("family", FAMILIES)
def test_all_edges_are_the_model_and_none_the_other_run(family):
    module = exact(family)
    subject = wrapped(module)
    result = attrib.explain(subject, PAIR, attrib.AttributionPatching(edges=True), ANSWER)
    found = attrib.circuit(subject, PAIR, result, 1.0, sizes=(0,))
    with torch.no_grad():
        clean, corrupted = (float(metric_of(family)(module(ids).logits).mean()) for ids in (CLEAN, CORRUPTED))
    assert (found.full, found.size.metric) == pytest.approx((clean, clean), abs=1e-9)
    assert (found.empty, found.curve[0].metric) == pytest.approx((corrupted, corrupted), abs=1e-9)
    assert (found.faithfulness, found.completeness) == pytest.approx((1.0, 0.0), abs=1e-7)
    assert (found.curve[0].faithfulness, found.curve[0].completeness) == pytest.approx((0.0, 1.0), abs=1e-7)
    assert found.curve[0].edges == found.dropped == found.unreached == 0


@pytest.mark.parametrize("family", [*text_families.DECODERS, *text_families.ENCODERS])
def test_every_family_can_be_run_on_its_edges(family):
    rows, masked = [[5, 9, 100, 3, 7], [5, 9, 30, 3, 7]], family in text_families.ENCODERS  # 3 is byte_level's mask
    given = attrib.pair(rows[:1], rows[1:])
    module = text_families.model(family, "masked" if masked else "next_token").double()
    subject = attrib.wrap(module, tokenizer=text_families.byte_level())
    result = attrib.explain(subject, given, EDGES, attrib.LogitDiff(12, 25))
    assert result.score.abs() > 1e-3 and not result.coverage.uncovered
    found = attrib.circuit(subject, given, result, 0.2, sizes=(0, 1.0))
    metrics = [float(result.parts[f"metric_{run}"][0]) for run in ("corrupted", "clean")]
    assert [found.empty, found.full] == pytest.approx(metrics, abs=1e-6)
    assert [found.curve[0].faithfulness, found.curve[-1].faithfulness] == pytest.approx([0.0, 1.0], abs=1e-4)


def test_half_precision():
    wide = attrib.circuit(*asked(exact("llama")), sizes=())
    narrow = attrib.circuit(*asked(exact("llama").bfloat16()), sizes=())
    assert (narrow.full, narrow.empty) == pytest.approx((wide.full, wide.empty), abs=0.1)


def asked(module):
    """A model, a pair whose answers are far apart, and its edges."""
    subject, given = wrapped(module), attrib.pair(CLEAN[1:2], CORRUPTED[1:2])
    return subject, given, attrib.explain(subject, given, EDGES, ANSWER)


def test_batches_of_circuits_change_nothing(monkeypatch):
    subject = wrapped(exact("llama"))
    result = attrib.explain(subject, PAIR, EDGES, ANSWER)
    together = attrib.circuit(subject, PAIR, result, sizes=(5, 20, 0.4))
    monkeypatch.setattr("attrib.patching.pruned._NUMBERS_AT_ONCE", 1)
    monkeypatch.setattr("attrib.patching.composites._ROWS_AT_ONCE", 1)
    apart = attrib.circuit(subject, PAIR, result, sizes=(5, 20, 0.4))
    for first, second in zip(together.curve, apart.curve, strict=True):
        assert first == pytest.approx(second, abs=1e-9)


def graph():
    return edge_graph(structure_of(wrapped(exact("llama"))))


def chosen(*edges: tuple[str, str]):
    """What is left of these edges, taken for the strongest ones."""
    own = graph()
    scores = torch.zeros(own.exists.shape, dtype=torch.float64)
    names = [receiver.name for receiver in own.receivers]
    for sender, receiver in edges:
        scores[own.senders.index(sender), names.index(receiver)] = 1.0
    found = selected(own, scores, len(edges))
    return found, {(own.senders[i], names[j]) for i, j in found.kept.nonzero().tolist()}


def test_what_leads_nowhere_is_left_out():
    through = [
        ("embed", "head.0.0.v"),
        ("head.0.1", "head.1.0.k"),
        ("head.1.1", "logits"),
    ]  # key-value head 0 serves 0, 1
    found, kept = chosen(*through)
    assert kept == set(through) and (found.edges, found.nodes, found.dropped, found.unreached) == (
        3,
        4,
        0,
        2,
    )  # heads 0.0 and 1.0 share, and send nothing on
    found, kept = chosen(*through, ("mlp_out.0", "head.1.3.q"), ("embed", "mlp_in.1"), ("head.0.2", "logits"))
    assert kept == set(through) and (found.dropped, found.nodes) == (3, 4)
    assert found.unreached == 6  # mlp_out.0 and head.0.2 come from nowhere, mlp_out.1 and head.1.3 lead nowhere
    assert chosen(("embed", "head.0.0.v"))[1] == set()
    assert chosen(("embed", "logits"))[1] == {("embed", "logits")}


def test_how_many_edges_are_meant():
    assert [count_of(keep, 200) for keep in (0, 7, 200, 0.0, 0.01, 0.011, 1.0)] == [0, 7, 200, 0, 2, 3, 200]
    for keep in (-1, 201, 1.5, -0.1, True, "5", float("nan")):
        with pytest.raises(attrib.InputError, match="keep"):
            count_of(keep, 200)


def test_what_cannot_be_asked():
    subject = wrapped(exact("gpt2"))
    result = attrib.explain(subject, PAIR, EDGES, ANSWER)
    with pytest.raises(attrib.InputError, match="no edges"):
        attrib.circuit(subject, PAIR, attrib.explain(subject, PAIR, attrib.RelP(), ANSWER))
    with pytest.raises(attrib.InputError, match="another model"):
        attrib.circuit(wrapped(exact("llama")), PAIR, result)
    with pytest.raises(attrib.InputError, match="other pairs"):
        attrib.circuit(subject, attrib.pair(CORRUPTED, CLEAN), result)
    with pytest.raises(attrib.InputError, match=r"attrib\.pair"):
        attrib.circuit(subject, "w5 w6", result)
    with pytest.raises(attrib.UnknownName, match="mean"):
        attrib.circuit(subject, PAIR, result, ablation="means")
    one = attrib.pair(CLEAN[:1], CORRUPTED[:1])
    with pytest.raises(attrib.InputError, match="mean of one prompt"):
        attrib.circuit(subject, one, attrib.explain(subject, one, EDGES, ANSWER), ablation="mean")
    same = attrib.pair(CLEAN, CLEAN)
    with pytest.raises(attrib.PromptPairError, match="nothing to carry"):
        attrib.circuit(subject, same, attrib.explain(subject, same, EDGES, ANSWER))


def test_other_pairs_than_those_it_was_found_on():
    subject = wrapped(exact("gpt2"))
    result = attrib.explain(subject, PAIR, EDGES, ANSWER)
    other = attrib.circuit(subject, attrib.pair(CORRUPTED, CLEAN), result, 20, sizes=(), target=ANSWER)
    own = attrib.circuit(subject, PAIR, result, 20, sizes=())
    assert (
        other.edges == own.edges and other.full == pytest.approx(own.empty) and other.empty == pytest.approx(own.full)
    )


def test_cancelled_and_leaves_nothing_behind():
    subject, fractions = wrapped(exact("gpt2")), []
    result = attrib.explain(subject, PAIR, EDGES, ANSWER)
    attrib.circuit(subject, PAIR, result, on_progress=lambda fraction, _: fractions.append(fraction))
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1
    assert len(fractions) == 3 * 2 + 1  # before each block of each prompt, so that a stop is heard soon

    def stop(fraction: float, message: str) -> None:
        if fraction > 0:
            raise attrib.Cancelled("enough")

    with pytest.raises(attrib.Cancelled):
        attrib.circuit(subject, PAIR, result, on_progress=stop)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in subject.module.modules())


@pytest.fixture(scope="module")
def found() -> attrib.Circuit:
    subject = wrapped(exact("llama"))
    return attrib.circuit(subject, PAIR, attrib.explain(subject, PAIR, EDGES, ANSWER), 40)


def test_a_model_whose_rows_act_on_each_other_is_refused():
    subject = wrapped(exact("gpt2"))
    result = attrib.explain(subject, PAIR, EDGES, ANSWER)
    mlp = subject.module.transformer.h[1].mlp
    mlp.register_forward_hook(lambda part, args, output: output + output.mean(0, keepdim=True))
    with pytest.raises(attrib.UnsupportedModel, match="put together again"):
        attrib.circuit(subject, PAIR, result)


def hostile(found: attrib.Circuit) -> attrib.Circuit:
    texts = {"target": '</data><x a="1">&\x00\x1b\ud800 \u202e$x$', "prompt": "]]>\n<script>alert(1)</script>"}
    return dataclasses.replace(found, about=found.about | texts)


def test_exported_as_graphml(found, tmp_path):
    path = hostile(found).save(tmp_path / "circuit.graphml")
    read = nx.read_graphml(path)
    assert read.is_directed() and set(read.nodes) == set(found.nodes) and read.number_of_edges() == len(found.links)
    edges = sorted((u, v, d["receiver"], d["score"]) for u, v, d in read.edges(data=True))
    assert edges == sorted(tuple(link) for link in found.links)
    assert read.graph["prompt"] == "]]>\n<script>alert(1)</script>" and read.graph["faithfulness"] == found.faithfulness
    assert read.graph["target"].startswith('</data><x a="1">&\\u0000\\u001b')
    assert read.nodes[found.links[0].target].get("layer") is not None or found.links[0].target == "logits"
    assert nx.has_path(read, "embed", "logits") and nx.is_directed_acyclic_graph(read)


def test_exported_as_json(found, tmp_path):
    text = hostile(found).save(tmp_path / "circuit.json").read_text()
    assert text.isascii()
    document = json.loads(text)
    assert document["about"]["target"] == hostile(found).about["target"]
    read = nx.node_link_graph({**document, "directed": True, "multigraph": True, "graph": {}}, edges="edges")
    assert set(read.nodes) == set(found.nodes) and read.number_of_edges() == len(found.links)
    assert [size["edges"] for size in document["curve"]] == [size.edges for size in found.curve]
    with pytest.raises(attrib.InputError, match="json"):
        found.save(tmp_path / "circuit.png")


def test_drawn(found):
    curve, drawn = found.plot(), hostile(found).draw(most=10)
    lines = curve.axes[0].get_lines()
    assert list(lines[0].get_ydata()) == [size.faithfulness for size in found.curve]
    labels = {text.get_text() for text in drawn.axes[0].texts} - {""}
    assert "10 strongest" in drawn.axes[0].get_title() and labels and all(len(label) < 12 for label in labels)
    drawn.canvas.draw()
    window = drawn.axes[0].get_window_extent()
    boxes = [text.get_window_extent() for text in drawn.axes[0].texts if text.get_text()]
    assert len(boxes) > 3 and all(window.contains(box.x0, box.y0) and window.contains(box.x1, box.y1) for box in boxes)
    assert (
        str(found).count("\n") == len(found.curve) + 2
        and str(found).endswith(found.reading)
        and f"{found.size.edges} of {found.possible}" in str(found)
    )
