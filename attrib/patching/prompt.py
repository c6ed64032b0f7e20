"""Prompts of a model, run without padding: their metric, their activations, and patches by whole forwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from attrib.binding import BoundTarget
from attrib.patching.access import Change, reading, writing
from attrib.patching.places import Place
from attrib.patching.sites import PatchSite
from attrib.patching.structure import Structure

if TYPE_CHECKING:
    from attrib.models.text import TextModel

_READ_AT = "read_at"  # as `attrib.models.text` calls it
Tick = Callable[[int], None]


@dataclass(frozen=True)
class Patch:
    """`site` at `position` is overwritten with `value`, (width,) of the site's columns. of: in which of the prompts."""

    site: PatchSite
    position: int
    value: Tensor
    of: int = 0

    @property
    def layer(self) -> int:
        return self.site.layer or 0


def overwriting(patches: Sequence[Patch], stop: int | None = None) -> dict[Place, Change]:
    """The changes of a batch whose row i carries patch i alone; `stop`: the position behind its last column, where it
    does not begin with the first: some projections make keys and values of the tokens before anew."""
    by_place: dict[Place, list[tuple[int, Patch]]] = {}
    for row, patch in enumerate(patches):
        if patch.site.kind != "embed":  # the model is given those
            by_place.setdefault(patch.site.place, []).append((row, patch))
    return {place: _writer(own, stop, len(patches)) for place, own in by_place.items()}


def _writer(patches: Sequence[tuple[int, Patch]], stop: int | None, rows: int) -> Change:
    def change(tensor: Tensor) -> Tensor:
        changed = tensor.clone(memory_format=torch.contiguous_format)
        by_row = changed.view(rows, -1, tensor.shape[-1])  # also where the model has flattened rows and tokens
        for row, patch in patches:
            by_row[row, patch.position - (stop or 0), patch.site.part] = patch.value
        return changed

    return change


def owners(patches: Sequence[Patch], like: Tensor) -> Tensor:
    """(patches,) which prompt each patch is of, where `like` is."""
    return torch.tensor([patch.of for patch in patches], dtype=torch.long, device=like.device)


@dataclass(frozen=True, eq=False)
class Prompt:
    """Prompts of a model: of one length, without padding, with the same extra inputs, read at the same place.

    x: (prompts, tokens, width) word embeddings. extra: what else the model is given, of one row. target: of each.
    """

    model: TextModel
    structure: Structure
    x: Tensor
    extra: dict[str, Tensor]
    target: BoundTarget

    def forward(self, twin: nn.Module, x: Tensor) -> Any:
        """What the model returns for variants (rows, the first tokens, width) of the prompt; read at the same place."""
        extra = {
            name: value[:, : x.shape[1]].expand(len(x), -1) for name, value in self.extra.items() if value.dim() > 1
        }
        if _READ_AT in self.extra:
            extra[_READ_AT] = self.extra[_READ_AT].clamp(max=x.shape[1] - 1).expand(len(x))
        return self.model.forward(twin, x, extra)

    def scores(self, twin: nn.Module, x: Tensor, of: Tensor | None = None) -> Tensor:
        """(rows,) the explained number of each variant. of: which prompt it is one of; default: one of each."""
        of = torch.arange(len(x), device=x.device) if of is None else of
        return self.target.scores(self.forward(twin, x), None if self.target.function else of)

    def until_read(self) -> Prompt:
        """The prompt without the tokens behind the one where the model is read."""
        if _READ_AT not in self.extra:
            return self
        return replace(self, x=self.x[:, : int(self.extra[_READ_AT]) + 1])

    def first(self) -> Prompt:
        """The first of the prompts alone."""
        return replace(self, x=self.x[:1], target=self.target.part(0, 1))

    def values(self, twin: nn.Module, sites: Sequence[PatchSite]) -> tuple[dict[Place, Tensor], Tensor]:
        """(what the sites' places hold, (prompts, tokens, width) each; the explained numbers, (prompts,))."""
        with reading(twin, [site.place for site in sites if site.kind != "embed"]) as found:
            score = self.scores(twin, self.x)
        values = {place: tensor.reshape(len(self.x), -1, tensor.shape[-1]) for place, tensor in found.values.items()}
        return values | {site.place: self.x for site in sites if site.kind == "embed"}, score


@dataclass(frozen=True, eq=False)
class Recomputation:
    """Patches by whole forwards: slow, for any model. rows: how many at a time."""

    twin: nn.Module
    prompt: Prompt
    rows: int
    tick: Tick

    def scores(self, patches: Sequence[Patch]) -> Tensor:
        """(patches,) the explained number with each patch alone."""
        if not patches:
            return self.prompt.x.new_empty(0)
        at_once = self.rows if self._takes_rows() else 1
        parts = [self._scores(patches[at : at + at_once]) for at in range(0, len(patches), at_once)]
        return torch.cat(parts)

    def work(self, patches: Sequence[Patch]) -> int:
        return len(patches)

    def _scores(self, patches: Sequence[Patch]) -> Tensor:
        of = owners(patches, self.prompt.x)
        x = self.prompt.x[of]
        for row, patch in enumerate(patches):
            if patch.site.kind == "embed":
                x[row, patch.position] = patch.value
        with writing(self.twin, overwriting(patches)):
            scores = self.prompt.scores(self.twin, x, of)
        self.tick(len(patches))
        return scores

    def _takes_rows(self) -> bool:
        """Whether rows go through the model together: classifiers without a padding token take one at a time."""
        first = self.prompt.structure.layers[0].pre
        with reading(self.twin, [first]) as found:
            self.prompt.forward(self.twin, self.prompt.x[:1].repeat(2, 1, 1))
        return len(found.values[first]) == 2
