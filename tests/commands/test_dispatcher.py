"""``mnist-zoo`` itself: help, version, and what each command loads."""

import contextlib
import errno
import io
import os
import subprocess
import sys

import pytest

import mnist_zoo
from mnist_zoo.__main__ import COMMANDS, main

# Prints which of the slow libraries a command has loaded.
_LOADED = """
import sys
from mnist_zoo.__main__ import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("loaded:", *[name for name in ("torch", "lightning", "torchvision", "sklearn", "scipy") if name in sys.modules])
"""  # noqa: E501


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (OSError(errno.ENOENT, "No such file", "a.txt"), 2, "error: a.txt: No such file.\n"),
        (OSError(errno.ENOSPC, "No space left"), 1, "error: cannot write: No space left.\n"),
        (OSError(errno.EPIPE, "Broken pipe"), 1, ""),
    ],
)
def test_errors_of_the_system_end_in_a_line(tmp_path, monkeypatch, error, status, text):
    def fail(argv):
        raise error

    monkeypatch.setattr("mnist_zoo.commands.models.main", fail)
    said = io.StringIO()
    with (
        (tmp_path / "out").open("w") as out,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(said),
    ):
        assert main(["models"]) == status
    assert said.getvalue() == text


def test_a_folder_that_was_deleted_is_told(tmp_path, zoo):
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os, sys; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); " + (
        "from mnist_zoo.__main__ import main; sys.exit(main(['models']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("error: the current folder cannot be read: ")


def test_help_names_every_command(cli):
    for argument in ("--help", "-h", "help"):
        out = cli(argument).out
        for command, (_, text) in COMMANDS.items():
            (line,) = [line for line in out.splitlines() if line.split()[:1] == [command]]
            assert text in line


def test_nothing_is_answered_by_help(cli):
    assert "usage: mnist-zoo COMMAND" in cli(status=2).out


def test_the_examples_of_the_help_are_commands(cli):
    lines = cli("--help").out.partition("examples:")[2].strip().splitlines()
    assert len(lines) >= 3
    for line in lines:
        program, command = line.split()[:2]
        assert program == "mnist-zoo"
        assert command in COMMANDS


def test_version(cli):
    assert cli("--version").out == f"mnist-zoo {mnist_zoo.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(cli, command):
    result = cli(command, "--help")
    usage = result.out.splitlines()[0]
    assert usage.startswith("usage: mnist-zoo ")
    assert f" {command} " in usage
    assert result.err == ""


def test_help_of_a_network_shows_its_options(cli):
    out = cli("fit", "--model.help", "ConvNetDropout").out
    for text in ("num_hidden", "Number of neurons in each hidden layer", "weight_decay"):
        assert text in out
    assert out.startswith("fit takes these defaults only where the recipe ConvNetDropout ")
    assert "`" not in out
    assert "usage:" not in out


@pytest.mark.parametrize(
    "arguments",
    [
        "--help", "--version", "tset", "models Nothing*", "models --help", "data --help",
        "data to-txt", "fit", "fit --model ConvNetDroput", "fit --config ConvNetRelu", "test",
    ],
)  # fmt: skip
def test_what_trains_nothing_is_answered_without_torch(arguments):
    result = subprocess.run(
        [sys.executable, "-c", _LOADED, *arguments.split()],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert result.stdout.splitlines()[-1] == "loaded:", result.stderr


def test_models_needs_torch_only_to_count_what_no_recipe_states():
    # The table loads rich; the plugins that may be installed here are counted by torch.
    code = "from mnist_zoo import registry\nregistry.plugins = lambda: []\n" + _LOADED
    result = subprocess.run(
        [sys.executable, "-c", code, "models"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "ConvNetReLU" in result.stdout
    assert result.stdout.splitlines()[-1] == "loaded:"


@pytest.mark.parametrize("arguments", ["models", "models --markdown", "--help", "data --help"])
def test_a_closed_pipe_is_no_error(arguments):
    # `mnist-zoo models | head -n 0`; with this variable, nothing is held back until the end.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    reader, writer = os.pipe()
    os.close(reader)  # before there is a writer: a slow machine changes nothing
    with subprocess.Popen(
        [sys.executable, "-m", "mnist_zoo", *arguments.split()],
        stdout=writer, stderr=subprocess.PIPE, env=environment,
    ) as process:  # fmt: skip
        os.close(writer)
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 1


def test_closed_output_is_no_error():
    command = f"{sys.executable} -m mnist_zoo models >&-"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.slow
def test_the_installed_command_answers_a_mistake_in_plain_words(zoo):
    result = zoo("fit", "--model=Dense", "--data=Digits", "--trainer.max_epoch=3")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == (
        "error: unknown option --trainer.max_epoch. Did you mean --trainer.max_epochs?\n"
        "For all options: mnist-zoo fit --help\n"
    )


def test_ctrl_c_ends_any_command_without_a_traceback(cli, monkeypatch):
    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr("mnist_zoo.commands.models.main", interrupted)
    result = cli("models", status=130)
    assert (result.out, result.err) == ("", "Stopped.\n")


def test_a_file_that_may_not_be_read_is_told_by_any_command(cli, monkeypatch):
    def refused(argv):
        raise PermissionError(errno.EACCES, "Permission denied", "secret.png")

    monkeypatch.setattr("mnist_zoo.commands.models.main", refused)
    result = cli("models", status=2)
    assert (result.out, result.err) == ("", "error: secret.png: Permission denied.\n")


@pytest.mark.parametrize(
    "command", ["demo", "models A", "export --ckpt_path=a", "fit --model=Dense", "sweep Dense"]
)
def test_an_empty_argument_is_told(cli, command):
    error = cli(*command.split(), "", status=2).err
    assert error.splitlines()[0] == "error: an argument is empty: is a shell variable unset?"


@pytest.mark.parametrize(
    "command",
    [
        "test --ckpt_path=nowhere.ckpt", "predict --ckpt_path=nowhere.ckpt a.png",
        "explain --ckpt_path=nowhere.ckpt", "export --ckpt_path=nowhere.ckpt --out=a.onnx",
        "demo --ckpt_path=nowhere.ckpt",
    ],
)  # fmt: skip
def test_a_checkpoint_that_is_missing_is_told_before_torch_is_imported(cli, monkeypatch, command):
    # The module that reads checkpoints, and imports torch.
    monkeypatch.delattr("mnist_zoo.models.checkpoint", raising=False)
    monkeypatch.setitem(sys.modules, "mnist_zoo.models.checkpoint", None)
    error = cli(*command.split(), status=2).err
    assert error.startswith("error: checkpoint nowhere.ckpt does not exist. ")
