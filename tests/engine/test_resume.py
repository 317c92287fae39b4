"""A run that is killed, for real, and goes on."""

import copy
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    GradientAccumulationScheduler,
    ModelCheckpoint,
    Timer,
)
from lightning.pytorch.trainer.connectors.logger_connector import _LoggerConnector

from mnist_zoo.data import DataError, Digits
from mnist_zoo.engine import best_and_last
from mnist_zoo.engine.atomic_io import AtomicCheckpointIO
from mnist_zoo.engine.best_and_last import Best, Last
from mnist_zoo.engine.blocks import Blocks
from mnist_zoo.engine.callbacks import SomethingToTrain
from mnist_zoo.engine.stopping import SIGNALS, Stopping
from mnist_zoo.errors import ZooError
from mnist_zoo.models import MLPDropout

FIT = (
    "fit", "--model=ConvNetDropout", "--model.lr=0.05", "--data=Digits", "--data.num_train=600",
    "--data.rotation=10", "--data.shift=1", "--data.elastic=0.5",
    "--trainer.accelerator=cpu", "--trainer.max_epochs=3",
    "--model.scheduler=OneCycleLR", "--steps_per_execution=4", "--last.every_n_train_steps=20",
    "--trainer.enable_progress_bar=false",
)  # fmt: skip
LAST = "ConvNetDropout/version_0/checkpoints/last.ckpt"

pytestmark = pytest.mark.usefixtures("ctrl_c")


def weights(folder):
    return torch.load(folder / LAST, weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "status"),
    [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130), (signal.SIGTERM, 143)],
)
def test_a_killed_run_ends_with_the_weights_of_one_that_never_stopped(how, status, zoo, tmp_path):
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
        process.send_signal(how)
        assert process.wait() == status
    stopped_at = weights(killed)["global_step"]
    assert 0 < stopped_at < weights(whole)["global_step"], "killed in the middle"

    # As if it had been killed while it wrote one.
    (killed / LAST).with_name(".last.ckpt.1a2b3c4d.unfinished").write_bytes(b"half")
    resumed = zoo("fit", f"--ckpt_path={killed / LAST}", "--trainer.enable_progress_bar=false")
    assert resumed.returncode == 0, resumed.stderr
    one, other = weights(whole), weights(killed)
    assert one["global_step"] == other["global_step"]
    torch.testing.assert_close(one["state_dict"], other["state_dict"], rtol=0, atol=0)
    assert not list(killed.rglob("*.unfinished"))


