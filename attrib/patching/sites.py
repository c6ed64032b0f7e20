"""Sites: the named tensors of a transformer that patching looks at and writes to.

embed                the word embeddings, without positions
resid_pre.L          the residual stream before block L; resid_mid.L between its attention and its MLP (not where they
                     run in parallel); resid_post.L behind the block
attn_out.L           what attention adds to the stream; mlp_out.L what the MLP adds; mixer_out.L what a layer without
                     attention adds that joins positions in another way (Mamba, convolutions, linear attention).
                     Where a block adds several MLPs (MobileBERT; X-MOD's adapters), mlp_out.L is the first, and
                     mlp_out.L.1, mlp_out.L.2 … are those behind it. Of several attentions
                     (LongCat), attn_out.L.1 … are those behind the first, and heads are counted on through them. In a
                     bottleneck (MobileBERT), all these and resid_mid.L are of the narrower stream in there.
                     Where only a mixer adds to the stream and attention hands what it makes to an MLP in front of it
                     (Zamba), attn_out.L is what attention hands on, mlp_out.L what joins the mixer's input, and
                     mixer_out.L what all of them add; there is no resid_mid.L.
                     Where a layer's stream is no sum with resid_pre.L but begins anew with what attention puts out
                     (Inkling 2), resid_mid.L is attn_out.L
head.L.H             head H's output z, before the output projection and what joins heads (of a difference of two maps,
                     as DiffLlama's, each map is a head). Of a stream of several rows for a position (ProphetNet), heads
                     are those of the first; resid_*, attn_out, mlp_out and neuron hold all rows. Where attention and
                     MLP run once for all rows (hyper-connections: HY V4, DeepSeek-V4), attn_out and mlp_out are what
                     each row takes up of what they make
head.L.H.q           its queries, as the projection puts them out: before rotary positions and norms (behind a norm
                     that goes over all heads at once, as OLMo2's). In head.L.H.k and head.L.H.v, H counts key-value
                     heads, of which grouped attention has fewer; what all heads share beside their own (the rotary
                     part of DeepSeek's keys) is in none of them. One projection for both has both names
                     (DeepSeek-V4; keys and values of windows of tokens are in neither). Where projections are added
                     up (adapters; ZAYA, where one way is convolved), it is their sum
neuron.L             all neurons of block L's MLP together; neuron.L.N one of them, neuron.L.A:B neurons A to B−1.
                     Of a mixture of experts, N = expert · width + unit (neuron.L.A:B with A = expert · width is one
                     whole expert); neurons of experts that a position is not sent to are zero there, and stay so:
                     routing is never patched. Shared experts' neurons are not among them

Patterns are matched part by part: `head.*.3` is z of head 3 in every block, `head.*.*.q` all queries, `neuron.2.*` each
neuron of block 2 by itself, `resid_*.*` the whole stream.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import lru_cache

from attrib.errors import InputError, UnknownName, UnsupportedModel
from attrib.patching.places import Columns, Place, numbers_of
from attrib.patching.structure import Layer, Projection, Structure

KINDS = (
    "embed", "resid_pre", "resid_mid", "resid_post", "attn_out", "mixer_out", "mlp_out", "head", "q", "k", "v", "neuron"
)  # fmt: skip
_PROJECTIONS = (("q", "queries"), ("k", "keys"), ("v", "values"))


@dataclass(frozen=True)
class PatchSite:
    """A site: the tensor at `place`, or `columns` of its last axis. head: also a key-value head's number."""

    name: str
    kind: str  # one of KINDS
    layer: int | None
    head: int | None
    place: Place
    columns: Columns | None = None

    @property
    def path(self) -> str:
        return self.place.path

    @property
    def reads(self) -> str:
        return self.place.reads

    @property
    def part(self) -> slice | list[int]:
        """Its columns, to index the last axis with."""
        if self.columns is None or len(self.columns) == 2:
            return slice(*self.columns or (None,))
        return numbers_of(self.columns)


def all_sites(structure: Structure) -> list[PatchSite]:
    """Every site in the order the model computes them, single neurons left out."""
    found = [PatchSite("embed", "embed", None, None, Place(structure.embedding, "output"))]
    for number, layer in enumerate(structure.layers):
        found += _of_layer(structure, number, layer)
    return found


def usual(structure: Structure, patterns: Sequence[str]) -> tuple[str, ...]:
    """Those of the patterns that the model has sites for."""
    known = all_sites(structure)
    return tuple(pattern for pattern in patterns if _matching(structure, pattern, known))


def select(structure: Structure, patterns: str | Iterable[str]) -> tuple[PatchSite, ...]:
    """The sites that any of the patterns matches, in the order of the patterns and of the model, each once.

    A pattern is one for each part of a name, head.*.* for head.3.1; "*" alone matches every site, single neurons not.

    Raises UnknownName (with the nearest names) for a pattern that no model has, UnsupportedModel for sites that this
    model has not, InputError where no pattern is given.
    """
    wanted = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    if not wanted:
        raise InputError("no site was asked for; give patterns such as 'resid_post.*' or 'head.*.*'")
    return _selected(structure, wanted)


