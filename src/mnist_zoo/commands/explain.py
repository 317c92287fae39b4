"""``mnist-zoo explain``: a network's filters, and the pixels behind its answers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_zoo import registry
from mnist_zoo.commands.shared import digits
from mnist_zoo.commands.shared.arguments import Parser, add_checkpoint, add_data
from mnist_zoo.commands.shared.checkpoint_data import data_with_test_images
from mnist_zoo.errors import ZooError, one_line
from mnist_zoo.files import expanded, require_writable
from mnist_zoo.models import checkpoint_files

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from mnist_zoo.models import Classifier

_MOST = 16  # images beside one another
_NUM_IMAGES = 8  # unless told otherwise


def main(argv: list[str]) -> int:
    """Run ``mnist-zoo explain`` and return its exit status.

    Returns:
        0; 1 if some images could not be read, 2 if none could.

    Raises:
        ZooError: A checkpoint, data or images cannot be read, or the folder cannot be written.
    """
    arguments = _parser().parse_intermixed_args(argv)
    if arguments.num is None:
        arguments.num = _NUM_IMAGES
    elif arguments.images:
        raise ZooError("--num is for test images: leave it out, or the pictures.")
    if not 1 <= arguments.num <= _MOST:
        raise ZooError(f"--num {arguments.num}: must be from 1 to {_MOST}.")
    if arguments.images and (arguments.data or arguments.root):
        raise ZooError("--data and --root are for test images: leave them out, or the pictures.")
    model = registry.class_named(arguments.model)
    file = checkpoint_files.find(arguments.ckpt_path)

    from rich.console import Console

    from mnist_zoo.commands.shared import run_pictures
    from mnist_zoo.engine import run_folders
    from mnist_zoo.models import checkpoint as checkpoints
    from mnist_zoo.report import pictures, summary

    checkpoint = checkpoints.read(file)
    network = checkpoints.build(checkpoint, named=model)
    classes = checkpoints.class_names(checkpoint)
    run = None if arguments.out else run_folders.of_checkpoint(checkpoint.path)
    folder = arguments.out or run_pictures.folder_of(checkpoint.path, run)
    require_writable(folder, "Give another folder: --out FOLDER")
    failed, which = False, "saliency"
    if arguments.images:
        of = "file"
        images, files, failed = _given(arguments.images)
        names = [digits.drawable(file.name) for file in files]
        which += _suffix(files)
    else:
        of = "true"
        data = data_with_test_images(checkpoint, arguments.data, arguments.root)
        images, targets = (part[: arguments.num] for part in data.splits["test"])
        names = [classes[target] for target in targets.tolist()]
    saliency, filters = _figures(network, classes, images, names, of)
    figures = {folder / f"explain-{which}.png": saliency}
    if filters:
        figures[folder / "explain-filters.png"] = filters
    for file, figure in figures.items():
        pictures.save(figure, file)
    line = summary.pictures([*figures])
    if run and not checkpoint.is_weights:
        line += run_pictures.to_tensorboard([*figures], run, checkpoint.num_steps)
    Console(highlight=False, soft_wrap=True).print(line)
    return int(failed)


def _parser() -> Parser:
    parser = Parser(
        prog="mnist-zoo explain",
        description="Draw the filters of a network's first layer, and for some images the pixels\n"
        "that speak for what the network reads there, and those that speak against it.",
        epilog="examples:\n"
        "  mnist-zoo explain --ckpt_path runs/ConvNetReLU/version_0/checkpoints/best.ckpt\n"
        "  mnist-zoo explain four.png                          (with installed weights)\n\n"
        "Exit status: 0; 1 if some pictures could not be read; 2 if none could.",
    )
    parser.add_argument(
        "images", metavar="IMAGE", nargs="*",
        help="pictures of digits: files, folders, or - for standard input; default: the first"
        " test images of the checkpoint's data",
    )  # fmt: skip
    add_checkpoint(parser)
    add_data(parser, "for test images")
    parser.add_argument("--num", type=int, help=f"how many test images; default: {_NUM_IMAGES}")
    parser.add_argument(
        "--out", metavar="FOLDER", type=expanded,
        help="where to draw; default: pictures, in the run of the checkpoint, or else pictures and"
        " the name of the checkpoint",
    )  # fmt: skip
    return parser


def _given(words: Sequence[str]) -> tuple[Tensor, list[Path], bool]:
    """Read the digits in pictures: uint8 (N, 28, 28), their files, and whether any failed.

    Raises:
        ZooError: There is none.
    """
    import torch

    images: list[Tensor] = []
    sources: list[Path] = []
    failed = False
    for name, found in digits.read(words):
        if isinstance(found, str):
            failed = True
            continue
        images += [digit.image for digit in found]
        sources += [Path("stdin" if name == "-" else name)] * len(found)
    if not images:
        raise ZooError("no digit was found to explain.")
    if len(images) > _MOST:
        print(f"warning: only {_MOST} of {len(images)} digits are drawn", file=sys.stderr)
    return torch.stack(images[:_MOST]), sources[:_MOST], failed


def _suffix(files: Sequence[Path]) -> str:
    """Return a file name suffix that identifies the explained files."""
    first, *others = dict.fromkeys(files)
    return f"-{one_line(first.stem)}" + (f"-and-{len(others)}-more" if others else "")


def _figures(
    network: Classifier, classes: Sequence[str], images: Tensor, names: Sequence[str], of: str
) -> tuple[Figure, Figure | None]:
    """Draw the pixels behind the answer for each image, and the first layer if it sees pixels.

    Args:
        network: The network to explain.
        classes: Names of its classes.
        images: uint8 (N, 28, 28).
        names: What to show beside the answer for each image.
        of: What these names are.
    """
    import torch

    from mnist_zoo.data import to_float
    from mnist_zoo.report import pictures
    from mnist_zoo.report.saliency import integrated_gradients

    mean, std = network.pixel_mean, network.pixel_std
    inputs = to_float(images, mean, std)
    predictions = network.predict(images).argmax(dim=1)
    with torch.no_grad():
        weights = _first_weights(network, inputs[:1])
    shares = integrated_gradients(network, inputs, predictions, baseline=(0.5 - mean) / std)
    captions = [
        f"{classes[prediction]} ({pictures.shortened(name, 13)})"
        for prediction, name in zip(predictions.tolist(), names, strict=True)
    ]
    title = type(network).__name__
    heading = f"{title}: predicted ({of}), and the pixels that speak for it and against it"
    saliency = pictures.saliency(images, shares, captions, heading)
    try:
        return saliency, pictures.filters(weights, f"{title}: weights of the first layer")
    except ValueError:
        print(f"The first layer of {title} cannot be drawn: it does not take pixels as input.")
        return saliency, None


def _first_weights(network: Classifier, image: Tensor) -> Tensor:
    """Return the weights of the first convolution or dense layer that an image passes."""
    import torch
    from torch import nn

    passed: list[Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda layer, _: passed.append(layer.weight))
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    network(image)
    for hook in hooks:
        hook.remove()
    return passed[0] if passed else torch.empty(0)
