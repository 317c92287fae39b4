"""``predict`` with pictures: what is printed, what is told of pictures that cannot be read."""

import csv
import errno
import io
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console

import mnist_zoo
from mnist_zoo import data, registry
from mnist_zoo.commands.shared import digits
from mnist_zoo.models import checkpoint, checkpoint_files
from mnist_zoo.report import pictures as drawing
from mnist_zoo.report.predictions import DIGITS, Prediction, table


def drawn(text):
    picture = Image.new("L", (100 * len(text) + 60, 180), 255)
    for n, digit in enumerate(text):
        font = ImageFont.load_default(110)
        ImageDraw.Draw(picture).text((50 + 100 * n, 20), digit, font=font, fill=30)
    return picture


@pytest.fixture
def pictures(tmp_path):
    """A folder with two pictures, one of which holds three digits, and something else."""
    folder = tmp_path / "scans"
    folder.mkdir()
    drawn("305").save(folder / "b.png")
    drawn("8").convert("RGB").save(folder / "a.JPG", "JPEG")
    (folder / "notes.txt").write_text("no picture")
    return folder


def rows(out):
    return list(csv.DictReader(io.StringIO(out)))


def test_the_pictures_of_a_folder_come_in_the_order_of_their_names(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "iterdir", lambda folder: (folder / f"{n}.png" for n in "bdac"))
    names = [Path(name).stem for name, _ in digits._sources([str(tmp_path)])]
    assert names == ["a", "b", "c", "d"]


def test_weights_that_are_installed_read_pictures(cli, pictures):
    result = cli("predict", "scans", pictures / "a.JPG")
    lines = [line.split() for line in result.out.splitlines()]
    assert lines[0] == ["file", "digit", "probability", "next", "best"]
    assert lines[1][:2] == ["scans/a.JPG", "8"]
    assert lines[2][:4] == ["scans/b.png", "3", "0", "5"]
    assert not result.err


def test_csv_has_a_line_a_digit(cli, pictures):
    found = rows(cli("predict", "scans", "--format=csv").out)
    assert [(row["file"], row["number"], row["prediction"]) for row in found] == [
        ("scans/a.JPG", "0", "8"),
        *(("scans/b.png", str(n), digit) for n, digit in enumerate("305")),
    ]
    for row in found:
        probabilities = [float(row[f"p{n}"]) for n in range(10)]
        assert sum(probabilities) == pytest.approx(1, abs=1e-4)
        assert float(row["probability"]) == max(probabilities)
        assert 0 <= int(row["left"]) < int(row["right"]) <= 360


def test_json_says_what_python_says(cli, pictures, trained):
    found = json.loads(
        cli("predict", "scans/a.JPG", "--format=json", "--ckpt_path", trained.best).out
    )
    (digit,) = found[0]["digits"]
    expected = mnist_zoo.load(trained.best).predict(Image.open(pictures / "a.JPG"))[0]
    assert digit["probabilities"] == expected.tolist()
    assert digit["prediction"] == int(expected.argmax())
    assert found[0]["file"] == "scans/a.JPG"


def test_standard_input_is_read(cli, pictures, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO((pictures / "a.JPG").read_bytes()))
    monkeypatch.setattr(sys, "stdin", stream)
    assert rows(cli("predict", "-", "--format=csv").out)[0]["prediction"] == "8"


