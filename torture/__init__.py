"""Kills sweeps at random instants and looks whether anything was lost: `python -m torture`.

A program beside the package, as the benchmarks are: it knows imgcls by its command line and by what it leaves in
MLflow and Optuna, which it reads with their own clients.
"""
