"""The four made by hand, read by the network of its tutorial, with this package and without."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mnist_zoo.__main__ import main

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script, *arguments, cwd):
    command = [sys.executable, EXAMPLES / script, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def four(tmp_path):
    run("four.py", "four.png", cwd=tmp_path)
    return tmp_path / "four.png"


def test_it_is_drawn_as_published(four):
    pixels = np.asarray(Image.open(four))
    assert pixels.shape == (28, 28)
    # Later strokes win where they cross.
    assert [pixels[at] for at in ((5, 9), (22, 9), (9, 9), (18, 18), (14, 5))] == [
        180, 180, 250, 250, 200,
    ]  # fmt: skip
    assert pixels[14, 9] == pixels[14, 14] == 200
    assert np.count_nonzero(pixels) == 18 + 10 + 10 - 3


@pytest.mark.parametrize("script", ["plain_torch.py", "onnx_only.py", "four.py"])
def test_examples_import_nothing_of_ours(script):
    assert "mnist_zoo" not in (EXAMPLES / script).read_text().replace("mnist_zoo.models", "")
    assert "import mnist" not in (EXAMPLES / script).read_text()


@pytest.mark.parametrize("script", ["plain_torch.py", "onnx_only.py"])
def test_without_arguments_examples_say_how_they_are_used(script):
    if script == "onnx_only.py":
        pytest.importorskip("onnxruntime")
    done = subprocess.run([sys.executable, EXAMPLES / script], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"usage: {script} ")
    assert "Traceback" not in done.stderr


def test_help_is_shown_and_draws_nothing(tmp_path):
    assert run("four.py", "--help", cwd=tmp_path).startswith("usage: four.py ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("script", "content", "message"),
    [
        ("plain_torch.py", torch.nn.Linear(784, 10).state_dict(), "not a state_dict of ConvNetThr"),
        ("plain_torch.py", None, "not a state_dict of ConvNetThreeDense"),
        ("onnx_only.py", None, "missing, or not an ONNX file"),
    ],
)
def test_the_wrong_file_is_told_in_a_line(script, content, message, four, tmp_path):
    if script == "onnx_only.py":
        pytest.importorskip("onnxruntime")
    if content is None:
        (tmp_path / "weights.pt").write_bytes(b"\x08\x0aanother format")
    else:
        torch.save(content, tmp_path / "weights.pt")
    command = [sys.executable, EXAMPLES / script, "weights.pt", "four.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"weights.pt: {message}")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.mnist
def test_it_is_read_as_a_four(four, mnist_root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = ["--model=ConvNetThreeDense", "--data=MNIST", f"--data.root={mnist_root}"]
    sizes = ["--data.num_train=3000", "--data.val_size=500", "--data.batch_size=20"]
    quick = ["--model.lr=0.1", "--trainer.max_epochs=3", "--trainer.accelerator=cpu"]
    assert main(["fit", *recipe, *sizes, *quick, "--trainer.enable_progress_bar=false"]) == 0
    best = "--ckpt_path=runs/ConvNetThreeDense/version_0/checkpoints/best.ckpt"
    for flags in ([], ["--as_is"]):
        capsys.readouterr()
        assert main(["predict", best, "four.png", *flags]) == 0
        assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["four.png", "4"], flags
    assert main(["export", best, "--format=state_dict", "--out=weights.pt"]) == 0
    assert run("plain_torch.py", "weights.pt", "four.png", cwd=tmp_path).startswith("4 (")
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    assert main(["export", best, "--format=onnx", "--out=network.onnx"]) == 0
    out = run("onnx_only.py", "network.onnx", "four.png", cwd=tmp_path)
    assert out.startswith("four.png: 4 (")
