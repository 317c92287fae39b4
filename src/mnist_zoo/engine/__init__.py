"""How training is run, for any network and data: checkpoints, run folders, progress."""
