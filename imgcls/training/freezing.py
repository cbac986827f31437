"""Freezing: a backbone that stands still in the first epochs, while the head is trained."""

from torch import nn

from imgcls.models.parts import NetworkParts


def set_frozen(model: nn.Module, parts: NetworkParts, is_frozen: bool) -> None:
    """Freezes the backbone of a model that is in training mode, or thaws it.

    Nothing of a frozen backbone moves: its parameters have no gradients, and norms that keep running statistics use
    them as they are. Its dropout stays on. The optimizer passes over parameters without gradients, so theirs has no
    state, or momentum of 0, when they thaw.

    Args:
        model: in training mode, which thaws the norms.
        parts: of the model.
        is_frozen: whether the backbone is frozen.
    """
    for name, parameter in model.named_parameters():
        if name in parts.distances:
            parameter.requires_grad_(not is_frozen)
    if is_frozen:
        for module in model.modules():
            if STATISTICS & dict(module.named_buffers(recurse=False)).keys():
                module.training = False  # not eval(), which would reach dropout below it


STATISTICS = {"running_mean", "running_var"}
"""Names of the buffers in which norms keep statistics of what they saw; frozen, they stay as they are."""
