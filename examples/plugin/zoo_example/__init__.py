"""A plugin for mnist-zoo: one small network and its recipe."""
