"""AdamW without what torch's repeats for each parameter in each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class _Group(NamedTuple):
    settings: dict[str, Any]
    params: list[Tensor]
    means: list[Tensor]
    squares: list[Tensor]
    steps: list[Tensor]
    num_steps: Tensor


class AdamW(torch.optim.AdamW):
    """torch's fused AdamW, to the bit: the same kernel on the same numbers, its arguments collected once.

    torch looks up the state of each parameter, sorts all by device and dtype, and counts each one's steps by itself, in
    every step: for the 62 parameters of a ResNet-18 of width 16, 2.0 ms where this takes 1.2, of a step of 35 ms (2
    cores of an AMD EPYC, torch 2.15, 2026-11-23).

    Args:
        groups: of parameters, as torch takes them.
        lr: learning rate; a group's own may be set between steps.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, lr=lr, fused=True)
        self._groups: list[_Group] | None = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's."""
        super().load_state_dict(state_dict)
        self._groups = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """As torch's, which it asks in the first step, and whenever a parameter has no gradient."""
        gradients = [[param.grad for param in group["params"]] for group in self.param_groups]
        if closure is not None or self._groups is None or any(grad is None for of in gradients for grad in of):
            loss: float | None = super().step(closure)
            self._groups = self._collected()
            return loss
        for group, of_group in zip(self._groups, gradients, strict=True):
            beta1, beta2 = group.settings["betas"]
            group.num_steps.add_(1)
            torch._fused_adamw_(
                group.params, of_group, group.means, group.squares, [], group.steps,
                lr=group.settings["lr"], beta1=beta1, beta2=beta2, eps=group.settings["eps"],
                weight_decay=group.settings["weight_decay"], amsgrad=False, maximize=False,
            )  # fmt: skip
        return None

    def _collected(self) -> list[_Group] | None:
        """None where one kernel cannot take them all: a parameter without state, or of another dtype or device."""
        groups = []
        for settings in self.param_groups:
            params = settings["params"]
            states: list[dict[str, Tensor]] = [self.state.get(param) or {} for param in params]
            if not all(states) or len({(param.dtype, param.device) for param in params}) > 1:
                return None
            # Views of one tensor, so that one addition counts for all; torch, which counts each, may still do so.
            num_steps = torch.stack([state["step"] for state in states])
            for state, step in zip(states, num_steps, strict=True):
                state["step"] = step
            means, squares = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
            groups.append(_Group(settings, params, means, squares, list(num_steps), num_steps))
        return groups
