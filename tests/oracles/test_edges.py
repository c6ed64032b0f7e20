"""Edge scores against forwards written out by hand, exact path effects, and what they add up to."""

from __future__ import annotations

import pytest
import torch
from edge_oracles import FAMILIES, exact, metric_of, ruled, run, weighted, whole
from patching_oracles import GROUPED, HEADS, linear, network, spots, wrapped
from torch import Tensor, nn

import attrib
from attrib.patching.edges import edge_graph
from attrib.patching.probing import structure_of

CLEAN = torch.tensor([[5, 9, 17, 23, 8, 3, 30], [6, 9, 18, 23, 4, 3, 31]])
CORRUPTED = torch.tensor([[5, 9, 21, 23, 8, 3, 30], [6, 11, 18, 23, 24, 3, 31]])
ANSWER = attrib.LogitDiff(12, 25)
CLOSE = {"rtol": 1e-7, "atol": 1e-9}


def explained(module: nn.Module, method: attrib.RelP | attrib.AttributionPatching, clean: Tensor = CLEAN):
    return attrib.explain(wrapped(module), attrib.pair(clean, CORRUPTED), method, ANSWER)


def oracle(
    module: nn.Module, graded: nn.Module, family: str, base: Tensor, other: Tensor
) -> dict[tuple[str, str], Tensor]:
    """(sender, receiver) → (batch,): d metric/dt of the base run with t·(other − base) of the sender in that edge."""
    with torch.no_grad():
        first, second = (run(module, family, ids, whole)[1] for ids in (base, other))
    steps: dict[tuple[str, str], Tensor] = {}

    def edge(sender: str, receiver: str, value: Tensor) -> Tensor:
        step = steps[sender, receiver] = torch.zeros(len(base), 1, 1, dtype=torch.float64, requires_grad=True)
        return value + step * (second[sender] - first[sender])

    score = metric_of(family)(run(graded, family, base, edge)[0]).sum()
    found = torch.autograd.grad(score, list(steps.values()))
    return {name: gradient.flatten() for name, gradient in zip(steps, found, strict=True)}


