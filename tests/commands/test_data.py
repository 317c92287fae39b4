import subprocess
import sys

import pytest
import torch

from mnist_zoo.commands.data import main
from mnist_zoo.data import MNIST, Digits, expand, read_text
from mnist_zoo.errors import ZooError


def to_text(*args):
    return main(["to-text", *map(str, args)])


def test_writes_a_split(tmp_path, capsys):
    out = tmp_path / "some digits.txt"
    assert to_text(out, "--data", "Digits", "--num", 30) == 0
    data = Digits()
    data.setup("fit")
    images, targets = read_text(out)
    assert torch.equal(images, data.splits["train"][0][:30])
    assert torch.equal(targets, data.splits["train"][1][:30])
    assert out.read_text().startswith("# 30 images of Digits (train)")
    assert capsys.readouterr().out == (
        f"Wrote 30 images of Digits (train) to {out}\n"
        "Train on it: mnist-zoo fit --model ConvNetReLU"
        f" --data TextFile --data.train_file '{out}'\n"
    )


def test_relative_path_and_test_split(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    to_text("t.txt", "--data=Digits", "--split=test")
    assert len(read_text("t.txt")[0]) == 360
    assert f"--data.test_file {tmp_path / 't.txt'}\n" in capsys.readouterr().out


def test_validation_split_and_val_size(tmp_path):
    to_text(tmp_path / "v", "--data=Digits", "--split=validation", "--val_size=0.5")
    to_text(tmp_path / "t", "--data=Digits", "--val_size=0")
    assert len(read_text(tmp_path / "v")[0]) == 718
    images, targets = Digits().load(train=True)
    assert torch.equal(read_text(tmp_path / "t")[0], images)
    assert torch.equal(read_text(tmp_path / "t")[1], targets)


def test_expanded(tmp_path):
    to_text(tmp_path / "five", "--data=Digits", "--num=3", "--expanded")
    to_text(tmp_path / "one", "--data=Digits", "--num=3")
    expanded = expand(*read_text(tmp_path / "one"))
    assert all(map(torch.equal, read_text(tmp_path / "five"), expanded))


OWN = """
import torch
from mnist_zoo.data import ImageData

class Marks(ImageData):
    def load(self, train):
        return torch.full((20, 28, 28), 7, dtype=torch.uint8), torch.arange(20) % 10
"""


def test_data_of_ones_own(cli, tmp_path):
    (tmp_path / "own_marks.py").write_text(OWN)
    cli("data", "to-text", "marks.txt", "--data=own_marks.Marks", "--val_size=5")
    images, _ = read_text(tmp_path / "marks.txt")
    assert images.shape == (15, 28, 28)
    assert (images == 7).all()
    error = cli("data", "to-text", "x", "--data=own_marks.Marks", "--root=y", status=2).err
    assert "--root: own_marks.Marks has no such option" in error


def test_keeps_an_existing_file_unless_forced(tmp_path):
    out = tmp_path / "mine"
    out.write_text("precious")
    with pytest.raises(ZooError, match=r"mine exists already\.\n.*--force"):
        to_text(out, "--data=Digits")
    assert out.read_text() == "precious"
    to_text(out, "--data=Digits", "--num=1", "--force")
    assert len(read_text(out)[0]) == 1


@pytest.mark.parametrize(("out", "reason"), [("no/x", "there is no folder "), (".", "Is a dir")])
def test_what_cannot_be_written_is_told_before_the_work(tmp_path, monkeypatch, out, reason):
    monkeypatch.setattr("mnist_zoo.commands.data._to_text", None)
    with pytest.raises(ZooError, match=rf"^cannot write .*: {reason}.*\nName another file\.$"):
        to_text(tmp_path / out, "--force")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--data=FashonMNIST"], r"--data FashonMNIST: .* Did you mean FashionMNIST\?\nThere are"),
        (["--data=TextFile"], "--data TextFile: there is no such data set"),
        (["--data=Digits", "--root=x"], "--root: Digits has no such option"),
        (["--data=nowhere.Mine"], "no module nowhere for nowhere.Mine"),
        (["--data=os.environ"], "--data os.environ: not a data set .a subclass of ImageData"),
        (["--data=mnist_zoo.data.ImageData"], "mnist_zoo.data.ImageData: lacks load, which"),
        (["--data=Digits", "--num=0"], r"--num 0: must be from 1 to 1,293, .* of Digits \(train\)"),
        (["--data=Digits", "--num=1294"], "--num 1294: "),
        (["--data=Digits", "--val_size=2000"], r"--data\.val_size 2000: leaves none"),
        (["--data=Digits", "--val_size=many"], "many: expected a number of images, or a fraction"),
        (["--data=Digits", "--split=validation", "--val_size=0"], "nothing to validate on"),
        (["--data=Digits", "--split=tset"], "--split: invalid choice: 'tset'"),
        (["--data=Digits", "extra"], "unknown argument extra"),
        (["--spilt=test"], r"unknown option --spilt\. Did you mean --split\?"),
    ],
)
def test_errors(tmp_path, args, message):
    with pytest.raises(ZooError, match=message):
        to_text(tmp_path / "out", *args)
    assert not list(tmp_path.iterdir())


def test_help_is_instant():
    code = (
        "import sys; from mnist_zoo.commands.data import main\n"
        "try: main(['to-text', '--help'])\n"
        "except SystemExit: assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: mnist-zoo data ")


@pytest.mark.mnist
def test_the_first_images_of_mnist(tmp_path, mnist_root):
    to_text(tmp_path / "a", "--root", mnist_root, "--val_size=0", "--num=1000")
    images, targets = MNIST(root=str(mnist_root)).load(train=True)
    assert torch.equal(read_text(tmp_path / "a")[0], images[:1000])
    assert torch.equal(read_text(tmp_path / "a")[1], targets[:1000])
