"""Filters of a network, and the pixels that its answers rest on."""

import io
import os
import shutil
import sys

import pytest
import torch
from PIL import Image
from torch import nn

from mnist_zoo.commands import explain
from mnist_zoo.data import Digits
from mnist_zoo.models import Classifier, ConvNetReLU, Dense, MLPDropout
from mnist_zoo.report import pictures

BOTH = {"explain-filters.png", "explain-saliency.png"}


def names(folder):
    return {file.name for file in folder.iterdir()}


def test_draws_the_first_test_images_into_the_run(cli, copied):
    out = cli("explain", f"--ckpt_path={copied.best}", "--num=3").out
    assert names(copied.folder / "pictures") >= BOTH
    assert out == (
        "Pictures:   runs/ConvNetReLU/version_0/pictures"
        " (explain-saliency.png, explain-filters.png)\n"
    )


def test_the_heading_says_what_stands_beside_an_answer(cli, trained, tmp_path, monkeypatch):
    headings = []
    saliency = pictures.saliency

    def draw(images, shares, captions, heading):
        headings.append(heading)
        return saliency(images, shares, captions, heading)

    monkeypatch.setattr(pictures, "saliency", draw)
    picture = Image.new("L", (60, 60), 255)
    picture.paste(0, (25, 10, 33, 50))
    picture.save(tmp_path / "digit.png")
    for source in ("--num=1", "digit.png"):
        cli("explain", f"--ckpt_path={trained.best}", source, "--out=drawn")
    assert [heading.partition(",")[0] for heading in headings] == [
        "ConvNetReLU: predicted (true)",
        "ConvNetReLU: predicted (file)",
    ]


def test_what_was_read_comes_before_what_it_was(monkeypatch):
    captions = []
    monkeypatch.setattr(
        pictures, "saliency", lambda images, shares, said, heading: captions.extend(said)
    )
    torch.manual_seed(0)
    network, images = ConvNetReLU().eval(), torch.zeros(1, 28, 28, dtype=torch.uint8)
    (answer,) = network.predict(images).argmax(dim=1).tolist()
    explain._figures(network, tuple("abcdefghij"), images, ["what it was"], "true")
    assert captions == [f"{'abcdefghij'[answer]} (what it was)"]


def test_of_a_checkpoint_outside_a_run_below_the_current_folder(cli, trained, tmp_path):
    shutil.copy(trained.best, tmp_path / "other.ckpt")
    cli("explain", "--ckpt_path=other.ckpt", "--num=1")
    assert names(tmp_path / "pictures" / "other") == BOTH


def test_into_a_folder_that_is_named(cli, copied, tmp_path):
    cli("explain", f"--ckpt_path={copied.best}", "--num=1", "--out=drawn/here")
    assert names(tmp_path / "drawn" / "here") == BOTH
    assert not list(copied.folder.glob("pictures/explain-*"))


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_drawn(
    cli, trained, tmp_path, monkeypatch
):
    monkeypatch.setattr(explain, "_figures", None)
    (tmp_path / "file").touch()
    assert cli("explain", f"--ckpt_path={trained.best}", "--out=file/here", status=2).err == (
        "error: cannot write to file/here: Not a directory.\nGive another folder: --out FOLDER\n"
    )


