import math

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from imgcls.training.schedule import lr_at


def curve(peak, warmup_steps, total_steps):
    return [lr_at(step, peak=peak, warmup_steps=warmup_steps, total_steps=total_steps) for step in range(total_steps)]


@pytest.mark.parametrize(
    ("peak", "warmup_steps", "total_steps", "expected"),
    [
        (1.0, 0, 1, [1.0]),
        (1.0, 0, 2, [1.0, 0.5]),
        (1.0, 0, 4, [1.0, 0.5 + math.sqrt(2) / 4, 0.5, 0.5 - math.sqrt(2) / 4]),
        (8.0, 4, 6, [2.0, 4.0, 6.0, 8.0, 8.0, 4.0]),
        (3.0, 1, 4, [3.0, 3.0, 2.25, 0.75]),
        (0.3, 3, 4, [0.1, 0.2, 0.3, 0.3]),
    ],
)
def test_hand_computed_rates(peak, warmup_steps, total_steps, expected):
    assert curve(peak, warmup_steps, total_steps) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(("warmup_steps", "total_steps"), [(0, 7), (1, 9), (2, 10), (5, 6), (30, 300)])
def test_torch_draws_the_same_curve(warmup_steps, total_steps):
    """LinearLR from 1/w up in w - 1 steps, the peak once more, then CosineAnnealingLR down to 0 at the end."""
    peak = 0.1
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    cosine = CosineAnnealingLR(optimizer, T_max=total_steps - warmup_steps)
    scheduler = cosine
    if warmup_steps:
        warmup = LinearLR(optimizer, start_factor=1 / warmup_steps, total_iters=warmup_steps - 1)
        scheduler = SequentialLR(optimizer, [warmup, cosine], milestones=[warmup_steps])
    expected = []
    for _ in range(total_steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert curve(peak, warmup_steps, total_steps) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("warmup_steps", "total_steps"), [(0, 50), (1, 50), (17, 50), (49, 50)])
def test_it_rises_to_the_peak_by_the_last_warmup_step_then_falls_and_never_reaches_zero(warmup_steps, total_steps):
    rates = curve(1.0, warmup_steps, total_steps)
    up, down = rates[:warmup_steps], rates[warmup_steps:]
    assert up == sorted(set(up))
    assert down == sorted(set(down), reverse=True)
    assert max(rates) == down[0] == 1.0
    assert up[-1:] in ([], [1.0])
    assert min(rates) > 0


@pytest.mark.parametrize(
    ("step", "warmup_steps", "total_steps"), [(-1, 0, 4), (4, 0, 4), (0, 4, 4), (0, 9, 4), (0, -1, 4)]
)
def test_a_step_outside_the_run_or_an_endless_warmup_is_never_clamped(step, warmup_steps, total_steps):
    with pytest.raises(ValueError, match="have to lie in"):
        lr_at(step, peak=1.0, warmup_steps=warmup_steps, total_steps=total_steps)
