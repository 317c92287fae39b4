"""Tables and figures, made from tensors and numbers, independent of networks and data."""
