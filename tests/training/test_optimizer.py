"""AdamW's formula in float64 is the oracle, and torch's SGD, not fused, that of SGD.

That of the steps that are left out is torch's own optimizer, without a flag.
"""

import copy
import math

import pytest
import torch
from torch import nn

from imgcls.config.train_keys import TrainConfig
from imgcls.models.parts import NetworkParts
from imgcls.training.optimizer import make_optimizer, set_lr

CONFIG = TrainConfig(lr=1e-2, weight_decay=0.1)
SGD = TrainConfig(optimizer="sgd", lr=1e-2, weight_decay=0.1)
KINDS = {"adamw": CONFIG, "sgd": SGD, "plain": SGD.model_copy(update={"momentum": 0.0})}


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


@pytest.mark.parametrize("momentum", [0.9, 0.5, 0.0])
def test_sgd_is_that_of_torch_with_coupled_decay_of_matrices_alone(momentum):
    config = SGD.model_copy(update={"momentum": momentum})
    model, theirs = net(), net()
    optimizer = make_optimizer(model, config, None)
    matrices, others = ([p for p in theirs.parameters() if (p.ndim >= 2) is is_matrix] for is_matrix in (True, False))
    reference = torch.optim.SGD(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others}],
        1e-2, momentum=momentum, nesterov=momentum > 0, foreach=False, fused=False,
    )  # fmt: skip
    for number in range(5):
        step(model, optimizer, number)
        step(theirs, reference, number)
    for mine, other in zip(model.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7)
        if momentum:
            buffers = optimizer.state[mine]["momentum_buffer"], reference.state[other]["momentum_buffer"]
            torch.testing.assert_close(*buffers, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
def test_parameters_that_thaw_go_on_as_those_of_a_new_optimizer(config):
    """Those of a convolution have no gradients at first; then they are what they would be in an optimizer of now."""
    model = net()
    optimizer = make_optimizer(model, config, None)
    model[0].requires_grad_(False)
    frozen = [p.clone() for p in model[0].parameters()]
    for number in range(3):
        step(model, optimizer, number)
    assert all(torch.equal(p, before) for p, before in zip(model[0].parameters(), frozen, strict=True))
    saved = copy.deepcopy(optimizer.state_dict())
    alone = copy.deepcopy(model)
    model[0].requires_grad_(True)
    alone[0].requires_grad_(True)
    for p in alone[1:].parameters():
        p.requires_grad_(False)
    others = make_optimizer(alone, config, None)  # over what thaws
    step(model, optimizer, 3)
    step(alone, others, 3)
    for mine, other in zip(model[0].parameters(), alone[0].parameters(), strict=True):
        assert torch.equal(mine, other)
    resumed = make_optimizer(net(), config, None)
    resumed.load_state_dict(saved)


def parts_of(model):
    heads, blocks = ["4"], [["0.weight", "0.bias"], ["1.weight", "1.bias"], []]
    return NetworkParts.of_blocks(model, heads, blocks)


def test_each_block_has_its_share_of_the_learning_rate():
    model = net()
    config = CONFIG.model_copy(update={"backbone_lr_scale": 0.5, "layer_decay": 0.1})
    optimizer = make_optimizer(model, config, None, parts_of(model))
    set_lr(optimizer, 2.0)
    names = {id(p): name for name, p in model.named_parameters()}
    found = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    expected = {
        "0.weight": (2 * 0.5 * 0.1**2, 0.1), "0.bias": (2 * 0.5 * 0.1**2, 0.0), "1.weight": (2 * 0.5 * 0.1, 0.0),
        "1.bias": (2 * 0.5 * 0.1, 0.0), "4.weight": (2.0, 0.1), "4.bias": (2.0, 0.0),
    }  # fmt: skip
    assert found == {name: pytest.approx(value) for name, value in expected.items()}


def test_equal_rates_make_the_two_groups_of_earlier_versions():
    """Whose checkpoints have no shares of the learning rate in them."""
    model, ours = net(), net()
    one, two = make_optimizer(model, CONFIG, None), make_optimizer(ours, CONFIG, None, parts_of(ours))
    saved = one.state_dict()
    for group in saved["param_groups"]:
        del group["lr_scale"]
    two.load_state_dict(saved)
    for optimizer in (one, two):
        set_lr(optimizer, 0.25)
        assert [(len(g["params"]), g["lr"]) for g in optimizer.param_groups] == [(2, 0.25), (4, 0.25)]


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("left_out", [(), (0,), (2,), (0, 3)])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[
    pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device to run the kernel on")
])])  # fmt: skip
def test_a_lost_step_changes_no_parameter_and_no_state(left_out, device, config):
    lost = torch.zeros((), device=device)
    flagged, plain = net().to(device), net().to(device)
    one, two = make_optimizer(flagged, config, lost), make_optimizer(plain, config, None)
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