class SignalAt(Callback):
    """Has the process sent a signal as it begins a batch, the first of them numbered 0."""

    def __init__(self, batch, number):
        self.batch, self.number = batch, number

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == self.batch:
            signal.raise_signal(self.number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_run_that_accumulates_gradients_stops_between_two_steps(number, tmp_path):
    settings = {"accumulate_grad_batches": 4, "max_epochs": 2, "num_taken": 16}
    whole = train(tmp_path, None, **settings)
    stopped = tmp_path / "stopped"
    with pytest.raises(SystemExit):
        train(stopped, None, SignalAt(9, number), **settings)
    file = stopped / "checkpoints" / "last.ckpt"
    assert torch.load(file, weights_only=True)["global_step"] == 3
    resumed = train(stopped, None, ckpt_path=file, **settings)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_the_random_generator_of_an_accelerator_is_kept_and_put_back(kind, monkeypatch):
    numbers, put_back = torch.arange(16, dtype=torch.uint8), []
    module = getattr(torch, kind)
    monkeypatch.setattr(module, "get_rng_state", lambda *device: numbers)
    monkeypatch.setattr(module, "set_rng_state", lambda state, *device: put_back.append(state))
    monkeypatch.setattr(torch, "set_rng_state", lambda state: None)
    last = Last()
    last._device = torch.device(kind)
    last._random_states = last.state_dict()["random"]
    last._restore_random_states()
    assert put_back == [numbers]
    last._device = torch.device("cpu")
    last._restore_random_states()
    assert len(put_back) == 1


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopping = Stopping()
    try:
        stopping.listen()
        signal.raise_signal(signal.SIGINT)
        assert stopping.asked is None
    finally:
        stopping.listen_no_more()
        signal.signal(signal.SIGINT, before)


def test_a_second_ctrl_c_does_not_wait_and_a_third_is_as_it_was_before():
    before, stopping = signal.getsignal(signal.SIGINT), Stopping()
    stopping.listen()
    try:
        stopping.stop_if_asked()
        signal.raise_signal(signal.SIGINT)
        assert stopping.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        stopping.listen_no_more()
    assert signal.getsignal(signal.SIGINT) is before


class Keep(Callback):
    """Copies the last checkpoint of an epoch."""

    def __init__(self, epoch, file):
        self.epoch, self.file = epoch, file

    def on_train_epoch_start(self, trainer, *_):
        if trainer.current_epoch == self.epoch and not self.file.exists():
            last = next(c for c in trainer.checkpoint_callbacks if isinstance(c, Last))
            shutil.copy(last.best_model_path, self.file)


class Save(Timer):
    """Writes a checkpoint when at least so many steps were taken.

    A timer, as these may look at blocks instead of steps.
    """

    def __init__(self, step, file):
        super().__init__()
        self.step, self.file = step, file

    def state_dict(self):
        return {}

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step >= self.step and not self.file.exists():
            trainer.save_checkpoint(self.file)


class SaveAtTheEnd(Callback):
    """Writes a checkpoint when all is over, as a user may after ``fit``."""

    def __init__(self, file):
        self.file = file

    def teardown(self, trainer, pl_module, stage):
        trainer.save_checkpoint(self.file)


def train(
    folder, num_steps, *callbacks, ckpt_path=None, scheduler="OneCycleLR", num_taken=90,
    every_n_train_steps=None, patience=None, network_class=MLPDropout, batch_size=10,
    optimizer="SGD", **settings
):  # fmt: skip
    """Train with dropout, distortions and a scheduler that goes by steps: 30 steps an epoch.

    The last minibatch of an epoch is smaller than the others.

    Steps are taken in blocks; ``num_steps`` None is Lightning's plain loop.
    """
    seed_everything(0)
    network = network_class(
        num_hidden=32,
        lr=0.05,
        scheduler=scheduler,
        # No change is an improvement, so that each epoch has a step of the rate.
        scheduler_args=None if patience is None else {"patience": patience, "threshold": 1.0},
        optimizer=optimizer,
        optimizer_args={"momentum": 0.9},
    )
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            *([] if num_steps is None else [Blocks(num_steps)]),
            Last(every_n_train_steps),
            *callbacks,
        ],
        **{"max_epochs": 3, **settings},
    )
    data = Digits(batch_size, num_train=315, val_size=20, rotation=10, shift=1)
    trainer.fit(network, data, ckpt_path=ckpt_path)
    assert trainer.global_step == num_taken
    return network.state_dict()


@pytest.mark.parametrize("stopped", [8, 42])
@pytest.mark.parametrize("num_steps", [None, 1, 4, 7, 64])
def test_a_run_resumed_in_mid_epoch_ends_with_the_same_weights(stopped, num_steps, tmp_path):
    file = tmp_path / "middle.ckpt"
    whole = train(tmp_path, num_steps and 4, Save(stopped, file))
    progress = torch.load(file, weights_only=True)
    assert progress["global_step"] == stopped
    resumed = train(tmp_path / "resumed", num_steps, ckpt_path=file)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


class SaveAtValidation(Callback):
    """Writes a checkpoint at the end of the validation after so many steps."""

    def __init__(self, step, file):
        self.step, self.file = step, file

    def on_validation_end(self, trainer, *_):
        if trainer.global_step == self.step and not trainer.sanity_checking:
            trainer.save_checkpoint(self.file)


@pytest.mark.parametrize("scheduler", ["OneCycleLR", "CosineAnnealingLR"])
@pytest.mark.parametrize("before", [None, 4])
@pytest.mark.parametrize("num_steps", [None, 1, 4, 7])
@pytest.mark.parametrize(
    ("save", "step"), [(Save, 8), (Save, 20), (SaveAtValidation, 12), (SaveAtValidation, 24)]
)
def test_a_run_is_resumed_in_another_loop_or_in_other_blocks(
    save, step, num_steps, before, scheduler, tmp_path
):
    file = tmp_path / "middle.ckpt"
    settings = {"scheduler": scheduler, "limit_train_batches": 12, "num_taken": 36}
    whole = train(tmp_path, before, save(step, file), **settings)
    assert torch.load(file, weights_only=True)["global_step"] == step
    resumed = train(tmp_path / "resumed", num_steps, ckpt_path=file, **settings)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


