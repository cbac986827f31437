"""One tracked run: data, model, loop and record put together."""
