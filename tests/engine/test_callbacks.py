"""What a run shows while it goes on, and what it logs of its epochs."""

from types import SimpleNamespace

import pytest
import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import ProcessingSpeedColumn
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.progress import BarColumn

from mnist_zoo.data import Digits
from mnist_zoo.engine import callbacks
from mnist_zoo.engine.callbacks import EpochLines, Epochs, ProgressBar
from mnist_zoo.models import Dense
from mnist_zoo.report.events import read_scalars


@pytest.mark.parametrize(
    ("max_epochs", "labels"),
    [(3, ["Epoch 1/3", "Epoch 3/3"]), (-1, ["Epoch 1", "Epoch 3"]), (None, ["Epoch 1", "Epoch 3"])],
)
def test_the_bar_counts_epochs_from_one(max_epochs, labels):
    bar = ProgressBar()
    bar._trainer = SimpleNamespace(max_epochs=max_epochs)
    assert [bar._get_train_description(epoch).rstrip() for epoch in (0, 2)] == labels


@pytest.mark.parametrize("seconds_a_step", [0.0, 0.06])
def test_the_bar_is_drawn_as_often_as_is_seen_and_at_the_end(monkeypatch, seconds_a_step):
    steps = range(4)
    monkeypatch.setattr(
        callbacks, "time", SimpleNamespace(monotonic=lambda: seconds_a_step * next(clock))
    )
    drawn, clock = [], iter(steps)
    monkeypatch.setattr(RichProgressBar, "on_train_batch_end", lambda *args: drawn.append(args[-1]))
    bar = ProgressBar()
    bar._trainer = SimpleNamespace(train_dataloader=SimpleNamespace(block_size=8, num_batches=30))
    for step in steps:
        bar.on_train_batch_end(bar.trainer, None, None, None, step)
    # Counted from 0; the last block is smaller.
    assert drawn == ([7, 23, 29] if seconds_a_step else [7, 29])


def scalars(folder, *callbacks_too):
    seed_everything(0)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        limit_train_batches=3,
        logger=TensorBoardLogger(folder, "", ""),
        callbacks=list(callbacks_too),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Dense(num_hidden=5), Digits())
    return read_scalars(folder)


def test_figures_that_are_logged_early_are_those_that_lightning_logs(tmp_path):
    told = []
    early = scalars(tmp_path / "early", Epochs(lambda done, of: told.append((done, of))))
    assert early == scalars(tmp_path / "plain")
    assert [step for step, _ in early["train/acc"]] == [2, 5]
    assert told == [(0, 2), (1, 2)]


def test_an_epoch_and_a_stop_are_on_disk_at_once():
    class Logger:
        def __init__(self):
            self.said = []

        def log_metrics(self, metrics, step):
            self.said.append((metrics, step))

        def save(self):
            self.said.append("saved")

    logger = Logger()
    trainer = SimpleNamespace(
        loggers=[logger], global_step=20, current_epoch=1,
        callback_metrics={"train/acc": torch.tensor(0.5), "val/acc": torch.tensor(0.25)},
    )  # fmt: skip
    epochs = Epochs()
    epochs.on_train_epoch_end(trainer, None)
    assert logger.said == [({"train/acc": 0.5, "epoch": 1}, 19), "saved"]
    epochs.on_exception(trainer, None, ValueError())
    assert len(logger.said) == 2
    epochs.on_exception(trainer, None, KeyboardInterrupt())
    assert logger.said[2:] == [({"stopped": 1.0}, 20), "saved"]


@pytest.mark.parametrize(("width", "has_speed"), [(80, False), (120, True)])
def test_the_bar_fits_into_eighty_columns(monkeypatch, width, has_speed):
    monkeypatch.setattr(callbacks, "get_console", lambda: Console(width=width))
    columns = ProgressBar().configure_columns(None)
    assert any(isinstance(column, ProcessingSpeedColumn) for column in columns) is has_speed
    (bar,) = [column for column in columns if isinstance(column, BarColumn)]
    assert (bar.bar_width < 10) is not has_speed


def test_without_a_bar_a_line_is_said_once_a_minute(monkeypatch):
    seconds = iter([0, 30, 61, 90, 130])
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    said = []
    lines = EpochLines(said.append)
    trainer = SimpleNamespace(max_epochs=9, callback_metrics={"val/acc": torch.tensor(0.5)})
    lines.on_train_start(trainer, None)
    for trainer.current_epoch in range(4):
        lines.on_train_epoch_end(trainer, None)
    assert said == ["epoch 2 of 9, val/acc 50.00 %", "epoch 4 of 9, val/acc 50.00 %"]
