"""Batch norm over the parts of a batch: torch's own batch norm is the oracle, of one part that is the whole batch."""

import multiprocessing
import os
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from imgcls.training.parallel import ALONE, joined
from imgcls.training.sync_batch_norm import BatchNormOfWhole
from tests.postgres import free_port

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


@pytest.mark.parametrize("shape", [(1, 5), (1, 5, 1, 1)])
def test_one_value_of_a_channel_is_refused_as_by_torch(shape):
    """As torch does, before the running statistics change."""
    layer, errors = nn.BatchNorm1d(5) if len(shape) == 2 else nn.BatchNorm2d(5), []
    for block in (nullcontext(), BatchNormOfWhole(ALONE)):
        with block, pytest.raises(ValueError, match="more than 1 value per channel") as refused:
            layer(torch.ones(shape))
        errors.append(str(refused.value))
    assert errors[0] == errors[1]
    assert torch.equal(layer.running_var, torch.ones(5)) and torch.equal(layer.running_mean, torch.zeros(5))


@pytest.mark.distributed
def test_one_value_in_one_of_two_processes_is_refused_in_both_and_two_in_one_are_not():
    port, fork = str(free_port()), multiprocessing.get_context("fork")
    errors = fork.Queue()
    processes = [fork.Process(target=_one_value_then_two, args=(rank, port, errors)) for rank in range(2)]
    for process in processes:
        process.start()
    found = [errors.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    expected = "Expected more than 1 value per channel when training, got input size torch.Size([1, 3, 1, 1])"
    assert found == [(expected, [1.5] * 3)] * 2


def _one_value_then_two(rank, port, errors):
    """The second of two processes has one image and then two, the first one none."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    layer, said = nn.BatchNorm2d(3, momentum=1.0), ""
    with joined() as ranks, BatchNormOfWhole(ranks):
        try:
            layer(torch.ones(rank, 3, 1, 1))
        except ValueError as error:
            said = str(error)
        layer(torch.arange(1.0, 2 * rank + 1).view(-1, 1, 1, 1).expand(-1, 3, 1, 1))
    errors.put((said, layer.running_mean.tolist()))


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
