"""What can be asked of a patching result: shares, the strongest, agreement with another result."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from attrib.errors import InputError, PromptPairError, UnknownName
from attrib.patching.agreement import pearson
from attrib.patching.sites import kind_of

if TYPE_CHECKING:
    from attrib.attribution import Attribution


class Effect(NamedTuple):
    """One effect: of a site at a position, whose tokens in both prompts are given; value in the metric's units."""

    site: str
    position: int
    clean: str
    corrupted: str
    value: float


class EdgeEffect(NamedTuple):
    """The effect of one edge, in the metric's units."""

    sender: str
    receiver: str
    value: float


def normalised(result: Attribution) -> Tensor:
    """Shaped like the values, of sites or edges: values / (M(clean) − M(corrupted)): 1 restores the metric wholly.

    Raises PromptPairError where the metric is the same in both runs: there is nothing to be a share of.
    """
    if result.kind != "edges":
        sites_of(result)
    change = result.score
    equal = (change == 0).nonzero()[:, 0].tolist()
    if equal:
        value = float(metric_of(result, "clean")[equal[0]])
        raise PromptPairError(
            f"the metric of pair {equal[0]} is {value:.6g} in both runs, so no effect is a share of its change; read "
            ".values, or take prompts and answers that the model tells apart"
        )
    return result.values / change[:, None, None]


def top(result: Attribution, k: int, index: int | None) -> list[Effect] | list[EdgeEffect]:
    """The k effects of largest size of pair `index`, strongest first; entries that were not measured left out.

    index None: of the mean over all pairs, of edges alone: positions may mean something else in every pair.
    """
    if not isinstance(k, int) or k < 1:
        raise InputError(f"k = {k!r}: ask for at least one effect, in a whole number")
    if index is not None and not 0 <= index < len(result):
        raise InputError(f"there is no pair {index}; the result has {len(result)}, 0 to {len(result) - 1}")
    if result.kind == "edges":
        return _top_edges(result, k, index)
    sites = sites_of(result)
    if index is None:
        raise InputError("say which pair, by its index; only edges have a mean over pairs of any length")
    clean, corrupted = (texts[index] for texts in (result.token_texts or (), result.corrupted_texts or ()))
    values = result.values[index, :, : len(clean)]
    sizes = values.abs().nan_to_num(-1.0).flatten()
    found = []
    for place in sizes.topk(min(k, len(sizes))).indices.tolist():
        site, position = divmod(place, len(clean))
        if sizes[place] >= 0:
            value = float(values[site, position])
            found.append(Effect(sites[site], position, clean[position], corrupted[position], value))
    return found


def _top_edges(result: Attribution, k: int, index: int | None) -> list[EdgeEffect]:
    values = result.values.mean(0) if index is None else result.values[index]
    sizes = values.abs().nan_to_num(-1.0).flatten()
    senders, receivers = result.sites or (), result.receivers or ()
    found = []
    for place in sizes.topk(min(k, int((sizes >= 0).sum()))).indices.tolist():
        sender, receiver = divmod(place, len(receivers))
        found.append(EdgeEffect(senders[sender], receivers[receiver], float(values[sender, receiver])))
    return found


def correlation(result: Attribution, other: Attribution, kind: str | None) -> dict[str, float]:
    """Kind of site → Pearson's r over all pairs, sites of that kind and positions that both results have measured.
    Of two results of edges: {"edges": r}.

    kind: this one alone. NaN where one of the two does not vary. Raises InputError for results of other pairs or
    without a common site.
    """
    edges = result.kind == other.kind == "edges"
    ours, theirs = ((), ()) if edges else (sites_of(result), sites_of(other))
    if len(result) != len(other) or result.provenance.input_hashes != other.provenance.input_hashes:
        raise InputError("the two results are of different pairs; correlate results of the same ones")
    if edges:
        return _of_edges(result, other)
    places = {name: i for i, name in enumerate(theirs)}
    common = [name for name in ours if name in places]
    if not common:
        raise InputError(f"the results have no site in common: {ours[0]} … and {theirs[0]} …")
    kinds = list(dict.fromkeys(kind_of(name) for name in common))
    if kind is not None and kind not in kinds:
        raise UnknownName("kind of site", kind, kinds)
    real = _positions(result)
    return {each: _pearson(result, other, [n for n in common if kind_of(n) == each], places, real)
            for each in (kinds if kind is None else [kind])}  # fmt: skip


def _pearson(result: Attribution, other: Attribution, names: list[str], places: dict[str, int], real: Tensor) -> float:
    own = {name: i for i, name in enumerate(sites_of(result))}
    first = result.values[:, [own[name] for name in names]].cpu().double()
    second = other.values[:, [places[name] for name in names]].cpu().double()
    measured = real[:, None] & first.isfinite() & second.isfinite()
    return pearson(first[measured], second[measured])


def _of_edges(result: Attribution, other: Attribution) -> dict[str, float]:
    if (result.sites, result.receivers) != (other.sites, other.receivers):
        raise InputError("the two results have different edges; correlate results of one model")
    first, second = result.values.cpu().double(), other.values.cpu().double()
    measured = first.isfinite() & second.isfinite()
    return {"edges": pearson(first[measured], second[measured])}


def _positions(result: Attribution) -> Tensor:
    """(batch, positions): where a token is, and no padding."""
    lengths = torch.tensor([len(texts) for texts in result.token_texts or ()])
    return torch.arange(result.values.shape[2])[None] < lengths[:, None]


def metric_of(result: Attribution, run: str) -> Tensor:
    """(pairs,) of the clean or the corrupted run."""
    return (result.parts or {})[f"metric_{run}"]


def sites_of(result: Attribution) -> tuple[str, ...]:
    """Its sites. Raises InputError for results without."""
    if result.kind != "sites" or result.sites is None:
        raise InputError(
            f"a result of kind {result.kind!r} has no sites; relp, attribution_patching and others find them"
        )
    return result.sites