class TestImages:
    @pytest.fixture(autouse=True)
    def four(self, tmp_path):
        """A picture of a four, dark on light."""
        picture = Image.new("L", (60, 60), 255)
        for x, y, width, height in ((15, 10, 6, 25), (15, 30, 30, 6), (36, 10, 6, 42)):
            picture.paste(0, (x, y, x + width, y + height))
        picture.save(tmp_path / "four.png")

    def test_are_read_from_files(self, cli, copied):
        cli("explain", f"--ckpt_path={copied.best}", "four.png")
        drawn = {"explain-filters.png", "explain-saliency-four.png"}
        assert names(copied.folder / "pictures") >= drawn

    def test_are_read_from_folders_and_standard_input(self, cli, tmp_path, monkeypatch):
        content = (tmp_path / "four.png").read_bytes()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        cli("explain", "--ckpt_path=ConvNetReLU", ".", "-")
        assert "explain-saliency-four-and-1-more.png" in names(
            tmp_path / "pictures" / "ConvNetReLU"
        )

    def test_are_explained_by_installed_weights(self, cli, tmp_path):
        cli("explain", "--ckpt_path=ConvNetReLU", "four.png")
        assert "explain-saliency-four.png" in names(tmp_path / "pictures" / "ConvNetReLU")

    def test_need_no_data_of_ones_own(self, fit, cli, tmp_path):
        own = (
            "from mnist_zoo.data import Digits\nclass Own(Digits):\n    classes = [*'ABCDEFGHIJ']\n"
        )
        (tmp_path / "own_letters.py").write_text(own)
        fit("--data=own_letters.Own", "--trainer.limit_train_batches=2")
        checkpoint = "--ckpt_path=runs/ConvNetReLU/version_0/checkpoints/best.ckpt"
        cli("explain", checkpoint, "four.png")
        assert "name it: --data own_letters.Own\n" in cli("explain", checkpoint, status=2).err
        cli("explain", checkpoint, "--data=own_letters.Own", "--num=1")
        drawn = BOTH | {"explain-saliency-four.png"}
        assert names(tmp_path / "runs/ConvNetReLU/version_0/pictures") == drawn

    def test_may_be_called_what_is_no_text(self, cli, tmp_path):
        name = os.fsdecode(b"\xff4.png")
        try:
            shutil.copy(tmp_path / "four.png", tmp_path / name)
        except OSError as error:
            pytest.skip(f"such a name cannot be given here: {error.strerror}")
        cli("explain", "--ckpt_path=ConvNetReLU", name)
        assert f"explain-saliency-{name}" in names(tmp_path / "pictures" / "ConvNetReLU")

    def test_may_be_called_what_a_terminal_would_obey(self, cli, tmp_path):
        try:
            shutil.copy(tmp_path / "four.png", tmp_path / "a\x1b[31m\n.png")
        except OSError as error:
            pytest.skip(f"such a name cannot be given here: {error.strerror}")
        result = cli("explain", "--ckpt_path=ConvNetReLU", "a\x1b[31m\n.png")
        assert "\x1b" not in result.out
        drawn = names(tmp_path / "pictures" / "ConvNetReLU")
        assert "explain-saliency-a\\x1b[31m .png" in drawn

    def test_leave_other_pictures_alone(self, cli, copied, tmp_path):
        shutil.copy(tmp_path / "four.png", tmp_path / "again.png")
        cli("explain", f"--ckpt_path={copied.best}", "--num=1")
        cli("explain", f"--ckpt_path={copied.best}", "four.png")
        cli("explain", f"--ckpt_path={copied.best}", "four.png", "again.png")
        drawn = BOTH | {"explain-saliency-four.png", "explain-saliency-four-and-1-more.png"}
        assert names(copied.folder / "pictures") >= drawn

    def test_one_that_cannot_be_read_does_not_stop_the_others(self, cli, copied, tmp_path):
        (tmp_path / "damaged.png").write_bytes(b"no picture")
        Image.new("L", (60, 60), 255).save(tmp_path / "empty.png")
        files = ("damaged.png", "empty.png", "four.png")
        result = cli("explain", f"--ckpt_path={copied.best}", *files, status=1)
        assert [line.partition(":")[0] for line in result.err.splitlines()] == [*files[:2]]
        assert "explain-saliency-four.png" in names(copied.folder / "pictures")

    def test_none_that_can_be_read(self, cli, copied):
        result = cli("explain", f"--ckpt_path={copied.best}", "missing.png", status=2)
        assert "missing.png" in result.err
        assert result.err.endswith("error: no digit was found to explain.\n")


@pytest.mark.parametrize(
    ("network", "shape"), [(ConvNetReLU(), (20, 1, 5, 5)), (MLPDropout(), (512, 784))]
)
def test_the_first_layer_is_the_one_that_the_image_meets_first(network, shape):
    assert explain._first_weights(network, torch.rand(1, 1, 28, 28)).shape == shape


def test_the_first_layer_need_not_be_the_first_one_named():
    class Backwards(Classifier):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(30, 10)
            self.first = nn.Linear(784, 30)

        def forward(self, images):
            return self.last(self.first(images.flatten(1)))

    assert explain._first_weights(Backwards(), torch.rand(1, 1, 28, 28)).shape == (30, 784)


OWN = """
from torch import nn
from mnist_zoo.models import Classifier

class Pooled(Classifier):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.layers = nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(49, 10))
"""


