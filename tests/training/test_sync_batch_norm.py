"""Batch norm over the parts of a batch: torch's own batch norm is the oracle, of one part that is the whole batch."""

import pytest
import torch
from torch import nn

from imgcls.training.parallel import ALONE
from imgcls.training.sync_batch_norm import BatchNormOfWhole

LAYERS = {
    "plain": (lambda: nn.BatchNorm2d(5), (6, 5, 4, 3)),
    "of features": (lambda: nn.BatchNorm1d(5, momentum=0.3), (7, 5)),
    "without weights": (lambda: nn.BatchNorm2d(5, affine=False, eps=1e-2), (2, 5, 4, 4)),
    "without statistics": (lambda: nn.BatchNorm2d(5, track_running_stats=False), (6, 5, 4, 3)),
    "mean of all batches": (lambda: nn.BatchNorm2d(5, momentum=None), (6, 5, 4, 3)),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)
def test_it_is_torchs_batch_norm(make, shape, dtype):
    """Outputs, gradients and running statistics, of values far from 0; with bfloat16, parameters stay float32."""
    draws = torch.Generator().manual_seed(0)
    layers = [make().to(torch.float64 if dtype == torch.float64 else torch.float32) for _ in range(2)]
    for _ in range(2):
        values = (torch.randn(shape, generator=draws) * 3 + 20).to(dtype)
        slopes = torch.randn(shape, generator=draws).to(dtype)
        inputs = [values.clone().requires_grad_() for _ in layers]
        expected = layers[0](inputs[0])
        with BatchNormOfWhole(ALONE):
            found = layers[1](inputs[1])
        for outputs in (expected, found):
            (outputs * slopes).sum().backward()
        close = {"rtol": 2e-2, "atol": 5e-2} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, **close)
        torch.testing.assert_close(inputs[1].grad, inputs[0].grad, **close)
        for name, parameter in layers[0].named_parameters():
            torch.testing.assert_close(layers[1].get_parameter(name).grad, parameter.grad, rtol=2e-2, atol=1e-3)
        for name, buffer in layers[0].named_buffers():
            torch.testing.assert_close(layers[1].get_buffer(name), buffer, rtol=1e-5, atol=1e-5)


def test_evaluation_uses_the_running_statistics():
    layer, values = nn.BatchNorm2d(3).eval(), torch.randn(2, 3, 4, 4)
    with BatchNormOfWhole(ALONE):
        found = layer(values)
    assert torch.equal(found, layer(values))


def test_a_slope_is_that_of_finite_differences():
    layer = nn.BatchNorm2d(3).double()
    values = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)

    def outputs(images):
        with BatchNormOfWhole(ALONE):
            return layer(images)

    assert torch.autograd.gradcheck(outputs, (values,))
