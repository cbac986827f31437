"""Sweeps: an Optuna study around the training loop."""
