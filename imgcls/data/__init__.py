"""Where images come from, how they are split, decoded, batched and augmented."""