@pytest.mark.parametrize("num_steps", [None, 4])
@pytest.mark.parametrize("batch_size", [5, 20, 200])
def test_the_size_of_minibatches_cannot_change_in_mid_epoch(batch_size, num_steps, tmp_path):
    file = tmp_path / "middle.ckpt"
    train(tmp_path, num_steps, Save(8, file), scheduler=None)
    with pytest.raises(DataError, match=rf"batch_size cannot change from 10 to {batch_size} "):
        train(tmp_path, num_steps, ckpt_path=file, scheduler=None, batch_size=batch_size)


@pytest.mark.parametrize("num_steps", [None, 4])
def test_the_size_of_minibatches_can_change_between_two_epochs(num_steps, tmp_path):
    file = tmp_path / "end.ckpt"
    few = {"scheduler": None, "limit_train_batches": 12}
    train(tmp_path, num_steps, Keep(1, file), num_taken=36, **few)
    train(tmp_path / "resumed", num_steps, ckpt_path=file, batch_size=20, num_taken=36, **few)


class Figures(Callback):
    """Keeps the training figures of every epoch."""

    def __init__(self):
        self.by_epoch = {}

    def on_train_epoch_end(self, trainer, *_):
        names = "train/loss", "train/acc"
        figures = {name: trainer.callback_metrics[name].item() for name in names}
        self.by_epoch[trainer.current_epoch] = figures


@pytest.mark.parametrize("stopped", [8, 30, 42, 60])
@pytest.mark.parametrize("num_steps", [None, 1, 4])
def test_a_resumed_run_has_the_training_figures_of_whole_epochs(stopped, num_steps, tmp_path):
    file = tmp_path / "stopped.ckpt"
    whole, resumed = Figures(), Figures()
    train(tmp_path, num_steps, Save(stopped, file), whole)
    train(tmp_path / "resumed", num_steps, resumed, ckpt_path=file)
    last = [whole.by_epoch[epoch] for epoch in resumed.by_epoch]
    assert len(last) == 3 - stopped // 30
    for figures, expected in zip(resumed.by_epoch.values(), last, strict=True):
        assert figures == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("num_steps", [None, 4])
def test_a_scheduler_by_validation_takes_the_step_that_it_was_due(num_steps, tmp_path):
    file = tmp_path / "end.ckpt"
    plateau = {"scheduler": "ReduceLROnPlateau", "patience": 0}
    whole = train(tmp_path, num_steps, Keep(1, file), **plateau)
    resumed = train(tmp_path / "resumed", num_steps, ckpt_path=file, **plateau)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


@pytest.mark.parametrize("num_steps", [None, 4])
def test_a_scheduler_by_validation_is_not_stepped_twice_for_a_checkpoint_after_training(
    num_steps, tmp_path
):
    plateau = {"scheduler": "ReduceLROnPlateau", "patience": 0}
    whole = train(tmp_path, num_steps, **plateau)
    file, ended = tmp_path / "ended.ckpt", {"max_epochs": 2, "num_taken": 60, **plateau}
    train(tmp_path / "ended", num_steps, SaveAtTheEnd(file), **ended)
    resumed = train(tmp_path / "resumed", num_steps, ckpt_path=file, **plateau)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


@pytest.mark.parametrize("num_steps", [None, 4])
@pytest.mark.parametrize("stopped", [8, 42])
def test_a_scheduler_by_validation_is_stepped_after_an_epoch_that_was_resumed(
    num_steps, stopped, tmp_path
):
    file = tmp_path / "middle.ckpt"
    plateau = {"scheduler": "ReduceLROnPlateau", "patience": 0}
    whole = train(tmp_path, num_steps, Save(stopped, file), **plateau)
    resumed = train(tmp_path / "resumed", num_steps, ckpt_path=file, **plateau)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


class EverySecondEpoch(MLPDropout):
    def configure_optimizers(self):
        config = super().configure_optimizers()
        config["lr_scheduler"]["frequency"] = 2
        return config


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_scheduler_by_validation_takes_no_step_that_it_was_not_due(epoch, tmp_path):
    file = tmp_path / "end.ckpt"
    plateau = {
        "scheduler": "ReduceLROnPlateau", "patience": 0, "network_class": EverySecondEpoch
    }  # fmt: skip
    whole = train(tmp_path, None, Keep(epoch, file), **plateau)
    resumed = train(tmp_path / "resumed", None, ckpt_path=file, **plateau)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


