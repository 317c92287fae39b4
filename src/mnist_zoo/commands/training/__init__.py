"""The commands that LightningCLI runs: ``fit``, ``validate``, ``test`` and ``predict``."""