def compare(result: attrib.Attribution, expected: dict[tuple[str, str], Tensor]) -> None:
    for i, sender in enumerate(result.sites):
        for j, receiver in enumerate(result.receivers):
            if (sender, receiver) in expected:
                torch.testing.assert_close(result.values[:, i, j], expected[sender, receiver], **CLOSE)
            else:
                assert result.values[:, i, j].isnan().all()
    assert len(expected) == int((~result.values[0].isnan()).sum())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_forward_by_hand_is_the_model(family):
    module = exact(family)
    with torch.no_grad():
        torch.testing.assert_close(run(module, family, CLEAN, whole)[0], module(CLEAN).logits, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_derivatives_along_single_edges(family):
    module = exact(family)
    expected = oracle(module, module, family, CORRUPTED, CLEAN)
    assert max(float(e.abs().max()) for e in expected.values()) > 0.1
    compare(explained(module, attrib.AttributionPatching(edges=True)), expected)
    noising = explained(module, attrib.AttributionPatching(edges=True, direction="noising"))
    compare(noising, oracle(module, module, family, CLEAN, CORRUPTED))


@pytest.mark.parametrize("family", FAMILIES)
def test_with_relp_they_are_those_under_its_rules(family):
    module = exact(family)
    result = explained(module, attrib.RelP(edges=True))
    compare(result, oracle(module, ruled(module), family, CORRUPTED, CLEAN))
    assert not result.coverage.uncovered and result.coverage.ruled


class Centring(nn.Module):
    """What is left of a norm without its scale."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight = norm.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x - x.mean(-1, keepdim=True))


def nearly_linear(family: str) -> nn.Module:
    """`linear` with queries and keys too small to change any number, so that their columns can still be found; with
    norms that only centre."""
    module, full = linear(family, Centring), network(family)
    module.config._attn_implementation = "sdpa"  # eager attention has weights in float32
    for layer in range(2):
        for kind in "qk":
            for head in range(HEADS if kind == "q" or family != "gemma2" else GROUPED):
                name = f"head.{layer}.{head}.{kind}"
                (projection, _, columns), (whole_one, _, _) = (spots(m, family, layer)[name] for m in (module, full))
                rows = (columns,) if isinstance(projection, nn.Linear) else (slice(None), columns)
                projection.weight.data[rows] = whole_one.weight.data[rows] * 1e-20
    return module


@pytest.mark.parametrize("family", ["gpt2", "neox", "gemma2", "bert"])
def test_on_a_linear_model_edges_are_exact_path_effects(family):
    """Into the logits, and into values and MLPs: replacing what one receiver sees of one sender, and nothing else."""
    module, metric = nearly_linear(family), metric_of(family)
    with torch.no_grad():
        clean = run(module, family, CLEAN, whole)[1]
        base = metric(run(module, family, CORRUPTED, whole)[0])
    largest = 0.0
    for method in (attrib.RelP(edges=True), attrib.AttributionPatching(edges=True)):
        result = explained(module, method)
        for i, sender in enumerate(result.sites):
            for j, receiver in enumerate(result.receivers):
                if result.values[0, i, j].isnan():
                    continue
                edge = lambda u, v, value: clean[u] if (u, v) == (sender, receiver) else value  # noqa: B023, E731
                with torch.no_grad():
                    exact = metric(run(module, family, CORRUPTED, edge)[0]) - base
                torch.testing.assert_close(result.values[:, i, j], exact, rtol=1e-9, atol=1e-11)
                largest = max(largest, float(exact.abs().max()))
    assert largest > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_edges_into_an_input_add_up_to_its_effect(family):
    """Σ over senders = the derivative towards all of the clean run's senders at once, as that receiver alone sees them;
    where no norm lies between, towards the input that it reads in the clean run."""
    module = exact(family)
    with torch.no_grad():
        (_, sent, clean), (_, own, corrupted) = (run(module, family, ids, whole) for ids in (CLEAN, CORRUPTED))
    for method, rules in ((attrib.AttributionPatching(edges=True), module), (attrib.RelP(edges=True), ruled(module))):
        result = explained(module, method)
        steps: dict[str, Tensor] = {}

        def edge(sender: str, receiver: str, value: Tensor) -> Tensor:
            if receiver not in steps:  # noqa: B023
                steps[receiver] = torch.zeros(2, 1, 1, dtype=torch.float64, requires_grad=True)  # noqa: B023
            if family in ("gemma2", "bert"):
                return value + steps[receiver] * (sent[sender] - own[sender])  # noqa: B023
            return value + steps[receiver] * (clean[receiver] - corrupted[receiver]) * (sender == "embed")  # noqa: B023

        score = metric_of(family)(run(rules, family, CORRUPTED, edge)[0]).sum()
        expected = torch.autograd.grad(score, [steps[name] for name in result.receivers])
        expected = torch.stack([gradient.flatten() for gradient in expected], 1)
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(result.values.nansum(1), expected, rtol=1e-9, atol=1e-9)
    if family not in ("gemma2", "bert"):
        stream = explained(module, attrib.RelP(sites="resid_post.1")).values.sum((1, 2))
        torch.testing.assert_close(result.values[:, :, -1].nansum(1), stream, rtol=1e-9, atol=1e-9)


def test_relevance_is_conserved_from_input_to_input():
    """With attention's weights constant, what flows through all receivers of a cut is the stream's own effect."""
    module = exact("llama")
    method = attrib.RelP(edges=True, attention="constant")
    result = explained(module, method)
    columns = {name: j for j, name in enumerate(result.receivers)}
    into = lambda layer: [j for name, j in columns.items() if name.split(".")[1:2] == [str(layer)]]  # noqa: E731
    sent = result.sites.index("head.1.0")  # senders before the last block go to it or straight to the logits
    total = result.values[:, :sent, [*into(1), columns["logits"]]].sum((1, 2))
    stream = explained(module, attrib.RelP(sites="resid_pre.1", attention="constant")).values.sum((1, 2))
    torch.testing.assert_close(total, stream, rtol=1e-9, atol=1e-9)
    queries = [j for name, j in columns.items() if name.endswith((".q", ".k"))]
    assert (result.values[:, :, queries].nan_to_num() == 0).all()


@pytest.mark.parametrize("method", [attrib.RelP(edges=True), attrib.AttributionPatching(edges=True)])
def test_identical_prompts_have_no_edges(method):
    result = explained(network("gpt2"), method, CORRUPTED)
    assert (result.values.nan_to_num() == 0).all() and (result.score == 0).all()


def test_pairs_of_several_lengths_and_one_at_a_time(monkeypatch):
    module = exact("llama")
    clean = [row.tolist()[: 7 - i] for i, row in enumerate(CLEAN)]
    corrupted = [row.tolist()[: 7 - i] for i, row in enumerate(CORRUPTED)]
    method = attrib.RelP(edges=True)
    together = attrib.explain(wrapped(module), attrib.pair(clean, corrupted), method, ANSWER)
    alone = [
        attrib.explain(wrapped(module), attrib.pair(a, b), method, ANSWER)
        for a, b in zip(clean, corrupted, strict=True)
    ]
    for i, one in enumerate(alone):
        torch.testing.assert_close(together.values[i], one.values[0], equal_nan=True, **CLOSE)
    monkeypatch.setattr("attrib.methods.edge_patching._NUMBERS_AT_ONCE", 1)
    pieces = explained(module, method)
    monkeypatch.undo()
    torch.testing.assert_close(pieces.values, explained(module, method).values, equal_nan=True, **CLOSE)


def test_weights_that_multiply_the_stream_or_are_added_to_it_are_passed():
    module = weighted(exact("gpt2"))
    compare(explained(module, attrib.AttributionPatching(edges=True)), oracle(module, module, "gpt2", CORRUPTED, CLEAN))
    result = explained(module, attrib.RelP(edges=True))
    compare(result, oracle(module, ruled(module), "gpt2", CORRUPTED, CLEAN))
    found = attrib.circuit(wrapped(module), attrib.pair(CLEAN, CORRUPTED), result, 1.0, sizes=(0,))
    metrics = [float(result.parts[f"metric_{run}"].mean()) for run in ("corrupted", "clean")]
    assert [found.empty, found.full] == pytest.approx(metrics, abs=1e-10)


def test_a_contribution_that_more_happens_to_sends_as_one():
    module = weighted(network("gpt2"), torch.tanh)
    assert explained(module, attrib.RelP(sites="head.*.*")).values.abs().max() > 0.01
    result = explained(module, attrib.RelP(edges=True))
    assert "attn_out.0" in result.sites and not any(name.startswith("head") for name in result.sites)
    found = attrib.circuit(wrapped(module), attrib.pair(CLEAN, CORRUPTED), result, 1.0, sizes=(0,))
    metrics = [float(result.parts[f"metric_{run}"].mean()) for run in ("corrupted", "clean")]
    assert [found.empty, found.full] == pytest.approx(metrics, abs=1e-10) and metrics[0] != metrics[1]


def test_the_strongest_edges_and_what_is_kept_on_disk(tmp_path):
    result = explained(exact("llama"), attrib.RelP(edges=True))
    strongest = result.top(3)
    assert [abs(e.value) for e in strongest] == sorted((abs(e.value) for e in strongest), reverse=True)
    i, j = result.sites.index(strongest[0].sender), result.receivers.index(strongest[0].receiver)
    assert strongest[0].value == float(result.values[0, i, j])
    assert abs(strongest[0].value) == float(result.values[0].abs().nan_to_num().max())
    mean = result.values.mean(0)
    assert abs(result.top(1, None)[0].value) == float(mean.abs().nan_to_num().max())
    assert len(result.top(10**6)) == int((~result.values[0].isnan()).sum())
    loaded = attrib.Attribution.load(result.save(tmp_path / "edges"))
    assert (loaded.sites, loaded.receivers, loaded.kind) == (result.sites, result.receivers, "edges")
    torch.testing.assert_close(loaded.values, result.values, rtol=0, atol=0, equal_nan=True)
    assert loaded.correlation(result)["edges"] == pytest.approx(1.0)
    torch.testing.assert_close(result.normalised() * result.score[:, None, None], result.values, equal_nan=True)
    with pytest.raises(attrib.InputError, match="no sites"):
        result.mean()
    assert len(result.plot().axes) >= 2 and "<script" not in result._repr_html_()


def test_integrated_edges_are_refused():
    with pytest.raises(attrib.InputError, match="integrated"):
        explained(network("gpt2"), attrib.AttributionPatching(edges=True, integrated=2))


@pytest.mark.parametrize("kind", [attrib.RelP, attrib.AttributionPatching])
def test_sites_that_edges_would_ignore_are_refused(kind):
    with pytest.raises(attrib.InputError, match="edges are scored between all heads and MLPs"):
        explained(network("gpt2"), kind(edges=True, sites=("head.*.*",)))


def test_names_and_who_reads_what():
    graph = edge_graph(structure_of(wrapped(network("llama"))))
    names = [receiver.name for receiver in graph.receivers]
    readers = lambda name: [graph.senders[i] for i in graph.read_by[names.index(name)].nonzero()[:, 0]]  # noqa: E731
    assert graph.senders[:6] == ("embed", "head.0.0", "head.0.1", "head.0.2", "head.0.3", "mlp_out.0")
    assert readers("head.1.1.k") == ["head.1.2", "head.1.3"] and readers("head.1.2.q") == ["head.1.2"]
    assert readers("mlp_in.1") == ["mlp_out.1"] and readers("logits") == []
