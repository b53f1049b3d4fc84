"""Pure functions of tensors, each used by at least two methods."""
