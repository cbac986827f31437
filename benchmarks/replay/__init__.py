"""Searches that are replayed on recorded trainings: which sampler and which pruner find more in the same time."""
