"""Equal to pytorch-grad-cam before its scaling, where it is installed."""

from __future__ import annotations

import pytest
import torch
from tiny_nets import pictures, rectified, wrapped

import attrib
from attrib.methods.cam import GradCAM, GradCAMPlusPlus, LayerCAM

pytorch_grad_cam = pytest.importorskip("pytorch_grad_cam")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("method", "theirs"), [(GradCAM, "GradCAM"), (GradCAMPlusPlus, "GradCAMPlusPlus"), (LayerCAM, "LayerCAM")]
)
def test_equal_after_its_scaling(method, theirs):
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    x = pictures(2).float()
    model = wrapped(rectified(), x)
    model.module[4].inplace = False  # its hooks do not survive what an in-place relu does
    with getattr(pytorch_grad_cam, theirs)(model=model.module, target_layers=[model.module[3]]) as cam:
        expected = torch.from_numpy(cam(x, [ClassifierOutputTarget(1)] * 2))
    maps = attrib.explain(model, x, method("3"), 1).values
    maps = maps - maps.amin((1, 2), keepdim=True)
    maps = maps / (1e-7 + maps.amax((1, 2), keepdim=True))
    # it resizes from 4 × 4 to 8 × 8 with OpenCV, whose bilinear is torch's
    maps = torch.nn.functional.interpolate(maps[:, None], (8, 8), mode="bilinear")[:, 0]
    maps = maps / (1e-7 + maps.amax((1, 2), keepdim=True))
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-3)
