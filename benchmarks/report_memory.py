"""One report on many small inputs, and the peak of this process: report_memory.py text|image NUMBER FOLDER."""

from __future__ import annotations

import io
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import attrib
from attrib.models import Preprocessing


def tiny_image_model() -> Any:
    """A network of one convolution on 16 × 16 pixels."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return attrib.wrap(module, name="tiny", preprocessing=Preprocessing(16, 16), labels=["a", "b", "c"])


def tables(kind: str, number: int, folder: Path) -> Path:
    """A JSONL file of texts, or of paths of small pictures, all different."""
    path = folder / f"{kind}{number}.parquet"
    import pyarrow as pa
    import pyarrow.parquet as pq

    generator = np.random.default_rng(0)
    schema = pa.schema([("text", pa.string()), ("image", pa.binary())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, number, 500):
            rows = [_row(kind, i, generator) for i in range(start, min(number, start + 500))]
            writer.write_table(pa.Table.from_pylist(rows, schema))
    return path


def _row(kind: str, i: int, generator: np.random.Generator) -> dict[str, Any]:
    if kind == "text":
        return {"text": f"Film number {i} was {'good' if i % 3 else 'not good'}"}
    buffer = io.BytesIO()
    Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(buffer, "png")
    return {"image": buffer.getvalue()}


def main() -> None:
    kind, number, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    model: Any = "minilm-sentiment" if kind == "text" else tiny_image_model()
    path = tables(kind, number, folder)
    made = attrib.report(path, model, ["saliency"], folder / f"out-{kind}-{number}")
    assert made.counts["rows"] == number, made.counts
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    main()
