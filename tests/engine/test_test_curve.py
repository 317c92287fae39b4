"""The curve of test accuracy: it goes to the loggers, and nowhere else."""

import pytest
import torch
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger

from mnist_zoo.data import Digits
from mnist_zoo.engine.blocks import Blocks
from mnist_zoo.engine.test_curve import TestCurve
from mnist_zoo.models import MLPDropout
from mnist_zoo.report.events import by_epoch, read_scalars


class Watch(Callback):
    """Notes every name that the trainer's metrics ever held."""

    def __init__(self):
        self.names = set()

    def _look(self, trainer, *_):
        self.names |= set(trainer.callback_metrics) | set(trainer.logged_metrics)
        self.names |= set(trainer.progress_bar_metrics)

    on_train_batch_end = on_train_epoch_end = on_validation_end = on_fit_end = _look


class Noisy(MLPDropout):
    """Draws random numbers in evaluation, too."""

    def forward(self, images):
        return super().forward(images + 0.1 * torch.rand_like(images))


class Drawing(Digits):
    """Draws random numbers when it is loaded."""

    def load(self, train):
        torch.rand(1)
        return super().load(train)


class Darker(MLPDropout):
    """Changes images once they are on the device."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        images, targets = batch
        return images / 2, targets


def fit(folder, *callbacks, epochs=2, network_class=MLPDropout, data_class=Digits, precision=None):
    """Train a network with dropout; return trainer, network and the random state at the end."""
    seed_everything(0)
    network = network_class(num_hidden=32)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        precision=precision,
        logger=TensorBoardLogger(folder, "", ""),
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(network, data_class(batch_size=64))
    return trainer, network, torch.get_rng_state()


@pytest.mark.parametrize("blocks", [[], [4]])
def test_weights_and_random_numbers_are_those_of_a_run_without_it(tmp_path, blocks):
    def others():
        return [Blocks(num) for num in blocks]

    _, plain, plain_state = fit(tmp_path / "plain", *others())
    trainer, watched, state = fit(tmp_path / "curve", *others(), TestCurve())
    assert torch.equal(plain_state, state)
    assert trainer.max_epochs == 2
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, watched.state_dict()[name]), name
    without, with_it = read_scalars(tmp_path / "plain"), read_scalars(tmp_path / "curve")
    curve = {tag: with_it.pop(tag) for tag in ("test_curve/loss", "test_curve/acc")}
    assert with_it == without
    assert [step for step, _ in curve["test_curve/acc"]] == [s for s, _ in with_it["train/acc"]]


@pytest.mark.parametrize("classes", [{"network_class": Noisy}, {"data_class": Drawing}], ids=str)
def test_random_numbers_that_are_drawn_for_it_are_drawn_again(tmp_path, classes):
    _, plain, plain_state = fit(tmp_path / "plain", **classes)
    _, watched, state = fit(tmp_path / "curve", TestCurve(), **classes)
    assert torch.equal(plain_state, state)
    torch.testing.assert_close(watched.state_dict(), plain.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("precision", [None, "bf16-mixed"])
@pytest.mark.parametrize("batch_size", [100, 1000])
def test_the_last_value_is_what_test_finds(tmp_path, monkeypatch, batch_size, precision):
    monkeypatch.setattr(Digits, "eval_batch_size", batch_size)
    trainer, network, _ = fit(tmp_path, TestCurve(), precision=precision)
    scalars = read_scalars(tmp_path)
    (metrics,) = trainer.test(network, Digits(), verbose=False)
    for name in ("loss", "acc"):
        values = by_epoch(scalars, f"test_curve/{name}")
        assert len(values) == 2
        assert values[-1] == pytest.approx(metrics[f"test/{name}"], rel=1e-5)


def test_what_a_network_makes_of_its_images_it_makes_once(tmp_path):
    trainer, network, _ = fit(tmp_path, TestCurve(), network_class=Darker)
    curve = by_epoch(read_scalars(tmp_path), "test_curve/loss")
    (metrics,) = trainer.test(network, Digits(), verbose=False)
    assert curve[-1] == pytest.approx(metrics["test/loss"], rel=1e-5)


def test_of_averaged_weights_it_shows_the_average(tmp_path):
    average = EMAWeightAveraging(decay=0.9)
    trainer, network, _ = fit(tmp_path, average, TestCurve())
    curve = by_epoch(read_scalars(tmp_path), "test_curve/loss")
    (metrics,) = trainer.test(network, Digits(), verbose=False)
    assert curve[-1] == pytest.approx(metrics["test/loss"], rel=1e-5)
    _, without, _ = fit(tmp_path / "without", EMAWeightAveraging(decay=0.9))
    torch.testing.assert_close(network.state_dict(), without.state_dict(), rtol=0, atol=0)
    fit(tmp_path / "plain", TestCurve())
    assert by_epoch(read_scalars(tmp_path / "plain"), "test_curve/loss") != curve


def test_it_never_becomes_a_metric_of_the_trainer(tmp_path):
    watch = Watch()
    fit(tmp_path, TestCurve(), watch)
    assert "val/acc" in watch.names
    assert not [name for name in watch.names if "test" in name]


def test_early_stopping_cannot_go_by_it(tmp_path):
    with pytest.raises(RuntimeError, match="test_curve/acc"):
        fit(tmp_path, TestCurve(), EarlyStopping("test_curve/acc"))


def test_the_network_trains_on_as_it_was(tmp_path):
    class Frozen(Callback):
        def on_train_start(self, trainer, pl_module):
            pl_module.layers[3].eval()

    _, network, _ = fit(tmp_path, Frozen(), TestCurve(), epochs=1)
    assert network.layers[4].training
    assert not network.layers[3].training
