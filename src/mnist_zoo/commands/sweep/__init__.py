"""``mnist-zoo sweep``: many runs, each in its own process, and their records."""
