"""True effects of patches on pairs of prompts: by replaying blocks where they can be, else by whole forwards."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attrib.patching.access import reading
from attrib.patching.blocks import block_paths, entering, recorded
from attrib.patching.calls import NotReplayable, alone
from attrib.patching.fused import fuse_activations
from attrib.patching.prompt import Patch, Prompt, Recomputation, Tick, owners
from attrib.patching.replay import Replay
from attrib.patching.sites import PatchSite
from attrib.patching.structure import Structure
from attrib.patching.tail import Tail

Entry = tuple[PatchSite, int]  # a site and a position
_FEW = 8  # patches that cost less than the proof that blocks can be replayed


@dataclass(frozen=True, eq=False)
class TrueEffects:
    """effects: (pairs, entries). base, other: (pairs,) the metric of the runs that are patched, and of the others."""

    effects: Tensor
    base: Tensor
    other: Tensor
    notes: tuple[str, ...] = ()


def true_effects(
    base: Prompt,
    other: Prompt,
    twin: nn.Module,
    entries: Sequence[Entry],
    rows: int,
    on_progress: Callable[[float], None],
) -> TrueEffects:
    """What the base run's metric does with each entry's activation taken from the other run, for every pair.

    rows: how many forwards may run at the same time. Entries whose activations are the same in both runs are 0 without
    a run; the stream behind one block and in front of the next is patched once.
    """
    on_progress(0.0)
    fuse_activations(twin)
    sites = [_canonical(site, base.structure) for site, _ in entries]
    (before, own), (after, others) = (run.values(twin, sites) for run in (base, other))
    patches: list[Patch] = []
    number: dict[tuple[str, int, int], int] = {}  # name, position, pair → which patch; behind the last: none is needed
    for site, position in dict.fromkeys(zip(sites, (position for _, position in entries), strict=True)):
        values = after[site.place][:, position, site.part]
        differ = (values != before[site.place][:, position, site.part]).any(-1).tolist()
        for of in (pair for pair, differs in enumerate(differ) if differs):
            number[site.name, position, of] = len(patches)
            patches.append(Patch(site, position, values[of], of))
    scores, unpatched, notes = _scores(base, twin, patches, own, rows, on_progress)
    changes = torch.cat([scores - unpatched[owners(patches, scores)], scores.new_zeros(1)])
    places = [[number.get((site.name, p, of), -1) for site, (_, p) in zip(sites, entries, strict=True)]
              for of in range(len(own))]  # fmt: skip
    return TrueEffects(changes[torch.tensor(places, dtype=torch.long, device=changes.device)], own, others, notes)


def _canonical(site: PatchSite, structure: Structure) -> PatchSite:
    """The stream behind a block is the stream in front of the next."""
    last = len(structure.layers) - 1
    if site.kind != "resid_post" or site.layer is None or site.layer == last or not structure.chained:
        return site
    return _stream(structure, site.layer + 1)


def _scores(
    base: Prompt,
    twin: nn.Module,
    patches: list[Patch],
    own: Tensor,
    rows: int,
    on_progress: Callable[[float], None],
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """(metric with each patch, (prompts,) metric with none, notes). own: the metric of the base run."""
    progress = _Progress(on_progress)
    notes: tuple[str, ...] = ()
    if len(patches) > _FEW:
        try:
            replay = replay_of(base, twin, patches, rows, progress.add)
        except NotReplayable as error:
            notes = (f"every patch is a whole forward: the blocks cannot be replayed one by one ({error})",)
        else:
            read = [i for i, patch in enumerate(patches) if patch.position < replay.tokens]
            progress.total = replay.work([patches[i] for i in read])
            unpatched = replay.unpatched()
            scores = unpatched[owners(patches, unpatched)]
            scores[read] = replay.scores([patches[i] for i in read])
            return scores, unpatched, notes
    whole = Recomputation(twin, base, rows, progress.add)
    progress.total = whole.work(patches)
    return whole.scores(patches), own, notes


@dataclass
class _Progress:
    on_progress: Callable[[float], None]
    total: int = 0
    done: int = 0

    def add(self, work: int) -> None:
        self.done += work
        self.on_progress(min(1.0, self.done / self.total) if self.total else 0.0)


def replay_of(prompt: Prompt, twin: nn.Module, patches: Sequence[Patch], rows: int, tick: Tick) -> Replay:
    """The quick way, proved on these prompts by one of `patches` of each kind: NotReplayable says what is against it.

    rows: how many forwards may run at the same time; as many rows of single blocks fit that there are blocks.
    """
    if not _is_causal(prompt.first(), twin):
        return _proved(prompt, twin, patches, rows, tick, causal=False)
    prompt = prompt.until_read()
    try:
        return _proved(prompt, twin, patches, rows, tick, causal=True)
    except NotReplayable:  # no cache that takes keys and values: all positions from the patched layer on
        return _proved(prompt, twin, patches, rows, tick, causal=False)


def _proved(prompt: Prompt, twin: nn.Module, patches: Sequence[Patch], rows: int, tick: Tick, causal: bool) -> Replay:
    with alone():
        calls = recorded(twin, prompt.structure, lambda: prompt.forward(twin, prompt.x), causal)
        tail = Tail(prompt.model.module, prompt.structure, calls, prompt.forward, prompt.x, prompt.target)
        first = block_paths(prompt.structure)[0]
        found = Replay(
            twin,
            calls,
            tail,
            causal,
            prompt.x,
            lambda x: entering(twin, first, lambda: prompt.forward(twin, x)),
            rows * len(calls),
            tick,
        )
        _prove(found, prompt, patches, rows)
    return found


def _is_causal(prompt: Prompt, twin: nn.Module) -> bool:
    """Whether the last token acts on no other."""
    if prompt.x.shape[1] == 1:
        return False  # there is nothing before it to keep
    posts = [layer.post for layer in prompt.structure.layers]
    other = prompt.x.clone()
    other[:, -1] = other[:, -1].flip(-1) + other.abs().max()
    found = []
    for x in (prompt.x, other):
        with reading(twin, posts) as noted:
            prompt.forward(twin, x)
        found.append(torch.stack([noted.values[place][:, :-1] for place in posts]))
    rounding = 32 * torch.finfo(prompt.x.dtype).eps * found[0].abs().amax()
    return bool((found[0] - found[1]).abs().amax() <= rounding)


def _prove(replay: Replay, prompt: Prompt, patches: Sequence[Patch], rows: int) -> None:
    """Compare with whole forwards: nothing patched, in the first prompt from three places on, and one true patch of
    every kind, of the last prompt where it has one."""
    layers, tokens = prompt.structure.layers, replay.tokens
    places = ((0, 0), (len(layers) // 2, tokens // 2), (len(layers) - 1, tokens - 1))
    same = [Patch(_stream(prompt.structure, at), p, replay.calls[at].hidden[0, p]) for at, p in places]
    true = _one_of_each_kind(patches, len(layers) // 2, tokens)
    expected = prompt.scores(replay.twin, prompt.x)
    expected = torch.cat([expected, expected[:1].expand(3)])
    whole = Recomputation(replay.twin, prompt, rows, lambda done: None).scores(true)
    found = torch.cat([replay.unpatched(), replay.scores([*same, *true])])
    worst = float((found - torch.cat([expected, whole])).abs().max())
    if not worst <= _tolerance(torch.cat([expected, whole])):
        raise NotReplayable(f"replayed, the metric differs by {worst:.2g}")


def _one_of_each_kind(patches: Sequence[Patch], layer: int, tokens: int) -> list[Patch]:
    """Those nearest to this layer and to the middle of the prompt, and not behind it; of the last prompt if any."""
    read = [patch for patch in patches if patch.position < tokens]
    read.sort(key=lambda patch: (abs(patch.layer - layer), abs(patch.position - tokens // 2), -patch.of))
    return list({patch.site.kind: patch for patch in reversed(read)}.values())


def _stream(structure: Structure, layer: int) -> PatchSite:
    return PatchSite(f"resid_pre.{layer}", "resid_pre", layer, None, structure.layers[layer].pre)


def _tolerance(values: Tensor) -> float:
    """What rounding alone explains: far below what a wrong position or mask does."""
    return math.sqrt(torch.finfo(values.dtype).eps) * max(0.1, float(values.abs().max()))
