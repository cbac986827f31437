"""Random draws as functions of where they stand, not of the history of a stream.

A draw is named by (seed, epoch, step, purpose). So a run that stops after any step and goes on from there draws
the same, and no generator's state has to be kept.
"""

import hashlib

import torch


def derive_seed(seed: int, *where: int | str) -> int:
    """A random seed in [0, 2**63), derived from a seed and what it is for."""
    text = "/".join(map(str, (seed, *where)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, epoch: int, step: int, purpose: str) -> torch.Generator:
    """Random generator for one purpose at one step; it is on the CPU, so that all devices get the same draws."""
    return torch.Generator().manual_seed(derive_seed(seed, epoch, step, purpose))
