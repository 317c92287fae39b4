"""The training loop for any network and data: checkpoints, run folders, progress."""