@lru_cache(maxsize=64)
def _selected(structure: Structure, wanted: tuple[str, ...]) -> tuple[PatchSite, ...]:
    known = all_sites(structure)
    found: dict[str, PatchSite] = {}
    for pattern in wanted:
        matching = _matching(structure, pattern, known)
        if not matching:
            _refuse(structure, pattern, known)
        found |= {site.name: site for site in matching}
    return tuple(found.values())


def kind_of(name: str) -> str:
    """The kind of the site of that name."""
    parts = name.split(".")
    return parts[3] if parts[0] == "head" and len(parts) == 4 else parts[0]


def layer_of(name: str) -> int | None:
    """The block of the site of that name; None for the embeddings."""
    parts = name.split(".")
    return int(parts[1]) if len(parts) > 1 else None


def _of_layer(structure: Structure, number: int, layer: Layer) -> Iterator[PatchSite]:
    yield PatchSite(f"resid_pre.{number}", "resid_pre", number, None, layer.pre)
    yield from _heads(number, layer)
    attentions = [attention.made for attention in layer.attentions]
    added = (("attn_out", next(iter(attentions), None)), ("mixer_out", layer.mixer))
    for kind, place in (*added, ("resid_mid", layer.mid), ("neuron", layer.neurons), ("mlp_out", layer.mlp)):
        if place is not None:
            yield PatchSite(f"{kind}.{number}", kind, number, None, place)
    for kind, places in (("attn_out", attentions[1:]), ("mlp_out", layer.further)):
        for which, place in enumerate(places, 1):
            if place is not None:
                yield PatchSite(f"{kind}.{number}.{which}", kind, number, None, place)
    yield PatchSite(f"resid_post.{number}", "resid_post", number, None, layer.post)


def _heads(number: int, layer: Layer) -> Iterator[PatchSite]:
    heads = kv_heads = 0
    for attention in layer.attentions:
        for kind, field in _PROJECTIONS:
            projection: Projection | None = getattr(attention, field)
            before = heads if kind == "q" else kv_heads
            for head, columns in enumerate(projection.columns if projection else (), before):
                assert projection is not None
                yield PatchSite(f"head.{number}.{head}.{kind}", kind, number, head, projection.place, columns)
        for head, columns in enumerate(attention.heads, heads):
            if attention.z is not None:
                yield PatchSite(f"head.{number}.{head}", "head", number, head, attention.z, columns)
        heads, kv_heads = heads + len(attention.heads), kv_heads + attention.kv_heads


def _matching(structure: Structure, pattern: str, known: Sequence[PatchSite]) -> list[PatchSite]:
    parts = pattern.split(".")
    if parts[0] == "neuron" and len(parts) == 3:
        return _neurons(structure, parts[1], parts[2])
    return [site for site in known if _fits(site.name.split("."), parts)]


def _fits(name: Sequence[str], pattern: Sequence[str]) -> bool:
    return pattern == ["*"] or (len(name) == len(pattern) and all(map(fnmatchcase, name, pattern)))


def _neurons(structure: Structure, layers: str, wanted: str) -> list[PatchSite]:
    """Single neurons, or a group of them."""
    group = re.fullmatch(r"(\d+):(\d+)", wanted)
    found = []
    for number, layer in enumerate(structure.layers):
        if layer.neurons is None or not fnmatchcase(str(number), layers):
            continue
        if group is not None:
            spans = [(int(group[1]), int(group[2]))]
        elif wanted.isdecimal():
            spans = [(int(wanted), int(wanted) + 1)]
        else:
            spans = [(i, i + 1) for i in range(layer.units) if fnmatchcase(str(i), wanted)]
        for start, stop in spans:
            if start < stop <= layer.units:
                name = f"neuron.{number}.{start}" + (f":{stop}" if group is not None else "")
                found.append(PatchSite(name, "neuron", number, None, layer.neurons, (start, stop)))
    return found


def _refuse(structure: Structure, pattern: str, known: Sequence[PatchSite]) -> None:
    names = [site.name for site in known]
    kind = kind_of(pattern)
    if kind in KINDS and kind not in {site.kind for site in known}:
        why = _nothing_between(structure) if kind == "resid_mid" else None
        why = why or "; ".join(structure.missing)
        raise UnsupportedModel(f"{structure.model} has no {kind} sites{': ' if why else ''}{why}")
    if kind == "neuron" and pattern.count(".") == 2:
        number, last = max((i, layer.units) for i, layer in enumerate(structure.layers) if layer.neurons is not None)
        of = f"neuron.{number}"
        raise UnknownName("site", pattern, [f"{of}.{last - 1}", f"{of}.0:{last}", of])
    patterns = list(dict.fromkeys(_pattern_of(site) for site in known))
    raise UnknownName("site", pattern, get_close_matches(pattern, [*names, *patterns], cutoff=0.4) or patterns)


def _nothing_between(structure: Structure) -> str | None:
    """Why no layer has a stream between attention and MLP, where that is known."""
    if structure.parallel:
        return "attention and MLP run in parallel, so nothing lies between them"
    both = any(layer.mlp and (any(each.made for each in layer.attentions) or layer.mixer) for layer in structure.layers)
    return None if both else "no layer has an MLP behind attention or another mixer, so nothing lies between them"


def _pattern_of(site: PatchSite) -> str:
    """ "resid_post.*" for resid_post.3."""
    return ".".join("*" if part.isdecimal() else part for part in site.name.split("."))
