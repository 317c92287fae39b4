"""The argument parser of the commands other than Lightning's, with plain errors."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from mnist_zoo import registry
from mnist_zoo.errors import EMPTY_ARGUMENT, ZooError, did_you_mean
from mnist_zoo.files import expanded


class Parser(argparse.ArgumentParser):
    """``ArgumentParser`` without abbreviations, whose errors are one line with a suggestion."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise ``ZooError`` with a suggestion for an unknown flag, without the usage text."""
        prefix = "unrecognized arguments: "
        if message.startswith(prefix):
            rest = message.removeprefix(prefix)
            if not rest.strip():
                raise ZooError(EMPTY_ARGUMENT)
            word = rest.split()[0].split("=")[0]
            kind = "option" if word.startswith("-") else "argument"
            message = f"unknown {kind} {word}.{did_you_mean(word, self._option_string_actions)}"
        raise ZooError(f"{message}\nFor all options: {self.prog} --help")


def add_checkpoint(parser: Parser, required: bool = False) -> None:
    """Add the flags that name a network: a checkpoint, and its class if that is the user's own."""
    default = f" (default: installed weights of {registry.DEFAULT_WEIGHTS})" * (not required)
    parser.add_argument(
        "--ckpt_path", metavar="FILE", required=required, help=f"checkpoint or weights{default}"
    )
    parser.add_argument("--model", metavar="CLASS", help="class of your own that FILE is of")


def add_root(parser: Parser, use: str = "") -> None:
    """Add the flag for where the data sets lie, also under the name that messages of them use."""
    parser.add_argument(
        "--root",
        "--data.root",
        metavar="DIR",
        help=f"folder of all data sets{use} (default: $MNIST_ZOO_DATA, else data)",
    )


def add_data(parser: Parser, use: str) -> None:
    """Add the flags that name a checkpoint's data, which are of use only for some purpose."""
    parser.add_argument(
        "--data", metavar="CLASS", help=f"its data, {use}, if that is a class of your own"
    )
    add_root(parser, f", {use}")


def png_file(word: str) -> Path:
    """Return the path of a picture to write.

    Raises:
        ArgumentTypeError: Its name does not end in .png.
    """
    if Path(word).suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(
            f"{word}: the picture is a PNG file, so its name must end in .png."
        )
    return expanded(word)