@pytest.mark.parametrize("num_steps", [None, 4])
def test_images_in_a_fixed_order_are_distorted_as_they_would_have_been(num_steps, tmp_path):
    file = tmp_path / "end.ckpt"
    few = {"overfit_batches": 5, "num_taken": 15, "limit_val_batches": 0}
    whole = train(tmp_path, num_steps, Keep(1, file), **few)
    resumed = train(tmp_path / "resumed", num_steps, ckpt_path=file, **few)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


@pytest.mark.parametrize("num_steps", [1, 7, 64])
def test_a_scheduler_by_epochs_goes_on_in_a_run_resumed_in_mid_epoch(num_steps, tmp_path):
    file = tmp_path / "middle.ckpt"
    whole = train(tmp_path, 4, Save(8, file), scheduler="CosineAnnealingLR")
    resumed = train(tmp_path / "resumed", num_steps, ckpt_path=file, scheduler="CosineAnnealingLR")
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


@pytest.mark.parametrize("num_steps", [None, 4])
def test_weights_in_double_precision_are_not_rounded(num_steps, tmp_path):
    file, double = tmp_path / "middle.ckpt", {"precision": "64-true"}
    whole = train(tmp_path, num_steps, Save(8, file), **double)
    resumed = train(tmp_path / "resumed", num_steps, ckpt_path=file, **double)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


def test_callbacks_of_a_resumed_run_leave_nothing_of_it_to_the_next(tmp_path):
    file, network = tmp_path / "middle.ckpt", MLPDropout(num_hidden=32)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    callbacks, taken = [Blocks(4), Last()], []
    for others, ckpt_path in (([Save(8, file)], None), ([], file), ([], None)):
        trainer = Trainer(
            default_root_dir=tmp_path, accelerator="cpu", max_epochs=1,
            callbacks=[*callbacks, *others], **quiet,
        )  # fmt: skip
        trainer.fit(network, Digits(10, num_train=315, val_size=20), ckpt_path=ckpt_path)
        taken.append(trainer.global_step)
    assert taken == [30, 30, 30]


def test_muon_goes_on_in_a_run_resumed_in_mid_epoch(tmp_path):
    file = tmp_path / "middle.ckpt"
    whole = train(tmp_path, 4, Save(8, file), optimizer="Muon")
    resumed = train(tmp_path / "resumed", 64, ckpt_path=file, optimizer="Muon")
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


@pytest.mark.parametrize("epoch", [1, 2])
@pytest.mark.parametrize(("scheduler", "num_steps"), [("OneCycleLR", 64), ("CosineAnnealingLR", 1)])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_steps": 90, "max_epochs": -1},
        {"max_steps": 90, "max_epochs": 8},
        {"check_val_every_n_epoch": 2},
        {"limit_val_batches": 0},
    ],
)
def test_a_run_resumed_at_the_end_of_an_epoch_ends_with_the_same_weights(
    settings, scheduler, num_steps, epoch, tmp_path
):
    file = tmp_path / "end.ckpt"
    whole = train(tmp_path, num_steps, Keep(epoch, file), scheduler=scheduler, **settings)
    assert torch.load(file, weights_only=True)["global_step"] == 30 * epoch
    resumed = train(
        tmp_path / "resumed", num_steps, ckpt_path=file, scheduler=scheduler, **settings
    )
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


def test_lightnings_plain_loop_goes_on_counting_the_steps_of_blocks(tmp_path):
    file = tmp_path / "end.ckpt"
    train(tmp_path, 4, Keep(1, file))
    train(tmp_path / "resumed", None, ckpt_path=file)


class Validated(Callback):
    def __init__(self):
        self.at = []

    def on_validation_end(self, trainer, *_):
        if not trainer.sanity_checking:
            self.at.append(trainer.global_step)


