"""``mnist-zoo data``: write images of any data set as text."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_zoo import registry
from mnist_zoo.commands.shared.arguments import Parser, add_root
from mnist_zoo.errors import ZooError, did_you_mean
from mnist_zoo.files import absolute, require_writable_file, shell_quoted

if TYPE_CHECKING:
    from mnist_zoo.data import ImageData


def main(argv: list[str]) -> int:
    """Run ``mnist-zoo data`` and return its exit status.

    Args:
        argv: The arguments after ``data``.

    Raises:
        ZooError: Wrong arguments, missing data, or a file that cannot be written.
    """
    args = _parser().parse_args(argv)
    out = absolute(args.out)
    require_writable_file(out, "Name another file.")
    if out.exists() and not args.force:
        raise ZooError(f"{out} exists already.\nName another file, or replace it with --force.")
    num_images = _to_text(out, args)
    print(f"Wrote {num_images:,} images of {args.data} ({args.split}) to {out}")
    file = shell_quoted(out)
    if args.split == "test":
        print(
            "Test on it: mnist-zoo test --ckpt_path BEST.CKPT"
            f" --data TextFile --data.test_file {file}"
        )
    else:
        print(
            "Train on it: mnist-zoo fit --model ConvNetReLU"
            f" --data TextFile --data.train_file {file}"
        )
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="mnist-zoo data",
        description=(
            "Write images as text: 784 pixel values from 0 to 255 and the label, separated by\n"
            "tabs, one image a line, for --data TextFile and for any other program."
        ),
        usage="mnist-zoo data to-text OUT [options]",
        epilog="examples:\n  mnist-zoo data to-text images.txt --val_size 0 --num 1000\n"
        "  mnist-zoo data to-text test.txt --split test",
    )
    parser.add_argument("action", metavar="to-text", choices=["to-text"], help="what to do")
    parser.add_argument("out", metavar="OUT", help="the file to write")
    parser.add_argument(
        "--data",
        default="MNIST",
        help="data set, or the path of a class of your own (default: %(default)s)",
    )
    parser.add_argument(
        "--split",
        choices=("train", "validation", "test"),
        default="train",
        help="which of its images; train leaves out those of validation (default: %(default)s)",
    )
    parser.add_argument(
        "--num", type=int, help="only the first NUM images (default: all of the split)"
    )
    parser.add_argument(
        "--val_size",
        "--data.val_size",  # as messages of the data sets call it
        type=_size,
        help="training images held out for validation, number or fraction; with 0, --split train"
        " is all of them (default: that of the data set)",
    )
    add_root(parser)
    parser.add_argument(
        "--expanded",
        action="store_true",
        help="also write each image shifted by one pixel right, left, up and down",
    )
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    return parser


def _size(word: str) -> int | float:
    """Return a number of images or a fraction, as ``--data.val_size`` takes them."""
    for number in (int, float):
        with contextlib.suppress(ValueError):
            return number(word)
    raise argparse.ArgumentTypeError(f"{word}: expected a number of images, or a fraction.")


def _class_named(name: str) -> type[ImageData]:
    """Return a data set of the package by name, or the user's own by import path."""
    from mnist_zoo import data as zoo

    classes = registry.builtin_datasets().keys() - {"TextFile"}
    if name not in classes and "." not in name:
        raise ZooError(
            f"--data {name}: there is no such data set.{did_you_mean(name, classes)}\n"
            f"There are {', '.join(sorted(classes))}; for one of your own: --data my_file.MyData"
        )
    path = registry.data_path(name)
    if not registry.is_our_data(path):
        registry.look_into_current_folder()
    cls: type[ImageData] = registry.import_derived(path, zoo.ImageData, "--data")
    return cls


def _to_text(out: Path, args: argparse.Namespace) -> int:
    """Write the file and return the number of images in it."""
    from mnist_zoo import data as zoo

    cls = _class_named(args.data)
    given = {"root": args.root, "val_size": args.val_size}
    given = {key: value for key, value in given.items() if value is not None}
    for name in given.keys() - registry.accepted(cls):
        raise ZooError(f"--{name}: {args.data} has no such option. Leave it out.")
    try:
        data = cls(**given)
    except TypeError as error:
        raise ZooError(f"--data {args.data}: cannot be created: {error}.") from error
    data.prepare_data()
    data.setup({"train": "fit", "validation": "validate", "test": "test"}[args.split])
    images, targets = data.splits[args.split]
    if args.num is not None and not 1 <= args.num <= len(targets):
        raise ZooError(
            f"--num {args.num}: must be from 1 to {len(targets):,}, the number of images of"
            f" {args.data} ({args.split})."
        )
    images, targets = images[: args.num], targets[: args.num]
    if args.expanded:
        images, targets = zoo.expand(images, targets)
    comment = f"{len(targets)} images of {args.data} ({args.split}), by mnist-zoo data to-text"
    zoo.write_text(out, images, targets, comment)
    return len(targets)
