"""``mnist-zoo export``: write a trained network for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_zoo import registry
from mnist_zoo.commands.shared.arguments import Parser, add_checkpoint, add_data
from mnist_zoo.commands.shared.checkpoint_data import data_with_test_images
from mnist_zoo.commands.shared.provenance import today, versions
from mnist_zoo.commands.shared.screen import silence
from mnist_zoo.errors import ZooError
from mnist_zoo.files import expanded, require_writable_file
from mnist_zoo.models import checkpoint_files

if TYPE_CHECKING:
    from mnist_zoo.models import Classifier
    from mnist_zoo.models.checkpoint import Checkpoint

SUFFIXES = {
    "onnx": ".onnx",
    "torch_export": ".pt2",
    "state_dict": ".pt",
    "safetensors": ".safetensors",
}
_NUM_CHECKED = 1000


def main(argv: list[str]) -> int:
    """Write a checkpoint's network in another format, and check it against the original.

    Raises:
        ZooError: Wrong arguments, a checkpoint that cannot be read, or a failed export.
    """
    arguments = _parser().parse_args(argv)
    if not arguments.measure and (arguments.data or arguments.root):
        raise ZooError("--data and --root are for --measure, which is not given.")
    kind = _format(arguments.format, arguments.out)
    named = registry.class_named(arguments.model)
    file = checkpoint_files.find(arguments.ckpt_path)

    from mnist_zoo.data import Digits
    from mnist_zoo.data.module import to_float
    from mnist_zoo.models import checkpoint as checkpoints
    from mnist_zoo.models import export as exports

    silence()
    checkpoint = checkpoints.read(file)
    network = checkpoints.build(checkpoint, named)
    out = arguments.out or checkpoint.path.with_suffix(SUFFIXES[kind])
    if not arguments.out and checkpoint.path in registry.shipped_weights().values():
        out = Path(out.name)  # not into the installed package
    if out.exists() and out.samefile(checkpoint.path):
        raise ZooError(f"{out} is the file to export; name another one: --out FILE")
    require_writable_file(out, "Name another file: --out FILE")
    record = _record(checkpoint)
    if arguments.measure:
        record |= _measured(network, checkpoint, arguments.data, arguments.root)
    about = {
        "model": checkpoint.model,
        "data": _data(checkpoint),
        "pixels": {"mean": network.pixel_mean, "std": network.pixel_std},
        "record": record,
        "licence": arguments.licence,
    }
    images = to_float(Digits(val_size=0).load(train=True)[0][:_NUM_CHECKED])
    difference = exports.export(network, kind, out, images, about)
    opset = f" (opset {exports.OPSET})" if kind == "onnx" else ""
    print(f"{checkpoint.network} written to {out}{opset}, {out.stat().st_size:,} bytes")
    print(f"Largest difference from the network on {len(images):,} images: {difference:.2g}")
    if kind == "state_dict":
        mean, std = network.pixel_mean, network.pixel_std
        scaled = (mean, std) == (0, 1)
        expected = "pixels / 255" if scaled else f"(pixels / 255 - {mean:g}) / {std:g}"
        print(f"The file does not include normalisation: its input is {expected}")
    if "test_acc" in record:
        when = "" if arguments.measure else ", as recorded in the weights"
        num = f"{record['num_test_images']:,}"
        print(f"Accuracy on {num} test images{when}: {100 * record['test_acc']:.2f} %")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="mnist-zoo export",
        description=(
            "Write a trained network for other programs. The result is read back and compared\n"
            "with the network on 1,000 images; if any probability differs by more than 1e-4,\n"
            "nothing is written.\n\n"
            "  onnx          images (float32, N × 1 × 28 × 28, in [0, 1]) to probabilities, for\n"
            "                onnxruntime and others; the normalisation is inside\n"
            "  torch_export  the same for PyTorch, without any class of this package\n"
            "  state_dict    weights alone, for a plain torch.nn network of the same shape\n"
            "  safetensors   weights with what is known of them, for mnist_zoo.load"
        ),
        epilog=(
            "examples:\n"
            "  mnist-zoo export --ckpt_path best.ckpt --out network.onnx\n"
            "  mnist-zoo export --ckpt_path best.ckpt --format safetensors --measure"
        ),
    )
    add_checkpoint(parser, required=True)
    parser.add_argument("--format", choices=[*SUFFIXES], help="default: by the ending of --out")
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=expanded,
        help="file to write; its ending, .onnx, .pt2, .pt or .safetensors, selects the format;"
        " default: beside the checkpoint, under its name; for installed weights, in the current"
        " folder",
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="test it on the test images of its data, print the accuracy and, except in a"
        " state_dict, write it into the file",
    )
    add_data(parser, "for --measure")
    parser.add_argument(
        "--licence", default="MIT", help="licence of the weights (default: %(default)s)"
    )
    return parser


def _format(named: str | None, out: Path | None) -> str:
    """Return the format to write, consistent with the ending of the file name.

    Raises:
        ZooError: Neither gives it, or they disagree.
    """
    by_suffix = {suffix: kind for kind, suffix in SUFFIXES.items()}
    kind = named or (by_suffix.get(out.suffix) if out else None)
    # Any other ending may be that of a file of another kind, replaced by a slip.
    if named and out and out.suffix != SUFFIXES[named]:
        raise ZooError(f"--out {out}: for this format, the name must end in {SUFFIXES[named]}.")
    if kind is None:
        raise ZooError(
            f"which format? Give --format {' or '.join(SUFFIXES)},\n"
            f"or --out with a name that ends in {' or '.join(by_suffix)}."
        )
    return kind


def _data(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """Return the data that a network was trained on, without its folder and files."""
    if checkpoint.data is None:
        return None
    arguments = checkpoint.data["init_args"]
    folders = ("root", "train_file", "test_file")
    plain = {key: value for key, value in arguments.items() if key not in folders}
    return {**checkpoint.data, "init_args": plain}


def _record(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what is known about the run that trained a network."""
    from mnist_zoo.engine.run_settings import resumed_settings

    if checkpoint.is_weights:
        return dict(checkpoint.record)
    settings = resumed_settings(checkpoint.settings)
    return {
        "num_epochs": checkpoint.num_epochs,
        "num_steps": checkpoint.num_steps,
        "seed": settings.get("seed_everything"),
        "settings": {key: value for key, value in settings["trainer"].items() if value is not None},
    }


def _measured(
    network: Classifier, checkpoint: Checkpoint, named: str | None, root: str | None
) -> dict[str, Any]:
    """Test a network on the test images of its data set."""
    if checkpoint.data is None:
        raise ZooError(f"--measure: {checkpoint.path} does not say what it was trained on.")
    data = data_with_test_images(checkpoint, named, root)
    images, targets = data.splits["test"]
    num_right = int((network.predict(images).argmax(dim=1) == targets).sum())
    return {
        "test_acc": num_right / len(targets),
        "num_test_images": len(targets),
        "test_data": type(data).__name__,
        "versions": versions(),
        "date": today(),
    }
