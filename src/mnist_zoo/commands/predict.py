"""``mnist-zoo predict``: read digits in pictures; without pictures, LightningCLI's predict."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_zoo import registry
from mnist_zoo.commands.shared import digits, screen
from mnist_zoo.commands.shared.arguments import Parser, add_checkpoint, png_file
from mnist_zoo.commands.training import command as training
from mnist_zoo.errors import ZooError
from mnist_zoo.files import require_writable_file
from mnist_zoo.models import checkpoint_files

if TYPE_CHECKING:
    from torch import Tensor

    from mnist_zoo.models import Classifier
    from mnist_zoo.report.predictions import Predictions

# Flags that only LightningCLI knows: with these, or without pictures, the test images are read.
_LIGHTNING = ("--trainer", "--config", "-c", "--print_config", "--seed_everything")


def main(argv: list[str]) -> int:
    """Read the digits in pictures and print them.

    Returns:
        0; 1 if some pictures could not be read, 2 if none could.

    Raises:
        ZooError: Wrong arguments, or a checkpoint that cannot be read.
    """
    flags = {argument.partition("=")[0].partition(".")[0] for argument in argv}
    nested = any(argument.startswith(("--model.", "--data.")) for argument in argv)
    if nested and any(word.lower().endswith(digits.SUFFIXES) for word in argv if word[0:1] != "-"):
        raise ZooError(
            "--model. and --data. options are for the test images: leave them out, or the pictures."
        )
    if nested or flags & {*_LIGHTNING, "--return_predictions"}:
        return training.main(["predict", *argv])
    arguments = _parser().parse_intermixed_args(argv)
    if not arguments.images:
        if arguments.model or arguments.data or arguments.ckpt_path is not None:
            return training.main(["predict", *argv])
        raise ZooError(
            "which pictures? For example: mnist-zoo predict digit.png\n"
            "For all options: mnist-zoo predict --help"
        )
    return _read(arguments)


def _parser() -> Parser:
    parser = Parser(
        prog="mnist-zoo predict",
        usage="mnist-zoo predict [options] IMAGE [IMAGE ...]",
        description=(
            "Read handwritten digits in pictures (PNG, JPEG, BMP, TIFF, GIF, WebP), dark on light\n"
            "or light on dark, drawn or photographed; several in one picture row by row,\n"
            "from left to right."
        ),
        epilog=(
            "Without IMAGE, mnist-zoo predict --ckpt_path FILE writes predictions.csv for the\n"
            "test images, and takes the options of mnist-zoo test but for --pictures.\n\n"
            "Pictures that cannot be read are reported on standard error, and left out of table\n"
            'and csv; json lists them in their places, as {"file": ..., "error": ...}.\n\n'
            "Exit status: 0 if all pictures were read; 1 if some could not be read; 2 if none\n"
            "could, or if an option is wrong.\n\n"
            "examples:\n"
            "  mnist-zoo predict digit.png\n"
            "  mnist-zoo predict --format csv scans/ > digits.csv\n"
            "  mnist-zoo predict --ckpt_path best.ckpt --save_sheet seen.png photo.jpg"
        ),
    )
    parser.add_argument(
        "images", metavar="IMAGE", nargs="*", help="a file, a folder, or - for standard input"
    )
    add_checkpoint(parser)
    parser.add_argument("--data", metavar="CLASS", help="its data; ignored when pictures are given")
    parser.add_argument(
        "--format", choices=("table", "csv", "json"), default="table", help="default: %(default)s"
    )
    parser.add_argument(
        "--as_is",
        action="store_true",
        help="only scale pictures to 28 × 28 grey pixels: find no digits, centre nothing",
    )
    parser.add_argument(
        "--save_sheet", metavar="FILE.png", type=png_file, help="draw what the network saw"
    )
    return parser


def _read(arguments: argparse.Namespace) -> int:
    file = checkpoint_files.find(arguments.ckpt_path)
    import torch

    from mnist_zoo.report import predictions

    if arguments.save_sheet:
        hint = "Give another file: --save_sheet FILE.png"
        require_writable_file(arguments.save_sheet, hint, makes_folder=True)
        digits.require_not_among(arguments.images, arguments.save_sheet)
    network, classes = _network(file, arguments.model)
    pictures: list[tuple[str, list[predictions.Prediction]]] = []
    seen, failed = [], {}
    for number, (name, found) in enumerate(digits.read(arguments.images, arguments.as_is)):
        if isinstance(found, str):
            failed[number] = {"file": name, "error": found}
            continue
        seen.append(torch.stack([digit.image for digit in found]))
        read = zip(found, network.predict(seen[-1]).tolist(), strict=True)
        pictures.append((name, [predictions.Prediction(digit.box, row) for digit, row in read]))
    if arguments.format == "csv":
        print(predictions.as_csv(pictures, classes), end="")
    elif arguments.format == "json":
        content = predictions.as_objects(pictures, classes)
        for number, failure in failed.items():
            content.insert(number, failure)
        print(json.dumps(content, indent=2))
    elif pictures:
        # One line per picture, for grep; a terminal wraps by itself.
        table = predictions.table(pictures, classes)
        screen.print_table(table, rows_on_a_line=True)
    if arguments.save_sheet and pictures:
        _save_sheet(arguments.save_sheet, torch.cat(seen), pictures, classes)
    return 0 if not failed else 1 if pictures else 2


def _save_sheet(file: Path, images: Tensor, pictures: Predictions, classes: Sequence[str]) -> None:
    """Draw the digits as the network saw them, uint8 (N, 28, 28), above what it read."""
    from mnist_zoo.report.pictures import gallery, save, shortened
    from mnist_zoo.report.predictions import percent

    captions = []
    for name, found in pictures:
        # A single picture is named in the heading.
        below = f"\n{shortened(digits.drawable(name))}" if len(pictures) > 1 else ""
        best = [prediction.best() for prediction in found]
        captions += [f"{classes[number]}  {percent(share)}{below}" for number, share in best]
    title = shortened(digits.drawable(pictures[0][0]), 60) if len(pictures) == 1 else ""
    save(gallery(images, captions, title=title), file)
    print(f"What the network saw: {file}", file=sys.stderr)


def _network(file: Path, model: str | None) -> tuple[Classifier, Sequence[str]]:
    """Return the network and its class names: the digits, unless its data has others."""
    from mnist_zoo.models import checkpoint as checkpoints

    named = registry.class_named(model)
    checkpoint = checkpoints.read(file)
    return checkpoints.build(checkpoint, named), checkpoints.class_names(checkpoint)
