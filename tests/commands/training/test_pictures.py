"""The pictures that fit, validate and test leave beside a run."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from mnist_zoo.commands.shared import run_pictures
from mnist_zoo.data import Digits
from mnist_zoo.engine.readings import Examples, Readings
from mnist_zoo.report.events import read_scalars

ON_CPU = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")
EVALUATION = ("confusion", "classes", "sheet", "wrong")


def names(folder):
    return {file.name for file in folder.iterdir()}


def words(figure):
    """Everything written on a figure."""
    texts = [figure.get_suptitle()]
    for axes in figure.axes:
        texts += [axes.get_title("left"), axes.get_xlabel(), axes.get_ylabel()]
        texts += [text.get_text() for text in axes.texts]
    return texts


def shown_by_tensorboard(run_folder):
    (file,) = run_folder.glob("events.*.evaluation")
    return set(EventAccumulator(str(file)).Reload().Tags()["images"])


@pytest.mark.parametrize("command", ["test", "validate"])
def test_an_evaluation_leaves_pictures_in_the_run_and_in_its_tensorboard(cli, copied, command):
    before = {*copied.folder.iterdir()}
    out = cli(command, f"--ckpt_path={copied.best}", *ON_CPU, "--pictures=true").out
    folder = copied.folder / "pictures"
    assert {f"{command}-{name}.png" for name in EVALUATION} <= names(folder)
    assert "Pictures:   runs/ConvNetReLU/version_0/pictures (" in out
    (file,) = {*copied.folder.glob("events.*.evaluation")} - before
    events = EventAccumulator(str(file)).Reload()
    assert set(events.Tags()["images"]) == {f"{command}/{name}" for name in EVALUATION}
    steps = torch.load(copied.best, weights_only=True)["global_step"]
    assert steps > 0
    assert {image.step for tag in events.Tags()["images"] for image in events.Images(tag)} == {
        steps
    }
    scalars = {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }
    if command == "validate":
        assert scalars == {}
    else:
        assert set(scalars) == {"test/acc", "test/loss"}
        ((step, acc),) = scalars["test/acc"]
        assert step == steps
        assert f"{100 * acc:.2f} %" in out


@pytest.mark.parametrize(
    "flags",
    [
        ["--data.num_test=10"],
        ["--trainer.limit_test_batches=1"],
        ["--data.num_test=100", "--trainer.limit_test_batches=1"],
    ],
)
def test_figures_of_a_part_of_the_test_images_are_not_those_of_the_run(
    cli, copied, flags, monkeypatch
):
    monkeypatch.setattr(Digits, "eval_batch_size", 60)
    cli("test", f"--ckpt_path={copied.best}", *ON_CPU, *flags)
    assert "test/acc" not in read_scalars(copied.folder)
    assert (copied.folder / "pictures" / "test-sheet.png").exists()


def test_those_of_other_data_replace_nothing_of_the_run(cli, copied, tmp_path):
    cli("test", f"--ckpt_path={copied.best}", *ON_CPU)
    folder = copied.folder / "pictures"
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    figures = read_scalars(copied.folder)["test/acc"]
    cli("data", "to-text", "other.txt", "--data=Digits", "--split=test", "--num=50")
    other = "--data=TextFile", "--data.test_file=other.txt"
    cli("test", f"--ckpt_path={copied.best}", *other, *ON_CPU)
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert "test-on-TextFile-other-sheet.png" in names(folder)
    assert read_scalars(copied.folder)["test/acc"] == figures


def test_those_of_a_checkpoint_outside_a_run_lie_below_the_current_folder(cli, trained, tmp_path):
    shutil.copy(trained.best, tmp_path / "other.ckpt")
    out = cli("test", "--ckpt_path=other.ckpt", *ON_CPU).out
    assert "Pictures:   pictures/other (test-confusion.png, " in out
    assert names(tmp_path / "pictures" / "other") == {f"test-{name}.png" for name in EVALUATION}
    assert names(tmp_path) == {"pictures", "other.ckpt"}


@pytest.mark.parametrize("flag", ["--pictures=false", "--trainer.fast_dev_run=true"])
def test_none_are_drawn_where_none_are_wanted(cli, copied, flag):
    before = {*copied.folder.rglob("*")}
    assert "Pictures" not in cli("test", f"--ckpt_path={copied.best}", *ON_CPU, flag).out
    assert {*copied.folder.rglob("*")} == before


def test_a_folder_that_takes_no_pictures_costs_nothing_but_a_warning(cli, copied):
    shutil.rmtree(copied.folder / "pictures", ignore_errors=True)
    (copied.folder / "pictures").write_text("a file")
    out = cli("test", f"--ckpt_path={copied.best}", *ON_CPU).out
    assert "accuracy on 9" in out
    assert "warning: no pictures: cannot write" in out


def test_where_nothing_is_wrong_any_more_no_mistakes_of_before_are_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request = SimpleNamespace(ckpt_path="other.ckpt", subcommand="test", checkpoint=None)
    first = Examples(torch.zeros(10, 28, 28), torch.eye(10), torch.arange(10))
    right = torch.eye(10, dtype=torch.int64)
    mistake = Examples(*(part[3:4] for part in first))
    one_wrong = right + torch.eye(10, dtype=torch.int64).roll(1, 0) * (torch.arange(10) == 3)
    none = Examples(*(part[:0] for part in first))
    for readings, drawn in (
        (Readings(one_wrong, first, mistake), {*EVALUATION}),
        (Readings(right, first, none), {*EVALUATION} - {"wrong"}),
    ):
        run_pictures.after_evaluation(readings, {}, tuple("0123456789"), "Net", request)
        assert names(tmp_path / "pictures" / "other") == {f"test-{name}.png" for name in drawn}


def test_what_was_read_and_what_it_was_are_not_mixed_up():
    counts = torch.zeros(10, 10, dtype=torch.int64)
    counts[0, 0], counts[8, 8], counts[8, 1] = 6, 1, 3  # three eights read as ones
    one = Examples(torch.zeros(1, 28, 28), torch.eye(10)[[1]], torch.tensor([8]))
    figures = run_pictures.of_evaluation(Readings(counts, one, one), tuple("0123456789"), "Net")
    places = {t.get_text(): t.get_position() for t in figures["confusion"].axes[0].texts}
    assert places["3"] == (1, 8), "columns are what was read"
    shares = words(figures["classes"])
    assert "Net: 70.00 %" in shares
    assert "25.00 %   3 of 4 wrong" in shares
    assert any(text.endswith("1 (8)") for text in words(figures["sheet"]))
    assert "Net: the most confident 1 of 3 wrong, predicted (true)" in words(figures["wrong"])
    counts[8, 1] = 1
    figures = run_pictures.of_evaluation(Readings(counts, one, one), tuple("0123456789"), "Net")
    assert "Net: the only one wrong, predicted (true)" in words(figures["wrong"])


def test_fit_leaves_its_curves(fit, tmp_path):
    out = fit("--trainer.limit_train_batches=2", "--pictures=true").out
    folder = tmp_path / "runs" / "ConvNetReLU" / "version_0" / "pictures"
    assert names(folder) == {"fit-curves.png"}
    assert "Pictures:   runs/ConvNetReLU/version_0/pictures (fit-curves.png)" in out
    assert shown_by_tensorboard(folder.parent) == {"fit/curves"}


def test_what_explains_a_run_stands_in_its_tensorboard(cli, copied):
    cli("explain", f"--ckpt_path={copied.best}", "--num=1")
    assert shown_by_tensorboard(copied.folder) == {"explain/saliency", "explain/filters"}


def test_without_event_files_there_are_none(fit, tmp_path):
    out = fit("--trainer.limit_train_batches=2", "--pictures=true", "--trainer.logger=false").out
    assert "Pictures" not in out
    assert not (tmp_path / "runs/ConvNetReLU/version_0/pictures").exists()


def test_curves_are_drawn_over_the_number_of_epochs(trained):
    figure = run_pictures.of_fit(trained.folder, "ConvNetReLU")["curves"]
    loss, accuracy = figure.axes
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss", "accuracy")
    assert [line.get_label() for line in loss.get_lines()] == ["training", "validation"]
    assert accuracy.get_lines()[1].get_xdata().tolist() == [1, 2, 3]


def test_curves_are_of_what_was_logged(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        for epoch in range(2):
            writer.add_scalar("val/acc", 0.5, epoch)
            writer.add_scalar("epoch", epoch, epoch)
    (accuracy,) = run_pictures.of_fit(tmp_path, "Own")["curves"].axes
    assert accuracy.get_ylabel() == "accuracy"
    assert [line.get_label() for line in accuracy.get_lines()] == ["validation"]


class TestTestCurve:
    def test_is_drawn_only_when_asked_for_and_says_that_it_chose_nothing(self, fit, tmp_path):
        fit("--test_curve=true", epochs=2)
        run = tmp_path / "runs" / "ConvNetReLU" / "version_0"
        figure = run_pictures.of_fit(run, "ConvNetReLU")["test-curve"]
        assert any("Nothing was chosen by it" in text for text in words(figure))
        assert figure.axes[0].get_lines()[0].get_xdata().tolist() == [1, 2]

    def test_is_not_there_unasked(self, trained):
        assert list(run_pictures.of_fit(trained.folder, "")) == ["curves"]

    @pytest.mark.parametrize("monitor", ["test_curve/acc", "test/acc"])
    def test_cannot_choose_the_best_weights(self, fit, monitor, tmp_path):
        result = fit("--test_curve=true", f"--best.monitor={monitor}", status=2)
        assert result.err == (
            f"error: --best.monitor {monitor}: the test images choose nothing.\n"
            "Choose by val/acc or val/loss.\n"
        )
        assert list(tmp_path.iterdir()) == []
