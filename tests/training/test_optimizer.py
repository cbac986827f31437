"""torch's own AdamW, given the same gradients, is the oracle: to the bit."""

import copy

import pytest
import torch
from torch import nn

from imgcls.training.optimizer import AdamW


def net():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 2)).to(
        memory_format=torch.channels_last
    )


def groups(model):
    params = list(model.parameters())
    return [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]


@pytest.fixture
def pair():
    """A net with our AdamW, and its copy with torch's."""
    ours, theirs = net(), net()
    return (ours, AdamW(groups(ours), lr=1e-2)), (theirs, torch.optim.AdamW(groups(theirs), lr=1e-2, fused=True))


def step(model, optimizer, number, *, without=None):
    for group in optimizer.param_groups:
        group["lr"] = 1e-2 / (1 + number)
    optimizer.zero_grad(set_to_none=True)
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(number))
    model(images).square().mean().backward()
    if without is not None:
        list(model.parameters())[without].grad = None
    optimizer.step()


def same(pair):
    (ours, mine), (theirs, other) = pair
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, two)
        assert mine.state[one].keys() == other.state[two].keys()
        for name, value in mine.state[one].items():
            assert torch.equal(value, other.state[two][name]), name


def counting(optimizer, monkeypatch):
    """How often torch's own step is asked."""
    asked = []
    step = torch.optim.AdamW.step

    def noting(self, closure=None):
        asked.append(self)
        return step(self, closure)

    monkeypatch.setattr(torch.optim.AdamW, "step", noting)
    return lambda: sum(one is optimizer for one in asked)


def test_steps_are_torchs_and_torch_is_asked_once(pair, monkeypatch):
    asked = counting(pair[0][1], monkeypatch)
    for number in range(5):
        for model, optimizer in pair:
            step(model, optimizer, number)
    same(pair)
    assert asked() == 1


def test_a_parameter_without_a_gradient_stays_as_it_is(pair):
    """torch does the steps that it misses, and from then on it has a count of its own."""
    for number in range(6):
        for model, optimizer in pair:
            step(model, optimizer, number, without=0 if number in (0, 3) else None)
    same(pair)
    assert pair[0][1].state[next(pair[0][0].parameters())]["step"] == 4


@pytest.mark.parametrize("through_a_file", [False, True])
def test_a_state_goes_on_from_where_it_was_saved_in_either(pair, tmp_path, through_a_file):
    for number in range(3):
        for model, optimizer in pair:
            step(model, optimizer, number)
    for source, target in (pair, pair[::-1]):  # ours goes on with torch's state, and torch with ours
        model, state = source[0], source[1].state_dict()
        if through_a_file:
            torch.save(state, tmp_path / "state.pt")
            state = torch.load(tmp_path / "state.pt", weights_only=True)
        other = copy.deepcopy(model)
        kind = type(target[1])
        restored = (
            kind(groups(other), lr=1e-2) if kind is AdamW else torch.optim.AdamW(groups(other), lr=1e-2, fused=True)
        )
        restored.load_state_dict(copy.deepcopy(state))
        for number in range(3, 6):
            step(model, source[1], number)
            step(other, restored, number)
        same(((model, source[1]), (other, restored)))


def test_parameters_of_two_dtypes_are_torchs_to_step():
    first, second = (nn.Parameter(torch.ones(3, dtype=dtype)) for dtype in (torch.float32, torch.float64))
    expected = [torch.nn.Parameter(p.detach().clone()) for p in (first, second)]
    ours = AdamW([{"params": [first, second]}], lr=0.1)
    theirs = torch.optim.AdamW(expected, lr=0.1, fused=True)
    for _ in range(3):
        for params, optimizer in (((first, second), ours), (expected, theirs)):
            for param in params:
                param.grad = torch.full_like(param, 0.5)
            optimizer.step()
    assert torch.equal(first, expected[0]) and torch.equal(second, expected[1])
