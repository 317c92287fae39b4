"""The first steps of published runs on the real MNIST."""

import re

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = [pytest.mark.slow, pytest.mark.mnist]
PLAIN = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")


@pytest.fixture
def fit(cli, mnist_root):
    def by_recipe(name, *arguments):
        return cli("fit", f"--model={name}", f"--data.root={mnist_root}", *PLAIN, *arguments)

    return by_recipe


def curve(run, tag):
    return [event.value for event in EventAccumulator(str(run)).Reload().Scalars(tag)]


def accuracy(result):
    return float(re.search(r"│ accuracy +│ +([\d.]+)%", result.out)[1]) / 100


def test_an_epoch_of_convnet_relu(fit, tmp_path):
    fit("ConvNetReLU", "--trainer.max_epochs=1")
    (reached,) = curve(tmp_path / "runs/ConvNetReLU/version_0", "val/acc")
    print("ConvNetReLU", reached)
    assert reached >= 0.97


def test_an_epoch_of_mlp_log_softmax_has_the_published_training_loss(cli, fit, tmp_path):
    fit("MLPLogSoftmax", "--trainer.max_epochs=1", "--data.val_size=0")
    run = tmp_path / "runs/MLPLogSoftmax/version_0"
    (loss,) = curve(run, "train/loss")
    tested = accuracy(cli("test", "--ckpt_path", run / "checkpoints/last.ckpt", *PLAIN))
    print("MLPLogSoftmax", loss, tested)
    assert 1.15 <= loss <= 1.45, "published: 1.305"
    assert tested >= 0.85


def test_convnet_three_dense_reads_its_hundred_test_images(cli, fit, tmp_path):
    fit("ConvNetThreeDense", "--data.val_size=0")
    run = tmp_path / "runs/ConvNetThreeDense/version_0"
    losses = curve(run, "train/loss")
    tested = cli("test", "--ckpt_path", run / "checkpoints/last.ckpt", *PLAIN)
    print("ConvNetThreeDense", losses[0] * 100, losses[-1] * 100, accuracy(tested))
    assert "ConvNetThreeDense on 100 test images of MNIST" in tested.out
    assert losses[0] * 100 == pytest.approx(230.08, rel=0.01), "published, summed over 100 batches"
    assert losses[-1] * 100 <= 40, "published: 21.43"
    assert accuracy(tested) >= 0.93, "published: 96 of 100"
