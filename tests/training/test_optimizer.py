"""AdamW's formula in float64 is the oracle; torch's own, without a flag, that of the steps that are left out."""

import copy
import math

import pytest
import torch
from torch import nn

from imgcls.config.train_keys import TrainConfig
from imgcls.training.optimizer import make_optimizer

CONFIG = TrainConfig(lr=1e-2, weight_decay=0.1)


def net():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 2)).to(
        memory_format=torch.channels_last
    )


def step(model, optimizer, number, factor=1.0):
    for group in optimizer.param_groups:
        group["lr"] = 1e-2 / (1 + number)
    optimizer.zero_grad(set_to_none=True)
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(number))
    (model(images.to(next(model.parameters()).device)).square().mean() * factor).backward()
    optimizer.step()


def assert_same(one, two):
    """Two pairs of model and optimizer have the same bits."""
    for mine, other in zip(one[0].parameters(), two[0].parameters(), strict=True):
        assert torch.equal(mine, other)
        assert one[1].state[mine].keys() == two[1].state[other].keys()
        for name, value in one[1].state[mine].items():
            assert torch.equal(value, two[1].state[other][name]), name


def test_steps_follow_the_formula_and_norms_and_biases_do_not_decay():
    """Algorithm 2 of Loshchilov and Hutter (arXiv 1711.05101), written out."""
    model = net()
    optimizer = make_optimizer(model, CONFIG, None)
    weights = [p.detach().double() for p in model.parameters()]
    means, squares = ([torch.zeros_like(w) for w in weights] for _ in range(2))
    for number in range(1, 6):
        step(model, optimizer, number)
        lr = 1e-2 / (1 + number)
        for i, p in enumerate(model.parameters()):
            grad = p.grad.double()
            means[i] = 0.9 * means[i] + 0.1 * grad
            squares[i] = 0.999 * squares[i] + 0.001 * grad**2
            decayed = weights[i] * (1 - lr * 0.1) if p.ndim >= 2 else weights[i]
            change = means[i] / (1 - 0.9**number) / ((squares[i] / (1 - 0.999**number)).sqrt() + 1e-8)
            weights[i] = decayed - lr * change
            torch.testing.assert_close(p.detach(), weights[i].float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("left_out", [(), (0,), (2,), (0, 3)])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[
    pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device to run the kernel on")
])])  # fmt: skip
def test_a_lost_step_changes_no_parameter_and_no_state(left_out, device):
    lost = torch.zeros((), device=device)
    flagged, plain = net().to(device), net().to(device)
    one, two = make_optimizer(flagged, CONFIG, lost), make_optimizer(plain, CONFIG, None)
    for number in range(5):
        lost.fill_(number in left_out)
        step(flagged, one, number, math.nan if number in left_out else 1.0)
        if number not in left_out:
            step(plain, two, number)
    assert all(p.isfinite().all() for p in flagged.parameters())
    assert_same((flagged, one), (plain, two))


def test_a_state_whose_counts_are_views_of_one_tensor_goes_on():
    """So earlier versions kept them, in memory and in their checkpoints."""
    model, ours = net(), net()
    one, two = make_optimizer(model, CONFIG, None), make_optimizer(ours, CONFIG, None)
    for number in range(3):
        step(model, one, number)
        step(ours, two, number)
    state = copy.deepcopy(two.state_dict())
    counts = torch.stack([of_one["step"] for of_one in state["state"].values()])
    for of_one, count in zip(state["state"].values(), counts, strict=True):
        of_one["step"] = count
    resumed = make_optimizer(ours, CONFIG, None)
    resumed.load_state_dict(state)
    for number in range(3, 6):
        step(model, one, number)
        step(ours, resumed, number)
    assert_same((model, one), (ours, resumed))
    assert {float(of_one["step"]) for of_one in resumed.state.values()} == {6.0}
