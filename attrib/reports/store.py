"""A report's folder: what is in it and how to read it. This is the contract between the runner and what it writes for.

    manifest.json     format, finished, spec (as in spec.toml), targets, settings (method → all of them), versions,
                      seeds (method → seed), models (name, kind, weights_hash, device, dtype, classes), counts (inputs,
                      items, rows, failed_inputs, failed_rows); and what differs from run to run: machine, times
                      (started, finished, seconds)
    spec.toml         the effective spec, fit for `attrib report spec.toml`
    results.parquet   one row per input × model × method × target; results.csv: the same, harmless to spreadsheets
    values/*.safetensors   raw maps, a file per batch × model × method × target; tensors: "ITEM/values", "ITEM/parts.…",
                      "ITEM/compared.LIGHT/WORDS": the map that a light of the evidence compared it with
    pictures/*.png    what a model saw of an image, before normalisation
    journal.sqlite    what is finished, for resuming

Names of inputs are text from outside and appear in no path: items are called by the hash of their content.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from attrib.attribution import Attribution
from attrib.coverage import Coverage
from attrib.errors import ReportError
from attrib.provenance import Provenance
from attrib.reports.journal import Journal, Key
from attrib.reports.records import MEASURED, Input, Row, digest, row_of

__all__ = ["FORMAT", "JOURNAL", "LOCK", "MANIFEST", "MEASURED", "Input", "Row", "Store", "digest", "read_manifest"]

FORMAT = 1
MANIFEST, JOURNAL, LOCK = "manifest.json", "journal.sqlite", ".lock"
COMPARED = "compared."  # what tensors of maps are called that evidence compared the item's own with


class Store:
    """A report's folder, for reading; a page of it in memory at a time. Works on unfinished reports as well."""

    def __init__(self, folder: Path, journal: Journal, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.journal = journal
        self.manifest = manifest
        self._seen: tuple[str, np.ndarray] | None = None  # the last picture: all rows of an item have the same

    @staticmethod
    def open(folder: str | Path) -> Store:
        """The report in `folder`. Raises ReportError where there is none."""
        path = Path(folder)
        manifest = read_manifest(path)
        return Store(path, Journal(path / JOURNAL), manifest)

    def close(self) -> None:
        self.journal.close()

    @property
    def models(self) -> tuple[str, ...]:
        """Names of models, methods, targets: in the order of the spec, which is the order of rows."""
        return tuple(model["name"] for model in self.manifest["models"])

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(self.manifest["spec"]["methods"])

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(self.manifest["targets"])

    def entries(self) -> Iterator[tuple[Input, list[Row]]]:
        """Every input in its order, with its rows in the order model, method, target. Rows not yet computed lack."""
        for position, item, record in self.journal.inputs():
            yield self._entry(position, item, record)

    def rows(self) -> Iterator[Row]:
        """Every row, in the order of `entries`."""
        for _, rows in self.entries():
            yield from rows

    def entry(self, item: str) -> tuple[Input, list[Row]]:
        """The first input with this content, and its rows. Raises ReportError for an unknown item."""
        found = self.journal.input_of(item)
        if found is None:
            raise ReportError(f"the report in {str(self.folder)!r} holds no item {item!r}")
        return self._entry(found[0], item, found[1])

    def tensors(self, row: Row) -> dict[str, torch.Tensor]:
        """The row's raw tensors, without a batch dimension: "values", and "parts.content" … where there are parts."""
        from safetensors import SafetensorError, safe_open

        if row.values is None:
            raise ReportError(f"{row.name!r} has no map: {row.error}")
        try:
            with safe_open(self.folder / row.values, framework="pt") as file:
                prefix = f"{row.item}/"
                return {k.removeprefix(prefix): file.get_tensor(k) for k in file.keys() if k.startswith(prefix)}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ReportError(f"cannot read {row.values} of the report in {str(self.folder)!r}: {error}") from error

    def compared(self, row: Row) -> dict[str, np.ndarray]:
        """ "LIGHT/WORDS" → the map that this light of the row's evidence compared its own with."""
        if row.values is None or not row.evidence:
            return {}
        tensors = self.tensors(row)
        return {name.removeprefix(COMPARED): t.numpy() for name, t in tensors.items() if name.startswith(COMPARED)}

    def picture(self, row: Row) -> np.ndarray | None:
        """(height, width, 3) uint8: what the model saw; None for texts."""
        if row.picture is None:
            return None
        seen = self._seen  # threads may share a store
        if seen is None or seen[0] != row.picture:
            seen = self._seen = row.picture, self._picture(row.picture)
        return seen[1].copy()

    def _picture(self, path: str) -> np.ndarray:
        try:
            with Image.open(self.folder / path) as image:
                return np.array(image.convert("RGB"))
        except (OSError, ValueError) as error:
            raise ReportError(f"cannot read {path} of the report in {str(self.folder)!r}: {error}") from error

    def attribution(self, row: Row) -> Attribution:
        """The row as the result of `attrib.explain` on this one input: a batch of 1."""
        tensors = {name: tensor[None] for name, tensor in self.tensors(row).items()}
        picture = self.picture(row)
        parts = {k.removeprefix("parts."): v for k, v in tensors.items() if k.startswith("parts.")}
        return Attribution(
            kind=row.map_kind,
            values=tensors["values"],
            target=[_target_of(row)],
            score=torch.tensor([row.score]),
            delta=None if row.delta is None else torch.tensor([row.delta]),
            provenance=self._provenance(row),
            coverage=Coverage(uncovered=dict.fromkeys(row.uncovered, 1)) if row.uncovered else None,
            ledger={name: torch.tensor([amount]) for name, amount in row.ledger.items()} or None,
            parts=parts or None,
            notes=row.notes,
            pictures=None if picture is None else picture[None],
            token_texts=(row.tokens,) if row.tokens else None,
            words=(row.words,) if row.words else None,
            reduction=row.reduction,
            signed=row.signed,
        )

    def _entry(self, position: int, item: str, record: dict[str, Any]) -> tuple[Input, list[Row]]:
        it = Input(position=position, item=item, **record)
        known = [(self._rank(finished.key), finished) for finished in self.journal.results_of(item)]
        known.sort(key=lambda pair: pair[0])
        return it, [row_of(it, finished) for _, finished in known]

    def _rank(self, key: Key) -> tuple[int, ...]:
        _, model, method, target = key
        return self.models.index(model), self.methods.index(method), self.targets.index(target)

    def _provenance(self, row: Row) -> Provenance:
        model = next(model for model in self.manifest["models"] if model["name"] == row.model)
        settings = self.manifest["settings"][row.method]
        return Provenance(
            method=row.method,
            settings=settings | row.settled,
            chosen={name: settings[name] for name in row.settled},
            model=row.model,
            weights_hash=model["weights_hash"],
            input_hashes=(row.input_hash,),
            versions=self.manifest["versions"],
            device=model["device"],
            dtype=model["dtype"],
            seed=self.manifest["seeds"].get(row.method),
            seconds=row.seconds,
            peak_memory=row.memory,
            created=self.manifest["times"]["started"],
        )


def read_manifest(folder: Path) -> dict[str, Any]:
    """manifest.json. Raises ReportError where there is none that can be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise ReportError(
                f"the report in {str(folder)!r} has format {manifest['format']}; this version reads format {FORMAT}"
            )
        return dict(manifest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReportError(f"{str(folder)!r} holds no report: {error}") from error


def _target_of(row: Row) -> dict[str, Any]:
    target: dict[str, Any] = {"kind": "logit"}
    return target | ({} if row.target_index is None else {"index": row.target_index}) | {"label": row.target_label}
