"""A run that is killed, for real, and goes on."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

FIT = (
    "fit", "--model=ConvNetDropout", "--model.lr=0.05", "--data=Digits", "--data.num_train=600",
    "--data.rotation=10", "--data.shift=1", "--data.elastic=0.5",
    "--trainer.accelerator=cpu", "--trainer.max_epochs=3",
    "--last.every_n_train_steps=70",
    "--trainer.enable_progress_bar=false",
)  # fmt: skip
LAST = "ConvNetDropout/version_0/checkpoints/last.ckpt"


def weights(folder):
    return torch.load(folder / LAST, weights_only=True)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_one_that_never_stopped(zoo, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert zoo(*FIT, f"--trainer.default_root_dir={whole}").returncode == 0

    process = subprocess.Popen(
        [sys.executable, "-m", "mnist_zoo", *FIT, f"--trainer.default_root_dir={killed}"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 300
        while not (killed / LAST).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    stopped_at = weights(killed)["global_step"]
    assert 0 < stopped_at < weights(whole)["global_step"], "killed in the middle"

    resumed = zoo("fit", f"--ckpt_path={killed / LAST}", "--trainer.enable_progress_bar=false")
    assert resumed.returncode == 0, resumed.stderr
    one, other = weights(whole), weights(killed)
    assert one["global_step"] == other["global_step"]
    torch.testing.assert_close(one["state_dict"], other["state_dict"], rtol=0, atol=0)
    assert not list(killed.rglob("*.unfinished"))
