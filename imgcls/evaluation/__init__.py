"""Judging runs on held-out images."""
