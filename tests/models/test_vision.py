"""VisionModel: encoding, labels, predictions, hashes; and that nothing of this touches the module."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import attrib
from attrib.errors import InputError, TargetError
from attrib.models import Preprocessing, VisionModel, hashing
from tests.models.tiny_vision import tiny

PHOTOS = {
    "efficientnet": [
        ("cheetah", 0.90),
        ("lion", 0.90),
        ("persian_cat", 0.83),
        ("siamese_cat", 0.97),
        ("egyptian_cat", 0.98),
    ],
    "squeezenet": [
        ("cheetah", 0.82),
        ("lion", 0.99),
        ("persian_cat", 0.99),
        ("siamese_cat", 0.99),
        ("tabby_cat", 0.67),
    ],
}


@pytest.mark.parametrize("fixture", PHOTOS)
def test_photos_are_recognised(fixture: str, photos: dict[str, Path], request: pytest.FixtureRequest) -> None:
    model: VisionModel = request.getfixturevalue(fixture)
    names, expected = zip(*PHOTOS[fixture], strict=True)
    for name, probability, (top, *others) in zip(
        names, expected, model.predict([photos[n] for n in names]), strict=True
    ):
        assert top.label.casefold() == name.replace("_cat", " cat").replace("tabby cat", "tabby").casefold()
        assert top.probability == pytest.approx(probability, abs=0.02)
        assert model.labels is not None
        assert model.labels[top.index] == top.label
        assert [p.probability for p in others] == sorted((p.probability for p in others), reverse=True)


def test_tensors_are_taken_as_preprocessed(efficientnet: VisionModel, cheetah: Path) -> None:
    from_file = efficientnet.encode(cheetah)
    from_tensor = efficientnet.encode(from_file.x)
    assert from_tensor.hashes == from_file.hashes
    assert torch.equal(from_tensor.x, from_file.x)
    assert from_tensor.pictures is not None
    assert from_file.pictures is not None
    np.testing.assert_array_equal(from_tensor.pictures, from_file.pictures)


def test_raw_pixels_as_a_tensor_are_told(squeezenet: VisionModel) -> None:
    x = torch.rand(1, 3, 32, 32)
    assert squeezenet.encode(x * 2).notes == squeezenet.notes
    (note,) = set(squeezenet.encode(x * 255).notes) - set(squeezenet.notes)
    assert "is it preprocessed?" in note and "-2.12 to 2.64" in note


@pytest.mark.parametrize(
    ("x", "words"),
    [
        ([torch.ones(3, 8, 8)] * 2, r"torch\.stack"),
        (torch.ones(1, 3, 8, 8, device="meta"), "dense"),
        (torch.ones(1, 3, 8, 8).to_sparse(), "dense"),
    ],
)
def test_tensors_without_pixels(squeezenet: VisionModel, x: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        squeezenet.encode(x)


def test_what_is_encoded_is_not_the_callers_tensor() -> None:
    x = torch.zeros(2, 3, 8, 8)
    encoded = attrib.wrap(tiny()).encode(x)
    encoded.x.fill_(7.0)
    assert x.abs().sum() == 0
    assert encoded.pictures is None


def test_each_input_has_its_own_hash(efficientnet: VisionModel, photos: dict[str, Path]) -> None:
    paths = list(photos.values())[:3]
    together = efficientnet.encode(paths).hashes
    assert len(set(together)) == 3
    assert together == tuple(efficientnet.encode(p).hashes[0] for p in paths)


def test_notes_about_inputs_are_kept(efficientnet: VisionModel) -> None:
    clear = Image.new("RGBA", (300, 300), (0, 0, 0, 0))
    assert len(efficientnet.encode([clear, clear]).notes) == 1


def test_the_expected_channels_are_the_models() -> None:
    assert attrib.wrap(tiny(channels=1)).encode(torch.zeros(2, 1, 8, 8)).x.shape == (2, 1, 8, 8)
    with pytest.raises(InputError, match=r"\(batch, 1, height, width\)"):
        attrib.wrap(tiny(channels=1)).encode(torch.zeros(2, 3, 8, 8))


class Backwards(nn.Module):
    """What runs first is registered last, and an embedding of its own before all."""

    def __init__(self, fold: int = 1) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1))
        self.head, self.second = nn.Linear(4, 3), nn.Conv2d(6, 4, 3)
        self.first, self.fold = nn.Conv2d(2 * fold**2, 6, 3, groups=2), fold

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(nn.functional.pixel_unshuffle(x, self.fold)) + self.token
        return self.head(self.second(x).mean((2, 3)))


def test_the_expected_channels_are_those_of_the_layer_that_runs_first() -> None:
    model = attrib.wrap(Backwards())
    assert model.encode(torch.zeros(1, 2, 8, 8)).x.shape == (1, 2, 8, 8)
    for wrong, hint in (((1, 6, 8, 8), r"\(batch, 2, height, width\)"), ((2, 8, 8), "add the batch dimension")):
        with pytest.raises(InputError, match=hint):
            attrib.wrap(Backwards()).encode(torch.zeros(wrong))
    assert attrib.wrap(Backwards(fold=2)).encode(torch.zeros(1, 2, 8, 8)).x.shape == (1, 2, 8, 8)  # 8 go into the layer
    assert attrib.wrap(nn.Flatten()).encode(torch.zeros(2, 7, 2, 2)).x.shape == (2, 7, 2, 2)


def test_without_preprocessing_there_are_no_pictures_and_no_bounds() -> None:
    model = attrib.wrap(tiny())
    assert model.bounds() is None
    with pytest.raises(InputError, match="has no preprocessing"):
        model.encode(Image.new("RGB", (9, 9)))


def test_bounds_follow_device_and_dtype() -> None:
    model = attrib.wrap(tiny().double(), preprocessing=Preprocessing())
    bounds = model.bounds()
    assert bounds is not None
    assert bounds[0].dtype == bounds[1].dtype == torch.float64
    assert (bounds[0] < 0).all()
    assert (bounds[1] > 0).all()
    assert model.encode(Image.new("RGB", (9, 9))).x.dtype == torch.float64


def test_torchvisions_transforms_are_preprocessing_too() -> None:
    from torchvision.models import ResNet18_Weights

    model = attrib.wrap(tiny(), preprocessing=ResNet18_Weights.DEFAULT.transforms())
    assert model.preprocessing == Preprocessing()


def test_index_of(efficientnet: VisionModel) -> None:
    for name, index in (("cheetah", 293), ("Persian cat", 283), (" persian CAT ", 283), (5, 5), (np.int64(7), 7)):
        assert efficientnet.index_of(name) == index  # type: ignore[arg-type]


def test_labels_that_repeat_are_named_by_their_indices() -> None:
    model = attrib.wrap(tiny(), labels=["crane", "dog", "crane", "Dog"])
    with pytest.raises(TargetError, match=r"2 classes are called 'crane'.*\[0, 2\]"):
        model.index_of("crane")
    assert model.index_of("dog") == 1
    assert model.index_of("Dog") == 3
    with pytest.raises(TargetError, match=r"\[1, 3\]"):
        model.index_of("DOG")


def test_without_labels_only_indices() -> None:
    model = attrib.wrap(tiny())
    with pytest.raises(TargetError, match="has no labels"):
        model.index_of("cat")
    assert model.index_of(3) == 3
    assert model.predict(torch.zeros(1, 3, 8, 8), k=9)[0][0].label.isdecimal()
    assert len(model.predict(torch.zeros(1, 3, 8, 8), k=9)[0]) == 4


def test_predict_leaves_a_training_model_alone() -> None:
    module = tiny().train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    attrib.wrap(module).predict(torch.randn(4, 3, 8, 8))
    assert all(m.training for m in module.modules())
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in module.parameters())


def test_predict_takes_a_batch_of_any_size(squeezenet: VisionModel, photos: dict[str, Path]) -> None:
    paths = list(photos.values()) * 2
    assert [row[0].label for row in squeezenet.predict(paths)] == [squeezenet.predict(p)[0][0].label for p in paths]
    with pytest.raises(InputError, match="k = 0"):
        squeezenet.predict(paths[0], k=0)


def test_weights_hash_follows_the_weights() -> None:
    module = tiny()
    model = attrib.wrap(module)
    first = model.weights_hash
    assert first == attrib.wrap(tiny()).weights_hash
    with torch.no_grad():
        module[0].weight[0, 0, 0, 0] += 1  # type: ignore[index,operator,union-attr]
    second = model.weights_hash
    assert second != first
    module[1].running_mean.add_(1)  # type: ignore[operator,union-attr]
    assert model.weights_hash not in (first, second)
    assert attrib.wrap(tiny().to(torch.bfloat16)).weights_hash != first


def test_weights_are_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = attrib.wrap(tiny())
    first = model.weights_hash
    monkeypatch.setattr(hashing, "hash_of", lambda tensors: pytest.fail("hashed again"))
    assert model.weights_hash == first


def test_wrapping_and_predicting_in_threads(squeezenet: VisionModel, photos: dict[str, Path]) -> None:
    expected = squeezenet.predict(photos["lion"])
    found: list[Any] = [None] * 6

    def work(i: int) -> None:
        found[i] = squeezenet.predict(photos["lion"])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(f == expected for f in found)
