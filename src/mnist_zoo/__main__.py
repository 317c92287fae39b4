"""``mnist-zoo``: passes its arguments to one command and imports only that."""

from __future__ import annotations

import errno
import importlib
import io
import os
import signal
import sys
from pathlib import Path

from mnist_zoo.errors import ZooError, did_you_mean, printable

# Command, module in mnist_zoo.commands, what it does.
COMMANDS = {
    "fit": ("training.command", "train a network"),
    "validate": ("training.command", "evaluate a checkpoint on the validation images"),
    "test": ("training.command", "evaluate a checkpoint on the test images"),
    "predict": ("predict", "read the digits in pictures, or in the test images"),
    "export": ("export", "write a trained network for other programs"),
    "models": ("models", "list the networks, their recipes and figures"),
    "sweep": ("sweep.command", "train recipes over several seeds, and record the figures"),
    "results": ("results", "print the recorded figures"),
    "plot": ("plot", "draw the curves of several runs in one figure"),
    "explain": ("explain", "draw the filters of a network, and the pixels behind its answers"),
    "demo": ("demo", "open a page to draw digits on"),
    "data": ("data", "convert data sets to text files"),
}

# What users of other projects may type.
_ELSEWHERE = {
    "train": "fit", "eval": "test", "evaluate": "test", "list": "models", "infer": "predict",
    "serve": "demo", "convert": "data", "tensorboard": "tensorboard --logdir runs",
}  # fmt: skip

_HELP = """\
usage: mnist-zoo COMMAND [options]

Train, test and compare networks for MNIST.

commands:
{commands}

  mnist-zoo COMMAND --help   all options of a command
  mnist-zoo --version        the installed version

examples:
  mnist-zoo models
  mnist-zoo fit --model ConvNetReLU --trainer.max_epochs 1
  mnist-zoo fit --config ConvNetReLU-digits            (nothing to download)
  mnist-zoo test --ckpt_path runs/ConvNetReLU/version_0/checkpoints/best.ckpt
  mnist-zoo predict digit.png                          (with installed weights)
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status.

    Returns:
        That of the command, 0 if all went well; 2 for a user error, 130 after Ctrl-C, 1 for an
        error of ours.
    """
    arguments = sys.argv[1:] if argv is None else argv
    # A shell may start a program with its output closed (>&-).
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names may hold what a terminal cannot show.
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run_in_plain_words(arguments)
        finally:
            # Flush here: errors at interpreter exit could not be caught.
            print(end="", flush=True)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        # Otherwise Python would try again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.ENOSPC:
            print(f"error: cannot write: {error.strerror}.", file=sys.stderr)
        # Otherwise the reader of our output is gone, as in `mnist-zoo models | head`.
        return 1


def _run_in_plain_words(arguments: list[str]) -> int:
    """Run one command; report errors that the user can fix in a line or two."""
    try:
        Path.cwd()
    except OSError as error:
        print(f"error: the current folder cannot be read: {error.strerror}.", file=sys.stderr)
        return 2
    try:
        return _run(arguments)
    except ZooError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {printable(str(error.filename))}: {error.strerror}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        # A second one would end Python before this is printed.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("Stopped.", file=sys.stderr)
        return 130  # what shells take for "ended by Ctrl-C"


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS))
        lines = [f"  {name:{width}}   {text}" for name, (_, text) in COMMANDS.items()]
        print(_HELP.format(commands="\n".join(lines)), end="")
        return 0 if arguments else 2
    command = arguments[0]
    if command == "--version":
        from mnist_zoo import __version__

        print(f"mnist-zoo {__version__}")
        return 0
    if command not in COMMANDS:
        kind = "option" if command.startswith("-") else "command"
        guessed = _ELSEWHERE.get(command)
        hint = f" Did you mean {guessed}?" if guessed else did_you_mean(command, COMMANDS)
        raise ZooError(f"unknown {kind} {command}.{hint}\nAll commands: mnist-zoo --help")
    module = importlib.import_module(f"mnist_zoo.commands.{COMMANDS[command][0]}")
    # Lightning's command line serves three of the commands, and is told which.
    rest = arguments if COMMANDS[command][0] == "training.command" else arguments[1:]
    status: int = module.main(rest)
    return status


if __name__ == "__main__":
    sys.exit(main())
