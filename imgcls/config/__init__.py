"""What an experiment is: typed, validated, strict about unknown keys."""
