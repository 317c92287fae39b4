"""The parser of fit, validate, test and predict: its errors, its help, the flags of fit."""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn, Union, get_args

from jsonargparse import set_parsing_settings
from lightning.pytorch.cli import LightningArgumentParser

from mnist_zoo import data
from mnist_zoo.commands.training.parser_messages import in_plain_words
from mnist_zoo.engine.best_and_last import Best, Last
from mnist_zoo.errors import ZooError
from mnist_zoo.models import Classifier

# Dicts that an argument takes as they are, such as optimizer_args, must not instantiate objects.
set_parsing_settings(instantiate_subclass_spec_in_any=False)

# Usage and description of each command; the parser's own usage would list all options.
HELP = {
    "fit": (
        "mnist-zoo fit --model NAME [options]\n"
        "       mnist-zoo fit --config RECIPE|FILE [options]\n"
        "       mnist-zoo fit --ckpt_path LAST.CKPT [options]",
        "Train a network by its recipe or by a configuration, or resume a stopped run. The options"
        " of training and their defaults are listed below; for those of a network, see --model.help"
        " NAME, for those of a data set, --data.help NAME. All networks and recipes: mnist-zoo"
        " models",
    ),
    "validate": (
        "mnist-zoo validate --ckpt_path BEST.CKPT [options]",
        "Evaluate a checkpoint on the validation images.",
    ),
    "test": (
        "mnist-zoo test --ckpt_path BEST.CKPT [options]",
        "Evaluate a checkpoint on the test images.",
    ),
    "predict": (
        "mnist-zoo predict --ckpt_path BEST.CKPT [options]",
        "Write a checkpoint's predictions for the test images to a CSV file.",
    ),
}

# Help texts that replace Lightning's where these are wrong here: for fit, and for other commands;
# None hides the flag.
_FLAGS = {
    "--ckpt_path": ("Checkpoint of the run to resume.", "Checkpoint or weights."),
    "--trainer.default_root_dir": ("Folder of new runs; null means runs.", None),
    "--trainer.max_epochs": (
        "Stop after this many epochs; -1 for no limit. null means 10, unless a recipe, max_steps or"
        " max_time says otherwise.",
        None,
    ),
    "--trainer.max_steps": ("Stop after this many optimizer steps; -1 for no limit.", None),
    "--trainer.logger": (
        "Logger, or a list of them; null or true for TensorBoard, false for none.",
        "Logger, or a list of them; none unless named.",
    ),
    "--trainer.enable_progress_bar": 2
    * ("Whether to show a progress bar; null does so only in a terminal.",),
    # fit refuses them.
    "--trainer.enable_checkpointing": (None, None),
    "--trainer.barebones": (None, None),
    # They have no effect: only tensors and plain values are ever read, and the table is ours.
    "--weights_only": (None, None),
    "--verbose": (None, None),
}

_DEFAULT = re.compile(r"\s*Default:\s*(?:``[^`]*``|\d+)\.")
_MARKUP = (
    (re.compile(r":\w+:`~?(?:[\w.]+\.)?(\w+)`"), r"\1"),
    (re.compile(r"`+([^`]*)`+"), r"\1"),
    (re.compile(r"\bNone\b"), "null"),
)


class ZooParser(LightningArgumentParser):
    """LightningCLI's parser, without the pages of usage before each error."""

    subcommand = ""
    """The command whose arguments are parsed."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise ``ZooError`` with only the part of the message that says what is wrong."""
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        base = data.ImageData if 'Parser key "data' in message else Classifier
        text = in_plain_words(message, parser._option_string_actions, _subclasses(base))
        more = "" if "\n" in text else f"\nFor all options: mnist-zoo {self.subcommand} --help"
        raise ZooError(f"{text}{more}") from ex

    def print_help(self, *args: Any, **kwargs: Any) -> None:
        """Print the help of a class (``--model.help NAME``) as plainly as that of a command."""
        if getattr(self, "_inner_parser", False):
            self.usage = argparse.SUPPRESS
            _simplify_texts(self)
        super().print_help(*args, **kwargs)


def add_fit_arguments(parser: LightningArgumentParser) -> None:
    """Add the flags of ``fit`` other than those of trainer, network and data."""
    parser.add_lightning_class_args(Best, "best")
    parser.add_lightning_class_args(Last, "last")
    parser.add_argument(
        "--steps_per_execution",
        type=int | None,
        default=None,
        help="Optimizer steps per block; affects only speed. null chooses by the batch size.",
    )
    parser.add_argument(
        "--cuda_graph",
        type=bool | None,
        default=None,
        help="On a GPU, replay steps as CUDA graphs if possible; affects only speed, and the"
        " last digits by rounding. null does so for the zoo's networks; in a network of your own,"
        " nothing in a step may depend on the epoch.",
    )
    parser.add_argument(
        "--channels_last",
        type=bool | None,
        default=None,
        help="Store the weights of convolutions with the channel as the innermost dimension;"
        " affects only speed, and the last digits by rounding. null does so unless the other way is"
        " known to be faster: on a GPU in full precision, without batch norm. On Apple GPUs, some"
        " versions of PyTorch compute wrong gradients with it, so null does not use it there.",
    )
    parser.add_argument(
        "--average.decay",
        type=float | None,
        default=None,
        help="Keep and test a moving average of the weights with this decay, such as 0.98;"
        " null for the weights themselves.",
    )
    parser.add_argument(
        "--average.every_n_steps",
        type=int,
        default=1,
        help="Optimizer steps between updates of the average.",
    )
    parser.add_argument(
        "--test_curve",
        type=bool,
        default=False,
        help="Also log loss and accuracy on the test images after every epoch, for display"
        " only: nothing can be chosen by them.",
    )


def read_integers_as_such(parser: LightningArgumentParser) -> None:
    """Have the parser try int before float, as in the trainer's signature.

    ``limit_train_batches=1`` is one minibatch, 1.0 all of them. Lightning writes the two in both
    orders, and Python caches types, so that what was imported before decides the order here.
    """
    for action in parser._actions:
        kinds = get_args(getattr(action, "_typehint", None))
        if int in kinds and float in kinds[: kinds.index(int)]:
            others = [kind for kind in kinds if kind is not int]
            action._typehint = Union[(int, *others)]  # type: ignore[attr-defined]


def simplify_help(parser: LightningArgumentParser, subcommand: str) -> None:
    """Replace, hide or simplify the help texts that docstrings give."""
    _simplify_texts(parser)
    for flag, texts in _FLAGS.items():
        if flag in parser._option_string_actions:
            text = texts[subcommand != "fit"] or argparse.SUPPRESS
            parser._option_string_actions[flag].help = text
    for group in parser._action_groups:
        if any(action.dest == "ckpt_path" for action in group._group_actions):
            group.title = "The checkpoint"


def _simplify_texts(parser: LightningArgumentParser) -> None:
    for action in parser._actions:
        if action.default is not None:
            # The parser adds it.
            action.help = action.help and _DEFAULT.sub("", action.help)
        action.help = _without_markup(action.help)
    for group in parser._action_groups:
        group.title = _without_markup(group.title)


def _without_markup(text: str | None) -> str | None:
    for pattern, plain in _MARKUP:
        text = text and pattern.sub(plain, text)
    return text


def _subclasses(base: type) -> dict[str, type]:
    found = {base.__name__: base}
    cls: type
    for cls in base.__subclasses__():
        found |= _subclasses(cls)
    return found
