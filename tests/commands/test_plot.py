"""Curves of several runs in one figure: which runs share a line, and what the legend says."""

import pytest
import yaml
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from mnist_zoo.commands import plot


def write_run(
    folder,
    *,
    values=(0.5, 0.7),
    tag="val/acc",
    model="ConvNetReLU",
    seed=0,
    counts=True,
    **settings,
):
    """Write the configuration and the curve of a run; ``None`` for ``model``: no configuration."""
    folder.mkdir(parents=True)
    with SummaryWriter(folder) as writer:
        for epoch, value in enumerate(values):
            step = 10 * (epoch + 1) - 1
            writer.add_scalar(tag, value, step)
            if counts:
                writer.add_scalar("epoch", epoch, step)
    if model is not None:
        config = {
            "seed_everything": seed,
            "trainer": {"max_epochs": len(values), "accelerator": "cpu"},
            "model": {"class_path": f"mnist_zoo.models.{model}", "init_args": settings},
            "data": {"class_path": "mnist_zoo.data.Digits", "init_args": {"root": str(folder)}},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder


@pytest.fixture
def drawn(cli, monkeypatch):
    """Run ``plot``; return its output and the figure that it drew."""
    figures = []
    draw = plot._figure
    monkeypatch.setattr(plot, "_figure", lambda *args: figures.append(draw(*args)) or figures[-1])

    def run(*arguments):
        return cli("plot", *arguments).out, figures[-1]

    return run


def legend(figure):
    texts = figure.legends[0].get_texts()
    return [text.get_text().replace("\N{NO-BREAK SPACE}", " ") for text in texts]


def test_networks_of_ones_own_that_are_called_alike_have_lines_of_their_own(drawn, tmp_path):
    for module in ("one", "other"):
        config = write_run(tmp_path / "runs" / module) / "config.yaml"
        settings = yaml.safe_load(config.read_text())
        settings["model"]["class_path"] = f"{module}.Net"
        config.write_text(yaml.safe_dump(settings))
    _, figure = drawn("runs")
    assert legend(figure) == ["one.Net", "other.Net"]


def test_runs_that_differ_by_their_seed_share_a_line(drawn, tmp_path):
    for seed in range(3):
        write_run(tmp_path / f"runs/a{seed}", seed=seed, lr=0.1, values=(0.1 * seed, 0.5))
    write_run(tmp_path / "runs/b", lr=0.2)
    out, figure = drawn("runs")
    assert out == "4 runs in 2 lines: plot.png\n"
    assert legend(figure) == ["lr 0.1", "lr 0.2"]
    (axes,) = figure.axes
    assert axes.get_lines()[0].get_ydata() == pytest.approx([0.1, 0.5])
    assert axes.get_lines()[0].get_xdata().tolist() == [1, 2]
    assert len(axes.collections) == 1
    with Image.open(tmp_path / "plot.png") as image:
        assert image.format == "PNG"


def test_the_legend_names_what_differs_and_nothing_else(drawn, tmp_path):
    write_run(tmp_path / "a", lr=0.1, optimizer="SGD", optimizer_args={"momentum": 0.9})
    write_run(tmp_path / "b", lr=0.1, optimizer="SGD", optimizer_args={"momentum": 0.5})
    write_run(tmp_path / "c", lr=0.1, optimizer="SGD", model="Dense", num_hidden=30)
    _, figure = drawn("a", "b", "c", "--out=some.png")
    assert legend(figure) == ["ConvNetReLU, momentum 0.9", "ConvNetReLU, momentum 0.5", "Dense"]
    assert (tmp_path / "some.png").is_file()


def test_a_dollar_sign_in_the_legend_is_no_formula(drawn, tmp_path):
    write_run(tmp_path / "a", optimizer="$_$")
    write_run(tmp_path / "b", optimizer="SGD")
    assert legend(drawn("a", "b")[1]) == ["optimizer $_$", "optimizer SGD"]


def test_the_legend_leaves_out_what_changes_no_curve(drawn, tmp_path):
    for number, folder in enumerate("ab"):
        file = write_run(tmp_path / folder, lr=number + 1) / "config.yaml"
        config = yaml.safe_load(file.read_text())
        config["trainer"] |= {
            "enable_progress_bar": bool(number),
            "logger": {"class_path": "TensorBoardLogger", "init_args": {"version": number}},
        }
        config["data"]["init_args"] |= {"download": bool(number), "num_test": number}
        file.write_text(yaml.safe_dump({**config, "pictures": bool(number)}))
    assert legend(drawn("a", "b")[1]) == ["lr 1", "lr 2"]


def test_what_only_one_data_set_has_is_not_in_the_legend(drawn, tmp_path):
    write_run(tmp_path / "a")
    file = write_run(tmp_path / "b") / "config.yaml"
    config = yaml.safe_load(file.read_text())
    config["data"] = {"class_path": "mnist_zoo.data.MNIST", "init_args": {"num_train": 500}}
    file.write_text(yaml.safe_dump(config))
    assert legend(drawn("a", "b")[1]) == ["Digits", "MNIST"]


@pytest.mark.parametrize(
    ("setting", "rows"), [("lr", 1), ("a_setting_whose_name_is_as_long_as_they_come", 3)]
)
def test_the_legend_lies_within_the_figure(drawn, tmp_path, setting, rows):
    for number in range(3):
        write_run(tmp_path / str(number), **{setting: number})
    _, figure = drawn("0", "1", "2")
    extent = figure.legends[0].get_window_extent()
    assert extent.x0 >= 0
    assert extent.x1 <= figure.bbox.width
    texts = figure.legends[0].get_texts()
    assert len({round(text.get_window_extent().y0) for text in texts}) == rows


def test_a_single_run_is_named_by_its_network(drawn, tmp_path):
    write_run(tmp_path / "a", lr=0.1)
    assert legend(drawn("a")[1]) == ["ConvNetReLU"]


def test_a_run_without_configuration_is_named_by_its_folder(drawn, tmp_path):
    write_run(tmp_path / "a", model=None)
    write_run(tmp_path / "b", model=None)
    assert legend(drawn("a", "b")[1]) == ["a", "b"]


def test_the_usual_tags_or_those_asked_for(drawn, trained):
    def tags(figure):
        return [axes.get_ylabel() for axes in figure.axes]

    assert tags(drawn(trained.folder)[1]) == ["train/loss", "val/acc"]
    assert tags(drawn(trained.folder, "--tag=val/loss")[1]) == ["val/loss"]
    assert tags(drawn(trained.folder, "--tag=val/loss", "--tag", "lr-SGD")[1]) == [
        "val/loss",
        "lr-SGD",
    ]


def test_a_curve_of_the_test_images_says_that_it_chose_nothing(drawn, tmp_path):
    write_run(tmp_path / "a", tag="test_curve/acc")
    (axes,) = drawn("a", "--tag=test_curve/acc")[1].axes
    assert axes.get_title("left") == "nothing was chosen by it"


@pytest.mark.parametrize(("counts", "xlabel", "x"), [(True, "epoch", 1), (False, "step", 9)])
def test_runs_are_drawn_over_epochs_if_all_say_theirs(drawn, tmp_path, counts, xlabel, x):
    write_run(tmp_path / "a", lr=1)
    write_run(tmp_path / "b", lr=2, counts=counts)
    (axes,) = drawn("a", "b")[1].axes
    assert axes.get_xlabel() == xlabel
    assert [line.get_xdata()[0] for line in axes.get_lines()] == [x, x]


def test_a_run_that_lacks_a_tag_is_left_out(cli, tmp_path):
    write_run(tmp_path / "a", lr=1)
    write_run(tmp_path / "b", tag="val/loss", lr=2)
    result = cli("plot", "a", "b", "--tag=val/loss")
    assert result.err == "warning: a has no val/loss to draw\n"


def test_only_what_is_drawn_is_counted(cli, tmp_path):
    write_run(tmp_path / "runs" / "a", lr=1)
    write_run(tmp_path / "runs" / "b", lr=2, tag="other")
    (tmp_path / "runs" / "c").mkdir()
    (tmp_path / "runs" / "c" / "config.yaml").write_text("trainer: {logger: false}")
    result = cli("plot", "runs")
    assert result.out == "1 run in 1 line: plot.png\n"
    assert result.err == (
        "warning: runs/c was trained without TensorBoard, and has nothing to draw\n"
        "warning: runs/b has no val/acc to draw\n"
    )


class TestErrors:
    def test_no_such_folder(self, cli, copied):
        result = cli("plot", "runs/ConvNetRelu/version_0", status=2)
        assert result.err == (
            "error: runs/ConvNetRelu/version_0: there is no such folder."
            " Did you mean runs/ConvNetReLU/version_0?\n"
        )

    def test_a_folder_or_file_that_is_no_run(self, cli, tmp_path):
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").write_text("")
        assert "empty: holds no curves" in cli("plot", "empty", status=2).err
        assert "file: a file, not the folder of a run." in cli("plot", "file", status=2).err

    def test_a_run_without_logger(self, cli, tmp_path):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "config.yaml").write_text("trainer: {logger: false}")
        assert "without TensorBoard (--trainer.logger)" in cli("plot", "run", status=2).err

    def test_unknown_tag(self, cli, tmp_path):
        write_run(tmp_path / "a")
        result = cli("plot", "a", "--tag=val/ac", status=2)
        assert result.err == (
            "error: --tag val/ac: no run has it. Did you mean val/acc?\nThere are epoch, val/acc.\n"
        )

    def test_events_without_values(self, cli, tmp_path):
        SummaryWriter(tmp_path / "a").close()
        assert "their event files hold no values" in cli("plot", "a", status=2).err

    def test_values_that_are_no_numbers(self, cli, tmp_path):
        write_run(tmp_path / "a", values=(float("nan"),))
        assert "finite" in cli("plot", "a", "--tag=val/acc", status=2).err

    @pytest.mark.parametrize("out", ["plot.jpg", "file/plot.png"])
    def test_where_it_cannot_be_written(self, cli, tmp_path, out):
        write_run(tmp_path / "a")
        (tmp_path / "file").write_text("")
        before = {*tmp_path.iterdir()}
        assert out in cli("plot", "a", f"--out={out}", status=2).err
        assert {*tmp_path.iterdir()} == before


def test_headings_say_what_a_band_and_losses_are(drawn, tmp_path):
    for seed in range(2):
        write_run(tmp_path / f"runs/ConvNetReLU/version_{seed}", seed=seed, tag="val/loss")
    _, figure = drawn("runs", "--tag=val/loss")
    assert figure.axes[0].get_title("left") == "mean, lowest to highest"
    write_run(tmp_path / "runs/Dense/version_0", model="Dense", tag="val/loss")
    _, figure = drawn("runs", "--tag=val/loss")
    assert figure.axes[0].get_title("left") == (
        "mean, lowest to highest\nnetworks may use different losses"
    )


def test_the_same_run_under_two_names_is_drawn_once(cli, tmp_path):
    run = write_run(tmp_path / "runs" / "a")
    assert cli("plot", "runs/a", run).out.startswith("1 run in 1 line: ")
