"""An ensemble's probabilities are the mean of its members' probabilities."""

import torch
from torch import nn

from imgcls.models.ensemble import Ensemble


def test_the_softmax_of_its_logits_is_the_mean_of_the_softmaxes():
    members = [nn.Sequential(nn.Flatten(), nn.Linear(12, 5)) for _ in range(3)]
    images = 100 * torch.randn(7, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    logits = Ensemble(members)(images)
    expected = torch.stack([torch.softmax(member(images).double(), dim=1) for member in members]).mean(dim=0)
    torch.testing.assert_close(torch.softmax(logits, dim=1).double(), expected, rtol=1e-4, atol=1e-6)
    assert torch.isfinite(logits).all()