def test_a_run_resumed_after_a_validation_in_mid_epoch_validates_as_it_would_have(tmp_path):
    best = ModelCheckpoint(tmp_path, "{step}", monitor="step", mode="max", save_top_k=-1)
    settings = {"val_check_interval": 10, "max_epochs": 3}
    whole, resumed = Validated(), Validated()
    train(tmp_path, 1, best, whole, **settings)
    assert whole.at == list(range(10, 91, 10))
    file = tmp_path / "step=20.ckpt"
    train(tmp_path / "resumed", 1, resumed, ckpt_path=file, **settings)
    assert resumed.at == whole.at[2:]


def test_a_checkpoint_is_on_disk_before_it_takes_the_place_of_the_one_before(tmp_path, monkeypatch):
    file, before = tmp_path / "checkpoints" / "last.ckpt", []
    AtomicCheckpointIO().save_checkpoint({"step": 1}, file)
    monkeypatch.setattr(os, "fsync", lambda _: before.append(torch.load(file, weights_only=True)))
    AtomicCheckpointIO().save_checkpoint({"step": 2}, file)
    assert before == [{"step": 1}]
    assert torch.load(file, weights_only=True) == {"step": 2}
    assert list(file.parent.iterdir()) == [file]


class StopAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step >= self.step


@pytest.mark.parametrize("num_steps", [None, 1, 4, 64])
@pytest.mark.parametrize("stopped", [26, 42])
def test_a_run_that_took_all_its_steps_goes_on_with_more_as_if_it_had_had_them(
    num_steps, stopped, tmp_path
):
    settings = {"scheduler": None, "max_epochs": 3}
    whole = train(tmp_path, num_steps, **settings)
    train(tmp_path / "short", num_steps, **settings, max_steps=stopped, num_taken=stopped)
    file = next((tmp_path / "short").rglob("last.ckpt"))
    resumed = train(tmp_path / "resumed", num_steps, ckpt_path=file, **settings)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


def test_a_run_that_a_callback_ended_in_mid_epoch_goes_on_from_there(tmp_path):
    whole = train(tmp_path, None)
    train(tmp_path / "short", None, StopAt(42), num_taken=42)
    file = next((tmp_path / "short").rglob("last.ckpt"))
    torch.testing.assert_close(train(tmp_path, None, ckpt_path=file), whole, rtol=0, atol=0)


class Saved(Callback):
    """Notes after how many steps a checkpoint is written."""

    def __init__(self):
        self.steps = []

    def on_save_checkpoint(self, trainer, *_):
        self.steps.append(trainer.global_step)


def test_the_last_checkpoint_is_also_written_after_so_many_steps_and_no_more_often(tmp_path):
    saved = Saved()
    train(tmp_path, 4, saved, every_n_train_steps=10, max_epochs=2, num_taken=60)
    # Blocks end at 12, 20, 42 and 50, the epochs at 30 and 60.
    assert saved.steps == [12, 20, 30, 42, 50, 60]


@pytest.mark.parametrize(
    ("monitor", "mode", "chosen"),
    [("val/acc", None, "max"), ("val/loss", None, "min"), ("val/acc", "min", "min")],
)
def test_the_best_is_the_lowest_of_a_loss(monitor, mode, chosen):
    assert Best(monitor, mode).mode == chosen


@pytest.mark.parametrize("every", [{"check_val_every_n_epoch": 2}, {"val_check_interval": 0.5}])
def test_the_best_in_training_is_that_of_its_epoch(every, tmp_path):
    best = Best("train/loss")
    figures = Figures()
    train(tmp_path, 4, best, figures, **every)
    losses = [epoch["train/loss"] for epoch in figures.by_epoch.values()]
    assert float(best.best_model_score) == min(losses)
    epoch = losses.index(min(losses)) + 1
    assert torch.load(best.best_model_path, weights_only=True)["global_step"] == 30 * epoch


