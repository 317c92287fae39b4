"""The command line in the process of the tests, which is fast, and a small run to look at."""

import contextlib
import errno
import io
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from mnist_zoo.__main__ import main

# A network that learns something on the built-in digits within seconds.
QUICK = (
    "--data=Digits",
    "--data.batch_size=32",
    "--model.lr=0.1",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--pictures=false",
)


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Trained:
    """A run, and what the command line said of it."""

    folder: Path
    out: str

    @property
    def best(self) -> Path:
        return self.folder / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"


@contextlib.contextmanager
def alone_in(folder: Path):
    """Run in a folder, and undo at the end what a command leaves in its process."""
    modules = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [entry for entry in sys.path if entry])
        for name in ("MNIST_ZOO_DATA", "MNIST_ZOO_RUN", "LOCAL_RANK"):
            patch.setenv(name, "")
            del os.environ[name]
        yield
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


def run(*arguments) -> Result:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:  # --help and --print_config
            status = end.code or 0
    return Result(status, out.getvalue(), err.getvalue())


@pytest.fixture
def cli(tmp_path):
    """Run the command line in ``tmp_path``, expecting a status; None for any."""

    def expect(*arguments, status=0) -> Result:
        result = run(*arguments)
        assert status in (None, result.status), result.out + result.err
        return result

    with alone_in(tmp_path):
        yield expect


@pytest.fixture
def fit(cli):
    """Train a network for some epochs, quickly, on the built-in digits."""

    def expect(*arguments, model="ConvNetReLU", epochs=1, status=0) -> Result:
        epochs = f"--trainer.max_epochs={epochs}"
        return cli("fit", f"--model={model}", *QUICK, epochs, *arguments, status=status)

    return expect


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Trained:
    """A run of three epochs of ConvNetReLU on the built-in digits; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    with alone_in(folder):
        result = run("fit", "--model=ConvNetReLU", *QUICK, "--trainer.max_epochs=3")
    assert result.status == 0, result.out + result.err
    run_folder = folder / "runs" / "ConvNetReLU" / "version_0"
    # Whatever order tests come in: test and validate add pictures and figures to a run.
    shutil.copytree(run_folder, folder / "untouched")
    return Trained(run_folder, result.out)


@pytest.fixture
def diverged(trained, tmp_path) -> Path:
    """A checkpoint of that run, its weights no numbers any more."""
    content = torch.load(trained.best, weights_only=True)
    for weights in content["state_dict"].values():
        weights.fill_(torch.nan)
    file = tmp_path / "diverged.ckpt"
    torch.save(content, file)
    return file


@pytest.fixture
def copied(trained, tmp_path) -> Trained:
    """A copy of that run, as it was when trained, in the folder in which ``cli`` runs."""
    folder = tmp_path / "runs" / "ConvNetReLU" / "version_0"
    untouched = trained.folder.parents[2] / "untouched"
    return Trained(shutil.copytree(untouched, folder), trained.out)


@pytest.fixture
def fill_up(monkeypatch):
    """Let folders of a name take no file, as on a disk that is full."""
    temporary_file = tempfile.TemporaryFile

    def fill(name):
        def refuse(**kwargs):
            if kwargs["dir"].name == name:
                raise OSError(errno.ENOSPC, "No space left on device")
            return temporary_file(**kwargs)

        monkeypatch.setattr(tempfile, "TemporaryFile", refuse)

    return fill
