"""A finished run in use: predict, export, register, serve, each proved against the run's own predictions."""
