"""Event files of TensorBoard read back, those of a run that was stopped and went on too."""

import math

import pytest
from torch.utils.tensorboard import SummaryWriter

from mnist_zoo.report.events import by_epoch, read_scalars, read_seconds


def write(folder, number, scalars, start=1000.0):
    """Write one event file: values by tag as (step, value), a second apart."""
    with SummaryWriter(folder, filename_suffix=f".{number}") as writer:
        for tag, values in scalars.items():
            for second, (step, value) in enumerate(values):
                writer.add_scalar(tag, value, step, walltime=start + second)
    (file,) = folder.glob(f"*.{number}")
    return file.rename(folder / f"events.out.tfevents.{number}")


def test_without_event_files_there_is_nothing(tmp_path):
    assert read_scalars(tmp_path) == {}
    assert by_epoch({}, "train/loss") == []
    assert read_seconds(tmp_path) == 0


def test_every_scalar_is_read(tmp_path):
    values = [(step, float(step) / 2) for step in range(20_000)]
    write(tmp_path, 1, {"train/loss": values})
    assert read_scalars(tmp_path) == {"train/loss": values}


def test_files_are_merged_in_the_order_in_which_they_were_begun_not_of_their_names(tmp_path):
    write(tmp_path, 9, {"train/loss": [(9, 4.0)]})
    write(tmp_path, 10, {"train/loss": [(9, 2.0)]})
    assert read_scalars(tmp_path) == {"train/loss": [(9, 2.0)]}


def test_the_files_of_a_resumed_run_are_merged_and_the_later_value_counts(tmp_path):
    write(tmp_path, 1, {"train/loss": [(9, 4.0), (19, 3.0)]})
    write(tmp_path, 2, {"train/loss": [(19, 2.0), (29, 1.0)], "val/acc": [(29, 0.5)]})
    assert read_scalars(tmp_path) == {
        "train/loss": [(9, 4.0), (19, 2.0), (29, 1.0)],
        "val/acc": [(29, 0.5)],
    }


def test_a_file_cut_short_by_a_kill_gives_what_was_whole(tmp_path):
    file = write(tmp_path, 1, {"train/loss": [(9, 4.0), (19, 3.0)]})
    file.write_bytes(file.read_bytes()[:-5])
    write(tmp_path, 2, {"train/loss": [(29, 1.0)]})
    assert read_scalars(tmp_path)["train/loss"] == [(9, 4.0), (29, 1.0)]


def test_a_value_belongs_to_the_epoch_marked_nearest():
    scalars = {
        "epoch": [(9, 0.0), (19, 1.0), (29, 2.0)],
        "train/loss": [(9, 4.0), (19, math.nan), (29, 1.0)],
        "val/acc": [(9, 0.5), (29, 0.75)],
        "test_curve/acc": [(10, 0.1), (20, 0.2), (30, 0.3)],
        "lr": [(8, 0.3), (18, 0.2), (28, 0.1)],
    }
    assert by_epoch(scalars, "train/loss") == [4.0, None, 1.0]
    assert by_epoch(scalars, "val/acc") == [0.5, None, 0.75]
    assert by_epoch(scalars, "test_curve/acc") == [0.1, 0.2, 0.3]
    assert by_epoch(scalars, "lr") == [0.3, 0.2, 0.1]
    assert by_epoch(scalars, "val/loss") == [None, None, None]


def test_of_several_values_in_an_epoch_the_last_counts():
    scalars = {"epoch": [(4, 0.0), (9, 0.0), (14, 1.0)], "val/acc": [(4, 0.1), (9, 0.2), (14, 0.3)]}
    assert by_epoch(scalars, "val/acc") == [0.2, 0.3]


def test_the_time_between_two_parts_of_a_run_does_not_count(tmp_path, monkeypatch):
    import time

    for number, start in ((1, 5000.0), (2, 9000.0)):
        # A file is begun ten seconds before its first value.
        monkeypatch.setattr(time, "time", lambda start=start: start - 10)
        write(tmp_path, number, {"train/loss": [(n, 1.0) for n in range(4)]}, start)
    assert read_seconds(tmp_path) == pytest.approx(26.0)
