"""Every random draw is a function of where it stands, not of a stream's history.

A draw is named by (seed, epoch, step, purpose). So a run that stops after any step and goes on from there draws
what it would have drawn anyway, and no generator's state has to be kept.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, *where: int | str) -> int:
    """A seed in [0, 2**63) from a seed and what it is for."""
    text = "/".join(map(str, (seed, *where)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, epoch: int, step: int, purpose: str) -> torch.Generator:
    """A CPU generator for one purpose at one step; draws move to the device afterwards, so devices agree."""
    return torch.Generator().manual_seed(derive_seed(seed, epoch, step, purpose))