def test_a_checkpoint_that_a_full_disk_refuses_is_told_so(tmp_path):
    resource = pytest.importorskip("resource", reason="limits the size of files, on Unix")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(ZooError, match=r"cannot write .*a.ckpt: File too large"):
            AtomicCheckpointIO().save_checkpoint({"a": torch.zeros(100_000)}, tmp_path / "a.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


class Written(Callback):
    """Lists the steps after which a checkpoint was written."""

    def __init__(self):
        self.steps = []

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        self.steps.append(trainer.global_step)


class EndOfEpoch(Callback):
    """Does something at the last minibatch of an epoch, counted from 0."""

    def __init__(self, epoch, do):
        self.epoch, self.do = epoch, do

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == self.epoch and batch_idx == 29:
            self.do(trainer)


@pytest.fixture
def no_time(monkeypatch):
    """Let no time pass between epochs."""
    monkeypatch.setattr(best_and_last, "time", SimpleNamespace(monotonic=lambda: 7.0))


@pytest.mark.usefixtures("no_time")
@pytest.mark.parametrize("num_steps", [None, 64])
@pytest.mark.parametrize(
    ("settings", "callback", "steps"),
    [
        ({"max_epochs": 4}, None, [30, 120]),
        ({"max_epochs": -1, "max_steps": 120}, None, [30, 120]),
        ({"max_epochs": 9}, EarlyStopping("train/loss", min_delta=9, patience=2), [30, 90]),
        ({"max_epochs": 9}, EarlyStopping("val/loss", min_delta=9, patience=2), [30, 90]),
        ({"max_epochs": 4, "every_n_train_steps": 60}, None, [30, 60, 120]),
    ],
)
def test_epochs_shorter_than_a_second_are_written_together(
    settings, callback, steps, num_steps, tmp_path
):
    written = Written()
    callbacks = [written] if callback is None else [written, copy.deepcopy(callback)]
    train(tmp_path, num_steps, *callbacks, num_taken=steps[-1], **settings)
    assert written.steps == steps
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == steps[-1]


@pytest.mark.parametrize("seconds", [0.9, 1.1])
def test_longer_epochs_are_written_each(seconds, tmp_path, monkeypatch):
    times = iter(range(1000))
    clock = SimpleNamespace(monotonic=lambda: seconds * next(times))
    monkeypatch.setattr(best_and_last, "time", clock)
    written = Written()
    train(tmp_path, 64, written, max_epochs=4, num_taken=120)
    assert written.steps == ([30, 60, 90, 120] if seconds > 1 else [30, 90, 120])


@pytest.mark.usefixtures("no_time")
@pytest.mark.parametrize("number", SIGNALS)
def test_a_run_that_is_stopped_in_a_short_epoch_is_written(number, tmp_path):
    stop = EndOfEpoch(1, lambda trainer: signal.raise_signal(number))
    with pytest.raises(SystemExit):
        train(tmp_path, None, stop)
    file = tmp_path / "checkpoints" / "last.ckpt"
    assert torch.load(file, weights_only=True)["global_step"] == 60


@pytest.mark.usefixtures("no_time")
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(("num_steps", "step"), [(None, 61), (8, 68), (64, 90)])
def test_a_run_that_is_stopped_between_two_short_epochs_loses_nothing(
    num_steps, step, number, tmp_path, monkeypatch
):
    run = {"max_epochs": 5, "num_taken": 150}
    whole = train(tmp_path / "whole", num_steps, **run)
    calls = []

    def log(connector):
        # After the hooks of the second epoch's end.
        calls.append(connector)
        if len(calls) == 2:
            signal.raise_signal(number)
        plain(connector)

    plain = _LoggerConnector.update_train_epoch_metrics
    with monkeypatch.context() as patched:
        patched.setattr(_LoggerConnector, "update_train_epoch_metrics", log)
        with pytest.raises(SystemExit):
            train(tmp_path, num_steps, **run)
    file = tmp_path / "checkpoints" / "last.ckpt"
    assert torch.load(file, weights_only=True)["global_step"] == step
    resumed = train(tmp_path, num_steps, ckpt_path=file, **run)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


@pytest.mark.usefixtures("no_time")
def test_a_run_that_ends_itself_in_a_short_epoch_is_written(tmp_path):
    end = EndOfEpoch(1, lambda trainer: setattr(trainer, "should_stop", True))
    train(tmp_path, None, end, num_taken=60)
    file = tmp_path / "checkpoints" / "last.ckpt"
    assert torch.load(file, weights_only=True)["global_step"] == 60


class EndAsEpochBegins(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch == 2


class EndsItself(MLPDropout):
    def on_train_epoch_start(self):
        self.trainer.should_stop = self.trainer.current_epoch == 2


@pytest.mark.usefixtures("no_time")
@pytest.mark.parametrize("num_steps", [None, 64])
@pytest.mark.parametrize(
    ("network_class", "callbacks"), [(MLPDropout, [EndAsEpochBegins()]), (EndsItself, [])]
)
def test_a_run_that_is_ended_as_an_epoch_begins_goes_on_with_that_epoch(
    num_steps, network_class, callbacks, tmp_path
):
    run = {"max_epochs": 4, "num_taken": 120}
    whole = train(tmp_path / "whole", num_steps, **run)
    ended = {"network_class": network_class, "max_epochs": 4, "num_taken": 60}
    train(tmp_path, num_steps, *callbacks, **ended)
    file = tmp_path / "checkpoints" / "last.ckpt"
    resumed = train(tmp_path, num_steps, ckpt_path=file, **run)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


class EndAtValidation(Callback):
    """Ends the run in a validation within the second epoch."""

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking and trainer.current_epoch == 1:
            trainer.should_stop = True


@pytest.mark.parametrize("num_steps", [None, 4])
@pytest.mark.parametrize(
    "callback", [EndAtValidation(), EarlyStopping("val/loss", min_delta=9, patience=2)]
)
def test_a_run_that_a_validation_ends_in_mid_epoch_goes_on_there(num_steps, callback, tmp_path):
    run = {"max_epochs": 4, "val_check_interval": 0.5, "num_taken": 120}
    whole = train(tmp_path / "whole", num_steps, **run)
    train(tmp_path, num_steps, copy.deepcopy(callback), **run | {"num_taken": 45})
    file = tmp_path / "checkpoints" / "last.ckpt"
    assert torch.load(file, weights_only=True)["global_step"] == 45
    resumed = train(tmp_path, num_steps, ckpt_path=file, **run)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


class Validations(Callback):
    """Keeps the steps after which there was a validation."""

    def __init__(self):
        self.steps = []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.steps.append(trainer.global_step)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(("settings", "batch", "step"), [
    ({}, 13, 14), ({}, 14, 15), ({}, 15, 16),
    ({"every_n_train_steps": 15}, 15, 16),
    ({"accumulate_grad_batches": 5, "num_taken": 12}, 12, 3),
])  # fmt: skip
def test_no_validation_is_left_out_where_a_run_was_stopped(settings, batch, step, number, tmp_path):
    run = {"max_epochs": 2, "val_check_interval": 15, "num_taken": 60, **settings}
    of_whole, of_stopped, of_resumed = Validations(), Validations(), Validations()
    whole = train(tmp_path / "whole", None, of_whole, **run)
    with pytest.raises(SystemExit):
        train(tmp_path, None, of_stopped, SignalAt(batch, number), **run)
    file = tmp_path / "checkpoints" / "last.ckpt"
    assert torch.load(file, weights_only=True)["global_step"] == step
    resumed = train(tmp_path, None, of_resumed, ckpt_path=file, **run)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)
    assert of_stopped.steps + of_resumed.steps == of_whole.steps


class SignalIn(Callback):
    """Has the process sent a signal in the validation of a step."""

    def __init__(self, step, number):
        self.step, self.number = step, number

    def on_validation_start(self, trainer, pl_module):
        if trainer.global_step == self.step:
            signal.raise_signal(self.number)


@pytest.mark.parametrize(
    ("num_steps", "interval", "stop"),
    [
        (None, 14, SignalIn(28, signal.SIGTERM)),
        (None, 14, SignalAt(28, signal.SIGTERM)),
        # Blocks: the interval and the number of the second signal count these.
        (4, 7, SignalIn(28, signal.SIGTERM)),
        (4, 7, SignalAt(7, signal.SIGTERM)),
    ],
)
def test_a_scheduler_by_validation_knows_one_before_a_stop_in_the_same_epoch(
    num_steps, interval, stop, tmp_path
):
    run = {"scheduler": "ReduceLROnPlateau", "patience": 0, "val_check_interval": interval}
    whole = train(tmp_path / "whole", num_steps, **run)
    with pytest.raises(SystemExit):
        train(tmp_path, num_steps, stop, **run)
    file = tmp_path / "checkpoints" / "last.ckpt"
    resumed = train(tmp_path, num_steps, ckpt_path=file, **run)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


@pytest.mark.parametrize("interval", [14, "00:01:00:00", 1000])
def test_the_axis_of_a_run_that_a_callback_ended_within_an_epoch_goes_on(interval, tmp_path):
    class Steps(Callback):
        def __init__(self):
            self.steps = []

        def on_train_batch_start(self, trainer, *_):
            self.steps.append(trainer.fit_loop.epoch_loop._batches_that_stepped)

    class End(Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.should_stop or trainer.global_step == 20

    of_whole, of_stopped, of_resumed = Steps(), Steps(), Steps()
    run = {"max_epochs": 2, "num_taken": 60}
    run |= {} if interval == 1000 else {"val_check_interval": interval}
    train(tmp_path / "whole", None, of_whole, **run)
    train(tmp_path, None, of_stopped, End(), **run | {"num_taken": 20})
    file = tmp_path / "checkpoints" / "last.ckpt"
    train(tmp_path, None, of_resumed, ckpt_path=file, **run)
    assert of_stopped.steps + of_resumed.steps == of_whole.steps


def test_a_checkpoint_due_at_a_validation_is_written_after_it(tmp_path):
    run = {"max_epochs": 1, "val_check_interval": 15, "num_taken": 30, "every_n_train_steps": 15}

    def kill(trainer, pl_module):
        if trainer.global_step == 15:
            raise OSError("killed during the validation")

    killer = Callback()
    killer.on_validation_start = kill
    with pytest.raises(OSError, match="killed"):
        train(tmp_path, None, killer, **run)
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize("stopped", [8, 12])
def test_minibatches_are_accumulated_as_scheduled_in_an_epoch_that_was_resumed(stopped, tmp_path):
    file = tmp_path / "middle.ckpt"
    schedule = {"num_taken": 30 + 10 + 10, "max_epochs": 3}

    def factors():
        return GradientAccumulationScheduler({0: 1, 1: 3})

    whole = train(tmp_path, None, Save(30 + stopped // 3, file), factors(), **schedule)
    resumed = train(tmp_path / "resumed", None, factors(), ckpt_path=file, **schedule)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


@pytest.mark.parametrize("num_steps", [None, 4])
@pytest.mark.parametrize(
    ("stopped", "settings", "num_taken"),
    [
        # Asked to stop after the second epoch, but the run has to be longer.
        (70, {"patience": 1, "min_delta": 9}, 120),
        # No validation yet, so nothing to be patient with.
        (8, {"patience": 0, "min_delta": -9}, 180),
    ],
)
def test_a_run_that_early_stopping_has_not_ended_is_resumed(
    num_steps, stopped, settings, num_taken, tmp_path
):
    file = tmp_path / "middle.ckpt"
    run = {"max_epochs": 6, "min_epochs": 4, "num_taken": num_taken}

    def callbacks():
        return [SomethingToTrain(), EarlyStopping("val/loss", **settings)]

    whole = train(tmp_path, num_steps, Save(stopped, file), *callbacks(), **run)
    resumed = train(tmp_path / "resumed", num_steps, *callbacks(), ckpt_path=file, **run)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("world_size", "callbacks", "network_class", "must"),
    [
        (1, [], MLPDropout, False),
        (1, [EarlyStopping("val/loss"), Written()], MLPDropout, False),
        (2, [], MLPDropout, True),
        (1, [EndAsEpochBegins()], MLPDropout, True),
        (1, [], EndsItself, True),
    ],
)
def test_who_must_write_after_every_epoch(world_size, callbacks, network_class, must):
    trainer = SimpleNamespace(
        world_size=world_size, callbacks=callbacks, lightning_module=network_class()
    )
    assert best_and_last._must_be_written_after_every_epoch(trainer) is must


@pytest.mark.parametrize("step", [30, 60, None])
def test_the_best_score_is_not_that_of_weights_that_a_killed_run_has_replaced(step, tmp_path):
    best, file = Best(), tmp_path / "best.ckpt"
    best.dirpath = str(tmp_path)
    state = best.state_dict() | {
        "best_model_path": str(file), "best_k_models": {str(file): torch.tensor(0.5)},
        "best_model_score": torch.tensor(0.5),
    }  # fmt: skip
    if step is None:
        file.write_text("damaged")
    else:
        torch.save({"global_step": step}, file)
    best.on_load_checkpoint(None, None, {"global_step": 30})
    best.load_state_dict(state)
    if step == 30:
        assert best.best_model_path == str(file)
        assert (best.best_model_score, best.best_k_models) == (0.5, {str(file): 0.5})
    else:
        assert best.best_model_path == ""
        assert (best.best_model_score, best.best_k_models) == (None, {})
