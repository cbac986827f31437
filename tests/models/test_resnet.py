from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from imgcls.config.keys import Experiment
from imgcls.errors import ConfigError
from imgcls.models.resnet import CIFAR_DEPTHS, RESNET_DEPTHS, resnet
from imgcls.models.resnet_layers import BasicBlock, Bottleneck


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def images(batch: int, channels: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, channels, height, width)


def randomise(model: nn.Module) -> None:
    """Makes every tensor count: zeroed gammas and running statistics of 0 and 1 would hide mistakes."""
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point() and tensor.ndim == 1:
            tensor.normal_(0.5, 0.2)


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_takes_torchvisions_state_dict_and_gives_its_logits(depth: int) -> None:
    theirs = torchvision.models.get_model(f"resnet{depth}", weights=None, num_classes=7).eval()
    randomise(theirs)
    ours = resnet(depth, 64, "standard", num_classes=7).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    batch = images(2, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(batch)
        assert expected.std() > 0
        torch.testing.assert_close(ours(batch), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def weighted_layers_on_the_main_path(model: nn.Module) -> int:
    layers = (nn.Conv2d, nn.Linear)
    return sum(isinstance(module, layers) and "downsample" not in name for name, module in model.named_modules())


@pytest.mark.parametrize("depth", [*CIFAR_DEPTHS, *RESNET_DEPTHS])
def test_depth_counts_the_weighted_layers(depth: int) -> None:
    with torch.device("meta"):
        model = resnet(depth, 8, "small", num_classes=10)
    assert weighted_layers_on_the_main_path(model) == depth


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)])
def test_small_networks_have_the_parameters_of_table_6_of_the_paper(depth: int, millions: float) -> None:
    with torch.device("meta"):
        model = resnet(depth, 16, "small", num_classes=10)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert num_parameters / 1e6 == pytest.approx(millions, abs=0.01)


def test_three_stages_double_their_width_and_halve_their_size() -> None:
    model = resnet(20, 16, "small", num_classes=10)
    shapes = []
    for name in ("layer1", "layer2", "layer3"):
        model.get_submodule(name).register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape[1:])))
    model(images(2, 3, 32, 32))
    assert shapes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert not hasattr(model, "layer4")


def test_stems_differ_in_resolution() -> None:
    batch = images(2, 3, 32, 32)
    sizes = {}
    for stem in ("small", "standard"):
        model = resnet(10, 8, stem, num_classes=3)
        model.get_submodule("layer1").register_forward_pre_hook(
            lambda _m, args, stem=stem: sizes.update({stem: tuple(args[0].shape)})
        )
        model(batch)
    assert sizes == {"small": (2, 8, 32, 32), "standard": (2, 8, 8, 8)}


@pytest.mark.parametrize("size", [(4, 4), (17, 17), (33, 20), (224, 64)])
@pytest.mark.parametrize(("depth", "stem"), [(10, "standard"), (50, "small"), (8, "small")])
def test_takes_any_size_and_any_number_of_channels(depth: int, stem: str, size: tuple[int, int]) -> None:
    logits = resnet(depth, 4, stem, num_classes=5, channels=1)(images(2, 1, *size))
    assert logits.shape == (2, 5)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@pytest.mark.parametrize(("block", "in_channels"), [(BasicBlock, 6), (Bottleneck, 24)])
def test_a_new_block_is_its_shortcut(block: type[BasicBlock] | type[Bottleneck], in_channels: int) -> None:
    features = images(2, in_channels, 5, 5)
    torch.testing.assert_close(block(in_channels, 6, 1)(features), features.relu())


def test_the_residual_is_added_before_the_last_relu() -> None:
    block = BasicBlock(4, 4, 1)
    nn.init.ones_(block.bn2.weight)
    features = images(2, 4, 6, 6)
    residual = block.bn2(block.conv2(block.bn1(block.conv1(features)).relu()))
    torch.testing.assert_close(block(features), (features + residual).relu())
    assert (residual < 0).any()


def test_gradient_reaches_the_stem_through_the_shortcuts_alone() -> None:
    model = resnet(56, 4, "small", num_classes=3)
    model(images(2, 3, 8, 8)).logsumexp(dim=1).sum().backward()
    # With gammas of zero nothing passes through a residual, so all that arrives has come past 27 of them.
    stem, last = model.get_parameter("conv1.weight").grad, model.get_parameter("layer3.8.conv1.weight").grad
    assert stem is not None
    assert stem.abs().sum() > 0
    assert last is not None
    assert last.abs().sum() == 0
    gamma = model.get_parameter("layer3.8.bn2.weight").grad
    assert gamma is not None
    assert gamma.abs().sum() > 0


def test_convolutions_start_as_he_et_al_with_fan_out() -> None:
    weight = resnet(18, 64, "standard", num_classes=2).get_parameter("layer4.1.conv1.weight")
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert weight.mean().abs() < 1e-4


def test_dropout_acts_in_training_only_and_leaves_the_state_dict_alone() -> None:
    plain, dropping = resnet(10, 4, "small", 3), resnet(10, 4, "small", 3, dropout=0.5)
    assert list(plain.state_dict()) == list(dropping.state_dict())
    batch = images(4, 3, 8, 8)
    dropping.eval()
    assert torch.equal(dropping(batch), dropping(batch))
    dropping.get_submodule("dropout").train()
    assert not torch.equal(dropping(batch), dropping(batch))


@pytest.mark.parametrize("depth", CIFAR_DEPTHS)
def test_three_stage_depths_need_the_small_stem(depth: int) -> None:
    with pytest.raises(ConfigError, match=r"model\.stem = 'small', or one of the depths 10, 18, 34, 50, 101"):
        resnet(depth, 16, "standard", 2)


@pytest.mark.parametrize("stem", ["small", "standard"])
@pytest.mark.parametrize("depth", [0, 9, 26, 152])
def test_unknown_depths_are_refused_with_those_that_work(depth: int, stem: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.depth = {depth}: .* 10, 18, 34, 50, 101; .* 8, 14, 20, 32, 44, 56"):
        resnet(depth, 16, stem, 2)


def test_the_nearest_depth_is_suggested() -> None:
    with pytest.raises(ConfigError, match="did you mean 101"):
        resnet(110, 16, "small", 2)


def test_unknown_stem_is_refused() -> None:
    with pytest.raises(ConfigError, match='"standard" or "small"; did you mean \'small\''):
        Experiment(name="x").replace({"model.stem": "smal"})
