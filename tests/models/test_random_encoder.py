from __future__ import annotations

import pytest
import torch
from torch import nn

from imgcls.config.keys import Experiment, ModelConfig
from imgcls.errors import InputError
from imgcls.models.random_encoder_layers import RandomEncoder, RandomEncoderResNet
from imgcls.models.registry import resolve_model


def reference(patch: int, seed: int) -> nn.Conv2d:
    """The convolution as torch itself starts it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Conv2d(3, 3 * patch * patch, kernel_size=patch, stride=patch, bias=False)


@pytest.mark.parametrize("patch", [1, 2, 3, 4, 6, 12])
def test_codes_are_those_of_a_convolution_read_in_memory_order(patch: int) -> None:
    images = torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    encoder = RandomEncoder(patch, seed=5).eval()
    with torch.no_grad():
        expected = reference(patch, seed=5)(images).reshape(3, 3, 12, 12) / (1 + encoder.bn.eps) ** 0.5
        torch.testing.assert_close(encoder(images), expected)


def test_weights_are_bit_for_bit_those_that_conv2d_draws() -> None:
    weight = RandomEncoder(4, seed=7).weight
    assert torch.equal(weight, reference(4, seed=7).weight.reshape(48, 48))
    assert weight.abs().max() <= 48**-0.5
    assert weight.std().item() == pytest.approx((1 / 48 / 3) ** 0.5, rel=0.05)


def test_the_seed_alone_decides_and_the_global_generator_stays() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = RandomEncoder(2, seed=3).weight
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first, RandomEncoder(2, seed=3).weight)
    assert not torch.equal(first, RandomEncoder(2, seed=4).weight)


def test_state_dict_has_the_running_statistics_and_not_the_projection() -> None:
    model = RandomEncoderResNet(num_classes=2, width=4, patch=4, seed=0)
    encoder = {name for name in model.state_dict() if name.startswith("encoder.")}
    assert encoder == {
        f"encoder.bn.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    assert "encoder.weight" in dict(model.named_buffers())  # so that it moves with the model to a device


def test_a_checkpoint_and_the_seed_give_the_model_back() -> None:
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    trained = RandomEncoderResNet(num_classes=2, width=4, patch=4, seed=9)
    trained(images)
    again = RandomEncoderResNet(num_classes=2, width=4, patch=4, seed=9)
    again.load_state_dict(trained.state_dict())
    assert torch.equal(trained.eval()(images), again.eval()(images))


def test_nothing_in_front_is_trained_but_statistics_move_in_training_mode() -> None:
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    encoder = RandomEncoder(4, seed=0)
    assert not encoder(images).requires_grad
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    moved = encoder.bn.running_var.clone()
    assert not torch.equal(moved, torch.ones(3))
    encoder.eval()
    encoder(images)
    assert torch.equal(encoder.bn.running_var, moved)


def test_dropout_of_a_tenth_draws_from_the_global_generator() -> None:
    encoder = RandomEncoder(4, seed=0)
    encoder.bn = nn.Identity()  # type: ignore[assignment]
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(5)
    first = encoder(images)
    assert first.eq(0).float().mean().item() == pytest.approx(0.1, abs=0.01)
    torch.manual_seed(5)
    assert torch.equal(first, encoder(images))
    assert not torch.equal(first, encoder(images))


def test_the_resnet_behind_it_trains() -> None:
    model = RandomEncoderResNet(num_classes=3, width=4, patch=2, seed=0)
    logits = model(torch.randn(2, 3, 16, 16))
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, _ in model.named_parameters() if name.startswith("resnet.")}


@pytest.mark.parametrize("patch", [5, 64])
def test_patches_that_do_not_tile_the_image_are_refused_with_those_that_do(patch: int) -> None:
    with pytest.raises(InputError, match=rf"model\.patch = {patch} .* data\.image_size = 28; .* 1, 2, 4, 7, 14, 28;"):
        resolve_model(ModelConfig(name="random-encoder", patch=patch), channels=3, image_size=28)


def test_a_patch_without_pixels_is_refused() -> None:
    with pytest.raises(InputError, match=r"model\.patch = 0: must be at least 1"):
        Experiment(name="x").replace({"model.patch": 0})
