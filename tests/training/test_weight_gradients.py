"""Weight gradients by one matrix product: torch's own, in float64, is the oracle."""

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from imgcls.config.train_keys import TrainConfig
from imgcls.training import weight_gradients
from imgcls.training.device import prepare_device
from imgcls.training.weight_gradients import Conv2d, speed_up, weight_gradient


@pytest.fixture
def products(monkeypatch):
    """Shapes of the weights whose gradients were products."""
    shapes = []

    def noting(images, grad, shape, stride, padding):
        shapes.append(tuple(shape))
        return weight_gradient(images, grad, shape, stride, padding)

    monkeypatch.setattr(weight_gradients, "weight_gradient", noting)
    return shapes


@pytest.fixture(autouse=True)
def avx2(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (5, 3), (8, 8)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(1, 1, 0), (3, 1, 1), (3, 2, 1), (1, 2, 0), (5, (2, 1), (2, 3)), ((3, 1), 1, (1, 0))],
)
def test_the_product_is_torchs_gradient(size, layout, kernel, stride, padding):
    torch.manual_seed(7)
    layer = nn.Conv2d(6, 4, kernel, stride, padding, dtype=torch.float64)
    images = torch.randn(3, 6, *size, dtype=torch.float64).contiguous(memory_format=layout)
    output = layer(images)
    grad = torch.randn_like(output).contiguous(memory_format=layout)
    (expected,) = torch.autograd.grad(output, layer.weight, grad)
    product = weight_gradient(images, grad, layer.weight.shape, layer.stride, layer.padding)
    assert torch.allclose(product, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("needs", ["all", "no gradient of the images", "no gradient of the weights"])
def test_a_layer_gives_the_output_and_the_gradients_of_torchs(products, bias, needs):
    torch.manual_seed(8)
    ours = nn.Conv2d(64, 96, 3, padding=1, bias=bias).to(memory_format=torch.channels_last)
    plain = copy.deepcopy(ours).double()
    speed_up(ours)
    assert isinstance(ours, Conv2d) and ours.state_dict().keys() == plain.state_dict().keys()
    images = torch.randn(5, 64, 2, 2)
    results = []
    for layer, dtype in ((ours, torch.float32), (plain, torch.float64)):
        given = images.detach().clone().to(dtype).requires_grad_(needs != "no gradient of the images")
        layer.weight.requires_grad_(needs != "no gradient of the weights")
        output = layer(given)
        output.square().sum().backward()
        grads = [given.grad, layer.weight.grad, layer.bias.grad if bias else None]
        results.append([output, *grads])
    assert products == ([] if needs == "no gradient of the weights" else [(96, 64, 3, 3)])
    for mine, expected in zip(*results, strict=True):
        assert (mine is None) == (expected is None)
        if mine is not None:
            assert torch.allclose(mine.double(), expected, rtol=1e-5, atol=1e-5 * float(expected.detach().abs().max()))


@pytest.mark.parametrize(
    ("channels", "side", "fast"),
    [(64, 2, True), (63, 2, False), (128, 4, True), (127, 4, False), (256, 8, True), (512, 9, False), (32, 1, True)],
)
def test_small_maps_of_many_channels_take_the_product(products, channels, side, fast):
    layer = nn.Conv2d(channels, channels, 3, padding=1)
    speed_up(layer)
    layer(torch.randn(2, channels, side, side)).sum().backward()
    assert len(products) == fast


def test_without_gradients_and_in_other_precisions_the_layer_is_torchs(products):
    layer = nn.Conv2d(64, 64, 3, padding=1)
    speed_up(layer)
    images = torch.randn(2, 64, 2, 2)
    with torch.no_grad():
        assert torch.equal(layer(images), F.conv2d(images, layer.weight, layer.bias, padding=1))
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(images)
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()
    layer.double()(images.double()).sum().backward()
    assert products == []


class Padded(nn.Conv2d):
    """Somebody else's convolution."""


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(64, 64, 3, groups=2),
        nn.Conv2d(64, 64, 3, dilation=2),
        nn.Conv2d(64, 64, 3, padding="same"),
        nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect"),
        Padded(64, 64, 3),
    ],
    ids=["groups", "dilation", "same", "reflect", "subclass"],
)
def test_other_convolutions_are_left_alone(layer):
    before = type(layer)
    speed_up(layer)
    assert type(layer) is before


@pytest.mark.parametrize("capability", ["DEFAULT", "AVX512"])
def test_other_processors_are_left_alone(monkeypatch, capability):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    layer = nn.Conv2d(64, 64, 3)
    speed_up(layer)
    assert type(layer) is nn.Conv2d


def test_a_resnet_on_a_processor_has_the_gradients_of_torchvisions(products):
    """At 64 pixels its last stage has 512 channels on 2 x 2 pixels, and the one before 256 on 4 x 4."""
    torch.manual_seed(9)
    theirs = torchvision.models.resnet18(num_classes=3).double().train()
    ours = copy.deepcopy(theirs).float()
    prepared = prepare_device(TrainConfig(device="cpu")).place(ours)
    images, labels = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 1])
    for net, given in ((theirs, images.double()), (prepared, images)):
        F.cross_entropy(net(given), labels).backward()
    assert len(products) == 10, products  # four of 3 x 3 and one of 1 x 1 in each of the two
    names = dict(prepared.named_parameters())
    for name, expected in theirs.named_parameters():
        error = (names[name].grad.double() - expected.grad).norm() / expected.grad.norm()
        assert error < 1e-4, (name, float(error))
