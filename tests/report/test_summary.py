"""The lines before and after a run, the table of metrics."""

from pathlib import Path

import pytest
from rich.console import Console

from mnist_zoo.report import summary


def shown(renderable, width=80):
    console = Console(width=width, force_terminal=False, highlight=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestBeforeFit:
    def said(self, num_val=5_000, epochs=60, steps=-1, folder=None, num_devices=1, limit=1.0):
        text = summary.before_fit(
            network="Net", num_parameters=1_234_567, data="MNIST", num_train_images=55_000,
            num_val_images=num_val, max_epochs=epochs, max_steps=steps, run_folder=folder,
            num_devices=num_devices, batch_size=10, limit_train_batches=limit,
        )  # fmt: skip
        return shown(text, width=500).strip()

    def test_says_what_is_trained_on_what_for_how_long_and_where_to(self, here):
        assert self.said(folder=here / "runs" / "Net" / "version_0") == (
            "Net (1,234,567 parameters) on MNIST (55,000 training images,"
            " 5,000 held out for validation), 60 epochs → runs/Net/version_0"
        )

    def test_says_that_nothing_is_held_out_and_nothing_written(self):
        assert "(55,000 training images, none held out), 60 epochs" in self.said(num_val=0)
        assert "→" not in self.said()

    def test_counts_a_single_epoch_in_the_singular(self):
        assert self.said(epochs=1).endswith(", 1 epoch")

    @pytest.mark.parametrize(
        ("limit", "said"),
        [
            (200, " of at most 200 minibatches"),
            (1, " of at most 1 minibatch"),
            (0.25, " with 25 % of the images"),
        ],
    )
    def test_tells_a_limit_of_minibatches(self, limit, said):
        assert self.said(limit=limit).endswith(f", 60 epochs{said}")

    def test_tells_a_limit_of_steps(self):
        assert self.said(steps=3000).endswith(", 60 epochs, at most 3,000 steps")
        assert self.said(epochs=-1, steps=3000).endswith("validation), at most 3,000 steps")

    def test_tells_the_images_of_each_of_several_devices(self):
        assert self.said(num_devices=4).endswith(" epochs, 10 images a step on each of 4 devices")

    @pytest.mark.parametrize("epochs", [None, -1])
    def test_says_when_there_is_no_end(self, epochs):
        assert self.said(epochs=epochs).endswith(", until stopped")


class TestAfterFit:
    def said(self, monitor, score, checkpoint, folder=None, options=""):
        text = summary.after_fit(
            monitor=monitor, score=score, train_acc=None, checkpoint=str(checkpoint),
            test_options=options, curves=folder, table=None,
        )  # fmt: skip
        return shown(text, width=500).splitlines()

    def test_says_what_came_out_and_what_to_type_next(self, here):
        run = here / "runs" / "Net" / "version_0"
        assert self.said("val/acc", 0.98765, run / "best.ckpt", run) == [
            "Best validation accuracy: 98.77 %",
            "Checkpoint: runs/Net/version_0/best.ckpt",
            "Test it:    mnist-zoo test --ckpt_path runs/Net/version_0/best.ckpt",
            "Curves:     tensorboard --logdir runs/Net/version_0",
        ]

    def test_names_the_value_that_was_watched(self):
        assert self.said("val/loss", 0.12345, "a.ckpt")[0] == "Best validation loss: 0.1235"
        assert self.said("train/acc", 0.5, "a.ckpt")[0] == "Best train/acc: 50.00 %"
        assert self.said("val_[/x]", 0.5, "a.ckpt")[0] == "Best val_[/x]: 0.5000"

    def test_a_folder_with_a_space_is_quoted(self, here):
        lines = self.said(None, None, here / "my runs" / "last.ckpt", options=" --model a.B")
        assert lines[1] == "Test it:    mnist-zoo test --ckpt_path 'my runs/last.ckpt' --model a.B"

    def test_a_folder_with_brackets_is_shown_as_it_is(self, here):
        lines = self.said(None, None, here / "[red]runs" / "last.ckpt")
        assert lines[0] == "Checkpoint: '[red]runs/last.ckpt'"

    def test_a_folder_elsewhere_is_shown_from_the_root(self, here, monkeypatch):
        (here / "inside").mkdir()
        monkeypatch.chdir(here / "inside")
        assert self.said(None, None, here / "a.ckpt")[0] == f"Checkpoint: {here / 'a.ckpt'}"


class TestMetricsTable:
    def cells(self, *arguments):
        table = shown(summary.metrics_table(*arguments))
        return [
            [cell.strip() for cell in line.strip("│ ").split("│")]
            for line in table.splitlines()
            if line.startswith("│")
        ]

    def test_shows_accuracy_loss_and_each_class_by_its_name(self):
        metrics = {"test/acc": 0.9943, "test/loss": 0.02, "test/acc/0": 1.0, "test/acc/1": 0.5}
        table = shown(summary.metrics_table("Title", "test", metrics, ["zero", "one"]))
        assert table.splitlines()[0].strip() == "Title"
        assert self.cells("Title", "test", metrics, ["zero", "one"]) == [
            ["accuracy", "99.43 %"],
            ["loss", "0.0200"],
            ["accuracy on zero", "100.00 %"],
            ["accuracy on one", "50.00 %"],
        ]

    def test_shows_no_classes_that_were_not_measured(self):
        metrics = {"val/acc": 0.5, "val/loss": 1.0}
        assert "accuracy on" not in shown(summary.metrics_table("T", "val", metrics, ["a", "b"]))

    def test_shows_what_a_network_of_ones_own_logs(self):
        metrics = {"test/acc": 0.5, "test_[/x]": 0.9943, "test/acc/0": 0.5, "seconds": 1234.5}
        assert self.cells("T", "test", metrics, ["zero"]) == [
            ["accuracy", "50.00 %"],
            ["test_[/x]", "0.9943"],
            ["seconds", "1234.5"],
            ["accuracy on zero", "50.00 %"],
        ]

    def test_shows_names_as_they_are(self):
        table = summary.metrics_table("[/t]", "test", {"test/acc/0": 1.0}, ["[/x]"])
        assert shown(table).splitlines()[0].strip() == "[/t]"
        assert "accuracy on [/x] │ 100.00 %" in shown(table)


def test_names_of_pictures_are_printed_as_they_are():
    file = Path("pictures/explain-a [red]b.png")
    assert shown(summary.pictures([file])).split(None, 1)[1] == f"pictures ({file.name})\n"
