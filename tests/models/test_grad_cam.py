"""Grad-CAM against captum, and the networks that have nothing to show."""

import pytest
import torch
import torchvision

from imgcls.config.keys import ModelConfig
from imgcls.models.grad_cam import NoMapError, grad_cam
from imgcls.models.registry import build_model, resolve_model


def built(name, image_size, **keys):
    config = resolve_model(ModelConfig(name=name, **keys), 3, image_size)
    model = build_model(config, num_classes=5, channels=3, image_size=image_size, seed=0)
    for module in model.modules():  # residuals start at 0 and would hide most layers
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "image_size", "keys", "layer", "side"),
    [
        ("resnet", 64, {"depth": 18, "width": 16, "stem": "small"}, "layer4", 8),
        ("resnet", 64, {"depth": 18, "width": 16, "stem": "standard"}, "layer3", 4),  # layer4 has maps of 2 x 2
        ("torchvision:resnet18", 128, {}, "layer4", 4),
        ("torchvision:mobilenet_v3_small", 128, {}, "features", 4),
    ],
)
def test_maps_are_captums(name, image_size, keys, layer, side):
    from captum.attr import LayerGradCam

    network = built(name, image_size, **keys)
    images = torch.randn(3, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([0, 3, 1])
    cams = grad_cam(network, images, classes)
    theirs = LayerGradCam(network, network.get_submodule(layer)).attribute(
        images, target=classes, relu_attributions=True
    )
    assert cams.maps.shape == (3, side, side)
    assert cams.maps.max() > 0
    torch.testing.assert_close(cams.maps, theirs[:, 0].detach())
    assert all(not module._forward_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_frozen_network_has_maps_too():
    network = built("resnet", 32, depth=8, width=8).requires_grad_(False)
    assert grad_cam(network, torch.randn(2, 3, 32, 32), torch.tensor([0, 1])).maps.shape[0] == 2


@pytest.mark.parametrize(
    ("network", "image_size", "reason"),
    [
        (lambda: built("random-encoder", 32, patch=16, width=8), 32, "scatters each patch"),
        (lambda: built("resnet", 4, depth=18, width=8, stem="standard"), 4, "no map of 4 x 4 cells or more"),
        (
            lambda: torchvision.models.VisionTransformer(
                image_size=32, patch_size=4, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8, num_classes=5
            ).eval(),
            32,
            "sequence of patches",
        ),
    ],
)
def test_a_network_without_a_map_is_refused_with_a_reason(network, image_size, reason):
    with pytest.raises(NoMapError, match=reason):
        grad_cam(network(), torch.randn(1, 3, image_size, image_size), torch.tensor([0]))
