"""A result on disk: tensors as safetensors, all else as JSON, never pickle."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from attrib.attribution import Attribution
from attrib.coverage import Coverage
from attrib.errors import InputError
from attrib.provenance import Provenance

FORMAT_VERSION = 1


def save(result: Attribution, folder: Path) -> Path:
    """See `Attribution.save`."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "values.safetensors", to_bytes(_tensors(result)))
    _write(folder / "attribution.json", json.dumps(_document(result), indent=1, ensure_ascii=True).encode())
    return folder


def load(folder: Path) -> Attribution:
    """See `Attribution.load`."""
    try:
        document = json.loads((folder / "attribution.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "values.safetensors")
        return _from_parts(document, tensors)
    except KeyError as error:
        raise InputError(f"{folder} holds no saved attribution: what it holds has no {error}") from error
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise InputError(f"{folder} holds no saved attribution: {error}") from error


def _tensors(result: Attribution) -> dict[str, Tensor]:
    tensors = {"values": result.values, "score": result.score}
    if result.delta is not None:
        tensors["delta"] = result.delta
    if result.pictures is not None:
        tensors["pictures"] = torch.from_numpy(np.ascontiguousarray(result.pictures))
    tensors |= {f"ledger.{k}": v for k, v in (result.ledger or {}).items()}
    tensors |= {f"parts.{k}": v for k, v in (result.parts or {}).items()}
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _document(result: Attribution) -> dict[str, Any]:
    return {
        "format": FORMAT_VERSION,
        "kind": result.kind,
        "target": result.target,
        "notes": list(result.notes),
        "token_texts": result.token_texts,
        "words": result.words,
        "sites": result.sites,
        "receivers": result.receivers,
        "corrupted_texts": result.corrupted_texts,
        "reduction": result.reduction,
        "signed": result.signed,
        "coverage": None if result.coverage is None else asdict(result.coverage),
        "provenance": asdict(result.provenance),
    }


def _from_parts(document: dict[str, Any], tensors: dict[str, Tensor]) -> Attribution:
    if document["format"] != FORMAT_VERSION:
        raise InputError(f"saved with format {document['format']}, this version reads format {FORMAT_VERSION}")
    provenance = dict(document["provenance"])
    provenance["input_hashes"] = tuple(provenance["input_hashes"])
    pictures = tensors.get("pictures")
    names = {f: None if document.get(f) is None else tuple(document[f]) for f in ("sites", "receivers")}
    return Attribution(
        kind=document["kind"],
        values=tensors["values"],
        target=document["target"],
        score=tensors["score"],
        delta=tensors.get("delta"),
        provenance=Provenance(**provenance),
        coverage=None if document["coverage"] is None else Coverage(**document["coverage"]),
        ledger=_prefixed(tensors, "ledger."),
        parts=_prefixed(tensors, "parts."),
        notes=tuple(document["notes"]),
        pictures=None if pictures is None else pictures.numpy(),
        token_texts=_tuples(document["token_texts"]),
        words=_tuples(document["words"]),
        sites=names["sites"],
        receivers=names["receivers"],
        corrupted_texts=_tuples(document.get("corrupted_texts")),
        reduction=document["reduction"],
        signed=document["signed"],
    )


def _tuples(rows: Any) -> tuple[tuple[Any, ...], ...] | None:
    return None if rows is None else tuple(tuple(row) for row in rows)


def _prefixed(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor] | None:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)} or None


def _write(path: Path, content: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=path.parent) as workplace:
        part = Path(workplace) / path.name
        part.write_bytes(content)
        os.replace(part, path)