def test_empty_standard_input_is_told(cli, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert cli("predict", "-", status=2).err == "-: standard input is empty.\n"


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_a_checkpoint_is_no_picture(cli, command):
    error = cli(command, "best.ckpt", status=2).err
    assert error.startswith("best.ckpt: not a picture. Did you mean --ckpt_path best.ckpt?\n")


def test_json_says_which_pictures_could_not_be_read(cli, pictures):
    files = ["missing.png", "scans/a.JPG", "scans/notes.txt"]
    result = cli("predict", *files, "--format=json", status=1)
    found = json.loads(result.out)
    assert [picture["file"] for picture in found] == files
    assert found[0] == {"file": "missing.png", "error": "there is no such file."}
    assert found[1]["digits"][0]["prediction"] == 8
    assert found[2]["error"].startswith("not a picture")
    assert result.err.count("\n") == 2
    (failed,) = json.loads(cli("predict", files[0], "--format=json", status=2).out)
    assert set(failed) == {"file", "error"}


@pytest.mark.parametrize("columns", ["", "60"])
def test_a_picture_is_a_line_of_the_table(cli, pictures, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    name = f"{'long ' * 30}.png"
    drawn("3053053053").save(pictures / name)
    lines = cli("predict", "scans").out.splitlines()
    assert len(lines) == 1 + 3
    (line,) = [line for line in lines if line.startswith(f"scans/{name} ")]
    assert line.rstrip().endswith(" %")
    assert line.count("%") == 1


def test_what_cannot_be_read_is_told_and_the_rest_is_read(cli, pictures, tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "cut.png").write_bytes((pictures / "b.png").read_bytes()[:100])
    Image.new("L", (50, 50)).save(tmp_path / "blank.png")
    (tmp_path / "nothing").mkdir()
    bad = ["empty.png", "text.png", "cut.png", "blank.png", "nothing", "missing.png"]
    result = cli("predict", *bad, "scans/a.JPG", "--format=csv", status=1)
    assert [line.partition(":")[0] for line in result.err.splitlines()] == bad
    assert [row["prediction"] for row in rows(result.out)] == ["8"]
    result = cli("predict", *bad, status=2)
    assert len(result.err.splitlines()) == len(bad)
    assert result.out == ""


def test_as_is_takes_pictures_whole(cli, pictures):
    (row,) = rows(cli("predict", "scans/b.png", "--as_is", "--format=csv").out)
    assert [row[edge] for edge in ("left", "top", "right", "bottom")] == ["0", "0", "360", "180"]


def test_the_sheet_says_which_picture_a_digit_is_of(cli, pictures, monkeypatch):
    drawn = []

    def gallery(images, captions, title):
        drawn.append((len(images), list(captions), title))
        return drawing.Figure()

    monkeypatch.setattr(drawing, "gallery", gallery)
    cli("predict", "scans", "--save_sheet=seen.png")
    cli("predict", "scans/a.JPG", "--save_sheet=seen.png")
    (num, captions, title), (one, alone, its_title) = drawn
    assert num == len(captions) > one == len(alone)
    assert title == ""
    assert {caption.partition("\n")[2] for caption in captions} >= {"a.JPG", "b.png"}
    assert its_title == "a.JPG"
    assert alone[0].startswith("8  ")
    assert "\n" not in alone[0]


def test_the_sheet_takes_names_in_any_letters(cli, pictures, tmp_path, recwarn):
    picture = tmp_path / ("\u6570\u5b57\t\n" * 20 + ".png")
    drawn("8").save(picture)
    cli("predict", picture, "--save_sheet=seen.png")
    assert not [w for w in recwarn if "Glyph" in str(w.message)]
    assert Image.open(tmp_path / "seen.png").width < 1200
    assert drawing.shortened(digits.drawable("a\nb\x1b.png")) == r"a b\x1b.png"


def test_the_sheet_does_not_replace_what_is_read(cli, tmp_path):
    Image.new("L", (28, 28)).save(tmp_path / "four.png")
    before = (tmp_path / "four.png").read_bytes()
    for given in (".", "four.png"):
        cli("predict", given, "--save_sheet=four.png", status=2)
    error = cli("predict", "four.png", "--save_sheet=four.png", status=2).err
    assert error == "error: four.png is one of the pictures to read, and would be overwritten.\n"
    assert (tmp_path / "four.png").read_bytes() == before


def test_pictures_of_other_kinds_in_a_folder_are_told(cli, pictures, tmp_path):
    for name in ("IMG_1.HEIC", "IMG_2.avif"):
        (tmp_path / "scans" / name).touch()
    told = "scans: pictures of other kinds left out: IMG_1.HEIC, IMG_2.avif\n"
    assert cli("predict", "scans").err == told


def test_options_of_test_images_do_not_go_with_pictures(cli, pictures):
    error = cli("predict", "scans/b.png", "--data.root=x", status=2).err
    assert "options are for the test images: leave them out" in error


def test_the_sheet_shows_what_the_network_saw(cli, pictures, tmp_path):
    result = cli("predict", "scans", "--save_sheet=seen.png")
    assert "seen.png" in result.err
    sheet = Image.open(tmp_path / "seen.png")
    assert sheet.width > 400
    assert sheet.convert("L").getextrema() == (0, 255)
    cli("predict", "scans/a.JPG", "--save_sheet=one.png")
    assert Image.open(tmp_path / "one.png").width > 100
    for file, said in (
        ("scans/b.png/x.png", "cannot write scans/b.png/x.png: "),
        ("a.jpg", "end in .png"),
    ):
        assert said in cli("predict", "scans", f"--save_sheet={file}", status=2).err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("", "which pictures?"),
        ("a.png --frmat=csv", "unknown option --frmat. Did you mean --format?"),
        ("a.png --ckpt_path=ConvNetRelu", "Did you mean ConvNetReLU?"),
        ("a.png --ckpt_path=missing.ckpt", "missing.ckpt does not exist"),
        ("a.png --ckpt_path=", "--ckpt_path is empty: name a file."),
        ("a.png --model=Dense", "--model Dense does not fit --ckpt_path: "),
        ("a.png --model=nowhere.Net --ckpt_path=ConvNetReLU", "is a checkpoint of ConvNetReLU."),
        ("a.png --format=xml", "invalid choice: 'xml'"),
        ("--data=Digits", "which checkpoint?"),
    ],
)
def test_mistakes_are_told(cli, arguments, text):
    result = cli("predict", *arguments.split(), status=2)
    assert text in result.err
    assert len(result.err.splitlines()) <= 2