def test_a_network_of_ones_own_whose_first_layer_is_no_picture(fit, cli, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    fit("--trainer.limit_train_batches=2", model="own.Pooled")
    checkpoint = "runs/Pooled/version_0/checkpoints/best.ckpt"
    assert "--model own.Pooled" in cli("explain", f"--ckpt_path={checkpoint}", status=2).err
    out = cli("explain", f"--ckpt_path={checkpoint}", "--model=own.Pooled", "--num=1").out
    assert "The first layer of Pooled cannot be drawn" in out
    assert names(tmp_path / "runs/Pooled/version_0/pictures") == {"explain-saliency.png"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--ckpt_path=missing.ckpt",), "missing.ckpt does not exist"),
        (("--ckpt_path=missing.ckpt", "--num=17"), "must be from 1 to 16"),
    ],
)
def test_says_what_is_wrong(cli, arguments, said):
    assert said in cli("explain", *arguments, status=2).err


def test_of_a_network_that_has_diverged_nothing_is_drawn(cli, diverged, tmp_path):
    said = "ConvNetReLU returns NaN or infinity: its training has diverged."
    assert said in cli("explain", f"--ckpt_path={diverged}", "--num=1", status=2).err
    assert names(tmp_path) == {diverged.name}


@pytest.mark.mnist
def test_the_data_may_be_in_another_folder(cli, tmp_path, mnist_root):
    cli("explain", "--ckpt_path=ConvNetReLU", "--num=1", f"--data.root={mnist_root}")
    assert names(tmp_path / "pictures" / "ConvNetReLU") == BOTH


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--data=MNIST", "--data MNIST does not fit --ckpt_path: "),
        ("--data=nowhere.Data", "best.ckpt is of Digits."),
        ("--root=x", "--root: Digits has no such option. Leave it out."),
        ("--model=Dense", "best.ckpt is a checkpoint of ConvNetReLU."),
    ],
)
def test_refuses_what_the_checkpoint_is_not_of(cli, trained, argument, said):
    assert said in cli("explain", f"--ckpt_path={trained.best}", argument, status=2).err


@pytest.mark.parametrize("module", ["", "mnist_zoo.data.", "mnist_zoo.data.datasets."])
def test_takes_the_data_of_the_checkpoint_by_their_name(cli, copied, module):
    cli("explain", f"--ckpt_path={copied.best}", "--num=1", f"--data={module}Digits")


def test_grey_is_half_way_between_paper_and_ink_however_they_are_normalised(monkeypatch):
    seen, explained = {}, []

    def gradients(network, images, classes, baseline):
        seen.update(lowest=float(images.min()), highest=float(images.max()), grey=baseline)
        explained.append(classes)
        return torch.zeros(len(images), 28, 28)

    monkeypatch.setattr("mnist_zoo.report.saliency.integrated_gradients", gradients)
    network = Dense().eval()
    network.pixel_mean, network.pixel_std = 0.1, 0.5
    images = torch.zeros(2, 28, 28, dtype=torch.uint8)
    images[:, 10:18, 13:15] = 255
    explain._figures(network, tuple("0123456789"), images, ["a", "b"], "true")
    assert seen == pytest.approx({"lowest": -0.2, "highest": 1.8, "grey": 0.8})
    (classes,) = explained
    assert torch.equal(classes, network.predict(images).argmax(dim=1)), "those that were read"


def test_the_first_test_images_are_shown_with_their_own_classes(cli, copied, monkeypatch):
    shown = []
    draw = explain._figures
    monkeypatch.setattr(explain, "_figures", lambda *args: shown.append(args[2:4]) or draw(*args))
    cli("explain", f"--ckpt_path={copied.best}", "--num=5")
    ((images, names),) = shown
    expected, targets = (part[:5] for part in Digits().load(train=False))
    assert torch.equal(images, expected)
    assert names == [str(target) for target in targets.tolist()]


def test_of_many_digits_as_many_are_drawn_as_have_room(tmp_path, capsys):
    picture = Image.new("L", (60, 60), 255)
    picture.paste(0, (20, 10, 27, 50))
    for number in range(17):
        picture.save(tmp_path / f"{number:02}.png")
    images, files, failed = explain._given([str(tmp_path)])
    assert len(images) == len(files) == 16
    assert not failed
    assert capsys.readouterr().err == "warning: only 16 of 17 digits are drawn\n"


@pytest.mark.parametrize("flag", ["--num=3", "--data=Digits", "--root=data"])
def test_what_is_for_test_images_is_refused_beside_pictures(cli, flag):
    error = cli("explain", "four.png", flag, status=2).err
    assert error.startswith("error: --")
    assert "leave" in error
    assert "or the pictures." in error
