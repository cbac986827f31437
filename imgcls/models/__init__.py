"""Networks: built by name, on weights that are known."""