def test_an_empty_word_is_not_the_current_folder(cli, pictures, monkeypatch):
    monkeypatch.chdir(pictures)
    result = cli("predict", "", "a.JPG", status=2)
    assert (result.out, len(result.err.splitlines())) == ("", 1)
    assert "the name of a picture is empty" in result.err


def test_a_network_that_diverged_reads_nothing(cli, pictures, diverged):
    result = cli("predict", "scans", "--ckpt_path", diverged, status=2)
    assert result.out == ""
    assert result.err == (
        "error: ConvNetReLU returns NaN or infinity: its training has diverged.\n"
    )


def test_a_run_that_cannot_be_written_is_told_before_the_test_images_are_read(
    cli, copied, monkeypatch
):
    def refused(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    monkeypatch.setattr(data.Digits, "predict_dataloader", None)
    result = cli("predict", "--ckpt_path", copied.best, status=2)
    assert result.err.startswith(f"error: cannot write to {copied.folder}: Permission denied.\n")


def test_help_tells_both_forms(cli):
    out = cli("predict", "--help").out
    assert "--save_sheet" in out
    assert "Without IMAGE" in out
    assert "Exit status: 0 if all" in out
    assert '{"file": ..., "error": ...}' in out


@pytest.mark.mnist
def test_test_images_saved_as_pictures_are_read_as_tensors_are(mnist_root):
    images, targets = data.MNIST(root=mnist_root).load(train=False)
    images, targets = images[:1000], targets[:1000]
    pictures = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(image.numpy()).save(stream, "PNG")
        pictures.append(Image.open(stream))
    network = checkpoint.load(checkpoint_files.find(None))
    read = network.predict(pictures)
    assert torch.equal(read, network.predict(images))
    assert (read.argmax(dim=1) == targets).float().mean() > 0.97


@pytest.mark.slow
def test_digits_of_other_sources_are_read():
    images, targets = data.Digits(val_size=0).load(train=True)
    network = checkpoint.load(checkpoint_files.find(None))
    right = total = 0
    for image, target in zip(images[:200], targets, strict=False):
        picture = Image.new("L", (400, 300), 30)
        picture.paste(
            Image.fromarray(image.numpy()).resize((200, 200)).point(lambda v: v or 30), (100, 50)
        )
        right += int(network.predict(picture).argmax()) == target
        total += 1
    assert right / total > 0.85


@pytest.mark.mnist
@pytest.mark.parametrize("name", sorted(registry.shipped_weights()))
def test_weights_are_as_accurate_as_they_say(name, mnist_root):
    weights = checkpoint.read(registry.shipped_weights()[name])
    images, targets = data.MNIST(root=mnist_root).load(train=False)
    assert weights.record["test_data"] == "MNIST"
    assert weights.record["num_test_images"] == len(targets) == 10_000
    read = checkpoint.build(weights).predict(images).argmax(dim=1)
    assert int((read == targets).sum()) / len(targets) == weights.record["test_acc"]


def test_weights_are_small():
    files = registry.shipped_weights().values()
    assert files
    assert sum(file.stat().st_size for file in files) < 5_000_000


def test_options_may_stand_between_the_pictures(cli, pictures):
    found = rows(cli("predict", "scans/a.JPG", "--format", "csv", "scans/b.png").out)
    assert [row["prediction"] for row in found] == list("8305")


def test_closed_standard_input_is_empty(cli, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input is empty" in cli("predict", "-", status=2).err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="file names elsewhere are text")
def test_a_file_name_that_no_terminal_can_show_costs_nothing(zoo, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8:strict")
    drawn("8").save(tmp_path / "a.png")
    with open(os.fsencode(tmp_path / "b") + b"\xff.png", "wb") as file:  # noqa: PTH123
        file.write((tmp_path / "a.png").read_bytes())
    result = zoo("predict", ".")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 3


def test_classes_have_the_names_that_they_have_in_the_data(cli, trained, pictures, tmp_path):
    content = torch.load(trained.best, weights_only=True)
    content["mnist_zoo"]["data"] = {"class_path": "mnist_zoo.data.FashionMNIST", "init_args": {}}
    torch.save(content, tmp_path / "fashion.ckpt")
    lines = cli("predict", "--ckpt_path=fashion.ckpt", "scans/a.JPG").out.splitlines()
    assert lines[0].split()[:2] == ["file", "class"]
    assert any(name in lines[1] for name in data.FashionMNIST.classes)


def test_classes_of_data_of_ones_own_have_their_names(cli, pictures, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from mnist_zoo.data import Digits\n\n\n"
        "class Letters(Digits):\n    classes = tuple('ABCDEFGHIJ')\n"
    )
    cli(
        "fit",
        "--model=Dense",
        "--data=mine.Letters",
        "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu",
    )
    best = tmp_path / "runs/Dense/version_0/checkpoints/best.ckpt"
    cli("export", "--ckpt_path", best, "--out=x.safetensors")
    for file in (best, "x.safetensors"):
        # That ``fit`` says to name the data changes nothing here.
        given = ("predict", "scans/a.JPG", "--data", "mine.Letters", "--ckpt_path", file)
        out = cli(*given).out
        assert out.splitlines()[0].split()[1] == "class"
        assert out.splitlines()[1].split()[1] in "ABCDEFGHIJ"
        (row,) = rows(cli(*given, "--format=csv").out)
        assert row["class"] == "ABCDEFGHIJ"[int(row["prediction"])]


@pytest.mark.parametrize("command", ["predict", "explain", "export --format=state_dict --measure"])
def test_a_checkpoint_calls_nothing_that_is_no_data_set(cli, trained, tmp_path, command):
    content = torch.load(trained.best, weights_only=True)
    target = tmp_path / "precious.txt"
    target.write_text("mine")
    arguments = {"path": str(target), "images": torch.zeros(1, 28, 28), "targets": torch.zeros(1)}
    content["mnist_zoo"]["data"] = {
        "class_path": "mnist_zoo.data.write_text",
        "init_args": arguments,
    }
    torch.save(content, tmp_path / "evil.ckpt")
    name, *flags = command.split()
    pictures = ["a.png"] if name != "export" else []
    cli(name, "--ckpt_path=evil.ckpt", *flags, *pictures, status=2)
    assert target.read_text() == "mine"


def test_json_is_json_whatever_the_terminal_can_show(cli, tmp_path, monkeypatch):
    drawn("3").save(tmp_path / "é.png")
    out = cli("predict", "--format=json", "é.png").out
    assert out.isascii()
    assert json.loads(out)[0]["file"] == "é.png"


def test_a_name_that_no_file_can_have_leaves_the_others_to_be_read(cli, pictures):
    result = cli("predict", pictures / "a.JPG", "x" * 300, status=1)
    assert "a.JPG" in result.out
    assert "cannot be read (File name too long)" in result.err or "no such file" in result.err


def test_of_many_digits_in_one_picture_only_the_lowest_probability_is_shown(cli, tmp_path):
    drawn("305305").save(tmp_path / "many.png")
    _, line = cli("predict", "many.png").out.splitlines()
    assert line.split()[:7] == ["many.png", *"305305"]
    assert "at least " in line
    assert line.count("%") == 1


def test_of_many_digits_that_are_all_certain_nothing_is_said_twice():
    certain = Prediction((0, 0, 9, 9), [1 - 9e-6, *[1e-6] * 9])
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table([("a.png", [certain] * 7)], DIGITS))
    assert ">99.9 %" in capture.get()
    assert "at least" not in capture.get()


def test_predictions_that_are_no_numbers_are_not_written(cli, diverged, tmp_path):
    error = cli("predict", f"--ckpt_path={diverged}", status=2).err
    assert error.startswith("error: ConvNetReLU returns NaN or infinity: its training has diverged")
    assert not list(tmp_path.rglob("predictions.csv"))


def test_a_stream_has_no_name_to_complain_of(cli, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hello")))
    assert cli("predict", "-", status=2).err.startswith("-: not a picture that can be read")
