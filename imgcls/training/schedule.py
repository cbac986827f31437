"""The schedule of the learning rate: linear warm-up, then cosine."""

import math


def lr_at(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Learning rate of the schedule at a step, counted from 0.

    It rises in a line to `peak`, which the last warm-up step has. Then it follows half a cosine (Loshchilov and Hutter
    2017, arXiv 1608.03983) that would reach 0 at `total_steps`, one step after the last.

    Args:
        step: in [0, total_steps).
        peak: highest learning rate.
        warmup_steps: in [0, total_steps).
        total_steps: steps really taken in the whole run.

    Raises:
        ValueError: a step outside these bounds.
    """
    if not (0 <= step < total_steps and 0 <= warmup_steps < total_steps):
        raise ValueError(f"step {step} and {warmup_steps} warm-up steps have to lie in [0, {total_steps})")
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
