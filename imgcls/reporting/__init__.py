"""Statistics, pictures and texts about what was measured."""
