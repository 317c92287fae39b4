"""Training shared by two processes, as Lightning or torchrun starts them."""

import subprocess
import sys

import pytest
import torch

pytestmark = pytest.mark.slow

TWO = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp")
# 360 images are trained on and 40 held out, so that the processes get equal shares.
FIT = ("fit", "--model=Dense", "--data=Digits", "--data.num_train=400", "--trainer.max_epochs=2")


def weights(folder):
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return content["global_step"], content["state_dict"]


def test_two_processes_do_what_one_does_with_minibatches_twice_as_large(zoo, tmp_path):
    runs = tmp_path / "runs" / "Dense"
    together = zoo(*FIT, *TWO, "--data.batch_size=10")
    assert together.returncode == 0, together.stdout + together.stderr
    assert [folder.name for folder in runs.iterdir()] == ["version_0"]
    for said_once in ("Best validation accuracy", "Dense (79,510 parameters)"):
        assert together.stdout.count(said_once) == 1

    zoo(*FIT, "--trainer.accelerator=cpu", "--data.batch_size=20")
    (steps, shared), (same_steps, alone) = (weights(runs / f"version_{n}") for n in (0, 1))
    assert steps == same_steps == 36
    torch.testing.assert_close(shared, alone, rtol=1e-4, atol=1e-5)

    best = f"--ckpt_path={runs}/version_0/checkpoints/best.ckpt"
    one, two = (zoo("test", best, *flags).stdout for flags in (TWO[:1], TWO))
    assert "Dense on 360 test images of Digits" in two
    assert one.splitlines()[:5] == two.splitlines()[:5]
    # Title and accuracy, though the images cannot be shared equally.
    one, two = (
        zoo("test", best, "--data.num_test=21", *flags).stdout.splitlines()[:5]
        for flags in (TWO[:1], TWO)
    )
    assert one == two
    assert "Dense on 21 test images of Digits" in two


def test_torchrun_may_start_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    result = subprocess.run(
        [*launcher, "-m", "mnist_zoo", *FIT, TWO[0]], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert [folder.name for folder in (tmp_path / "runs/Dense").iterdir()] == ["version_0"]
    assert result.stdout.count("Best validation accuracy") == 1
