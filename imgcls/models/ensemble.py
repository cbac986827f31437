"""An ensemble: several networks that answer together, by the mean of their probabilities."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """An ensemble of networks of one kind: images (B, C, S, S) -> logits (B, K), whose softmax is their mean softmax.

    The logits are the logarithms of the mean probabilities, so whatever takes a network's logits takes these too.

    Args:
        members: networks, images -> logits (B, K); the first is that of fold 1.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Logarithms of the mean probabilities, float32 (B, K)."""
        return log_mean_probs(member(images) for member in self.members)


def log_mean_probs(answers: Iterable[Tensor]) -> Tensor:
    """The answer of an ensemble: the logarithms of the mean of the softmaxes of its members' logits.

    Args:
        answers: logits (B, K), of each member.

    Returns:
        float32 (B, K).
    """
    each = torch.stack([torch.log_softmax(logits.float(), dim=1) for logits in answers])
    return torch.logsumexp(each, dim=0) - math.log(len(each))
