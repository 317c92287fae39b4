"""Reading checkpoints and weights as data: tensors and plain types, never code.

What the zoo adds to Lightning's checkpoints: ``mnist_zoo``, the classes and arguments of network
and data, and the normalisation of pixels (``classifier.py``); ``mnist_zoo_run``, settings of the
run (``engine/run_settings.py``); ``mnist_zoo_figures``, ``mnist_zoo_logged``, ``mnist_zoo_plateau``
and the state of the random generators, for resuming (``engine/best_and_last.py``).
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from mnist_zoo import registry, stored
from mnist_zoo.errors import one_line
from mnist_zoo.models.checkpoint_files import CheckpointError, existing, find
from mnist_zoo.models.classifier import Classifier, sizes

_LONGEST_PATH = 500  # of a class
_LONGEST_NAME = 100  # of what a network can read
_MOST_STEPS = 2**63
_FINITE = 1e300
_FOLDER = 0x10  # among the attributes of a file in a zip file


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint or of a weights file.

    Attributes:
        path: The file.
        model: ``class_path`` and ``init_args`` of the network.
        data: The same for the data, and the names of its ``classes``; None if the run used plain
            data loaders.
        pixels: ``mean`` and ``std`` that pixels in [0, 1] were normalised by.
        state_dict: The weights.
        is_weights: Whether these are exported weights, not a checkpoint of a run.
        record: Of weights: what is known of the run that made them.
        settings: Of a checkpoint: settings that a resumed run takes over, and the seed.
        num_epochs: Of a checkpoint: completed epochs.
        num_steps: Of a checkpoint: completed optimizer steps.
        resumable: Whether it holds the optimizer state, so that training can be resumed.
    """

    path: Path
    model: dict[str, Any]
    data: dict[str, Any] | None
    pixels: dict[str, Any]
    state_dict: dict[str, torch.Tensor]
    is_weights: bool = False
    record: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    num_epochs: int = 0
    num_steps: int = 0
    resumable: bool = False

    @property
    def network(self) -> str:
        """Name of the network's class."""
        return str(self.model["class_path"]).rpartition(".")[2]

    @property
    def is_averaged(self) -> bool:
        """Whether its run keeps a moving average of the weights."""
        average = self.settings.get("average")
        return isinstance(average, dict) and average.get("decay") is not None


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint written by this package's networks, or exported weights (safetensors).

    Raises:
        CheckpointError: The file is missing, empty, damaged, or no such checkpoint.
    """
    file = existing(Path(path))
    if file.suffix == ".safetensors":
        return _read_weights(file)
    content = _content(file)
    try:
        zoo = dict(content)["mnist_zoo"]
        _require_readable_by_lightning(content)
        return Checkpoint(
            file,
            _class_and_arguments(zoo["model"]),
            _class_and_arguments(zoo["data"]) if "data" in zoo else None,
            _pixels(zoo),
            _tensors(content["state_dict"]),
            settings=dict(content.get("mnist_zoo_run", {})),
            num_epochs=int(content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]),
            num_steps=int(content["global_step"]),
            resumable={"optimizer_states", "pytorch-lightning_version"} <= content.keys(),
        )
    except (
        KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError,
        NotImplementedError,
    ):  # fmt: skip
        raise CheckpointError(
            f"{file} is not a checkpoint of an mnist-zoo network: its network entry is missing, or"
            " holds more than plain values."
        ) from None


def _require_readable_by_lightning(content: dict[str, Any]) -> None:
    """Check what Lightning takes for granted.

    Raises:
        TypeError, ValueError: It is not so.
    """
    states = content.get("callbacks", {}).values()
    if not (
        re.match(r"\d+\.\d+", content.get("pytorch-lightning_version", "0.0"))
        and all(isinstance(state, dict) for state in states)
        and 0 <= content["global_step"] < _MOST_STEPS
    ):
        raise ValueError


def trusted_class(checkpoint: Checkpoint, named: str | None = None) -> str:
    """Return the import path of the checkpoint's class if it may be imported.

    Allowed are the networks of the zoo and of installed plugins, and the one class that the user
    named. Importing any other would let the file choose code to run.

    Raises:
        CheckpointError: The class is of neither kind, or the user named another.
    """
    path = registry.full_path(checkpoint.model["class_path"])
    named = named and registry.full_path(named)
    if not registry.is_known(path) and path != named:
        raise CheckpointError(
            f"checkpoint {checkpoint.path} is of {path}, which is neither in this zoo nor an"
            f" installed plugin.\nIf it is yours and you trust it, name it: --model {path}"
            f" (in Python, named={path!r})"
        )
    if named and named != path:
        names = {path: name for name, path in registry.builtin_networks().items()}
        raise CheckpointError(
            f"--model {names.get(named, named)} does not fit --ckpt_path: {checkpoint.path} is a"
            f" checkpoint of {names.get(path, path)}.\n"
            "Leave --model out; the network comes from the checkpoint."
        )
    return path


def load(name: str | os.PathLike[str], named: str | None = None) -> Classifier:
    """Load a trained network, in evaluation mode on the CPU.

    Nothing in the file is executed: only tensors and plain types are read.

    Args:
        name: A checkpoint written by ``mnist-zoo fit`` or by Lightning's ``Trainer``, weights
            written by ``mnist-zoo export --format safetensors``, or the name of weights that
            are installed with the package, such as ``ConvNetReLU``.
        named: Import path of the network's class, if it is your own, neither in the zoo nor in an
            installed plugin.

    Raises:
        CheckpointError: The file is missing, damaged, not a checkpoint, or of a network that
            is not known or is not the one named.
    """
    return build(read(find(name)), named)


def build(checkpoint: Checkpoint, named: str | None = None) -> Classifier:
    """Build the network of a checkpoint that has been read, as ``load`` does.

    Raises:
        CheckpointError: The network is not known or not the one named, or the checkpoint does
            not fit it.
    """
    path = trusted_class(checkpoint, named)
    cls = registry.import_derived(path, Classifier, "--model")
    arguments = checkpoint.model["init_args"]
    try:
        if registry.is_known(path):
            _require_plausible(checkpoint)
            # On the meta device first: the arguments may ask for more memory than there is.
            with torch.device("meta"):
                _require_weight_sizes(checkpoint, sizes(cls(**arguments)))
        network: Classifier = cls(**arguments)
    except (TypeError, ValueError, RuntimeError, LookupError) as error:
        raise _does_not_fit(checkpoint, error) from error
    fill(network, checkpoint)
    return network.eval()


def fill(network: Classifier, checkpoint: Checkpoint) -> None:
    """Load the weights and pixel normalisation of a checkpoint into a network.

    Raises:
        CheckpointError: They do not fit.
    """
    try:
        network.load_state_dict(checkpoint.state_dict)
    except RuntimeError as error:
        raise _does_not_fit(checkpoint, error) from error
    network.pixel_mean, network.pixel_std = normalization(checkpoint)


def normalization(checkpoint: Checkpoint) -> tuple[float, float]:
    """Return mean and standard deviation by which pixels in [0, 1] were normalised in training.

    Raises:
        CheckpointError: They are not usable numbers.
    """
    mean, std = checkpoint.pixels["mean"], checkpoint.pixels["std"]
    # An integer may be too large for a float.
    finite = all(isinstance(value, int | float) and abs(value) < _FINITE for value in (mean, std))
    if not (finite and std > 0):
        raise CheckpointError(
            f"checkpoint {checkpoint.path}: its mean ({mean}) or std ({std}) is not usable."
        )
    return float(mean), float(std)


def class_names(checkpoint: Checkpoint) -> Sequence[str]:
    """Return the class names of a checkpoint: the digits, unless it has others."""
    data = checkpoint.data or {}
    if registry.is_our_data(data.get("class_path", "")):
        classes: Sequence[str] = registry.import_class(data["class_path"]).classes
        return classes
    return data.get("classes") or tuple("0123456789")


def _content(file: Path) -> Any:
    """Return what torch wrote to a file, if it is intact and holds only data."""
    with file.open("rb") as stream:
        is_zip = stream.read(2) == b"PK"
    try:
        if is_zip:
            _require_intact(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:
        if not is_zip:
            raise CheckpointError(f"{file} is not a checkpoint: torch cannot read it.") from error
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise CheckpointError(
                f"checkpoint {file} holds more than tensors and plain types,"
                " and is not opened because it could run code."
            ) from error
        if "locating file data.pkl" in str(error):
            raise CheckpointError(
                f"{file} is not a checkpoint, but perhaps a network exported by torch_export, or"
                " another zip file."
            ) from error
        reason = str(error).partition(". ")[0] or type(error).__name__
        raise CheckpointError(f"checkpoint {file} is damaged: {reason}.") from error


def _read_weights(file: Path) -> Checkpoint:
    try:
        with safe_open(file, framework="pt") as content:
            zoo = json.loads((content.metadata() or {})["mnist_zoo"])
            return Checkpoint(
                file,
                _class_and_arguments(zoo["model"]),
                _class_and_arguments(zoo["data"]) if zoo.get("data") else None,
                _pixels(zoo),
                {key: content.get_tensor(key) for key in content.keys()},  # noqa: SIM118
                is_weights=True,
                record=_record(zoo["record"]),
            )
    except OSError as error:  # whose own message names the wrong cause
        raise CheckpointError(
            f"checkpoint {file} cannot be opened: permission denied, or it is gone."
        ) from error
    except SafetensorError as error:
        raise CheckpointError(f"{file} is damaged, or not a safetensors file: {error}.") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise CheckpointError(
            f"{file} holds no mnist-zoo network: the entry that mnist-zoo export writes is missing."
        ) from None


def _record(record: dict[str, Any]) -> dict[str, Any]:
    """Return what weights say about their accuracy.

    Raises:
        ValueError: It is no accuracy.
    """
    if "test_acc" in record:
        accuracy, num_images = record["test_acc"], record["num_test_images"]
        if not (isinstance(accuracy, float | int) and 0 <= accuracy <= 1):
            raise ValueError("not an accuracy")
        if not (isinstance(num_images, int) and 0 < num_images < _MOST_STEPS):
            raise ValueError("not a number of images")
    return dict(record)


def _pixels(zoo: dict[str, Any]) -> dict[str, Any]:
    # Weights written by earlier versions have it only in their data.
    held = dict(zoo.get("pixels") or (zoo.get("data") or {}).get("init_args", {}))
    return {"mean": held.get("mean", 0.0), "std": held.get("std", 1.0)}


def _class_and_arguments(entry: dict[str, Any]) -> dict[str, Any]:
    arguments = dict(entry["init_args"])
    if not (stored.is_plain(arguments) and all(isinstance(name, str) for name in arguments)):
        raise ValueError("more than numbers and words among the arguments")
    path = str(entry["class_path"])
    if len(path) > _LONGEST_PATH or not all(part.isidentifier() for part in path.split(".")):
        raise ValueError("not the import path of a class")
    found = {"class_path": path, "init_args": arguments}
    if classes := entry.get("classes"):
        found["classes"] = [_class_name(name) for name in classes]
        if len(found["classes"]) != Classifier.num_classes:
            raise ValueError("not the names of ten classes")
    return found


def _class_name(name: Any) -> str:
    """Return the name of a class in a form that can be printed and drawn.

    Raises:
        ValueError: It is no name.
    """
    if not isinstance(name, str | int | float):
        raise ValueError("not the name of a class")
    return one_line(str(name)[:_LONGEST_NAME].encode(errors="backslashreplace").decode())


def _tensors(state_dict: Any) -> dict[str, torch.Tensor]:
    """Return the weights, checked for size: a few bytes can pass for gigabytes.

    Raises:
        ValueError: One is not a tensor, or claims to be larger than its data.
    """
    weights = dict(state_dict)
    for name, value in weights.items():
        size = value.numel() * value.element_size()
        if not isinstance(name, str) or value.untyped_storage().nbytes() < size:
            raise ValueError("no weights")
    return weights


def _require_intact(file: Path) -> None:
    """Check what PyTorch does not: that a zip file is whole and not compressed.

    Raises:
        CheckpointError: It is compressed. PyTorch writes no such files, and they could unpack to
            any size.
        Exception: It is damaged. Nearly any exception is possible.
    """
    if not zipfile.is_zipfile(file):
        raise zipfile.BadZipFile("it is truncated (was writing or copying interrupted?)")
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise CheckpointError(
                f"checkpoint {file} has been recompressed, which PyTorch never does: use the"
                " original file."
            )
        # PyTorch would leave the memory for its contents as it is.
        if any(entry.external_attr & _FOLDER for entry in entries):
            raise zipfile.BadZipFile("an entry is marked as a folder")
        if archive.testzip():
            raise zipfile.BadZipFile("a checksum does not match")


def _require_plausible(checkpoint: Checkpoint) -> None:
    """Refuse numbers of neurons or layers that exceed the number of weights in the file."""
    num_weights = sum(value.numel() for value in checkpoint.state_dict.values())
    # In a plugin, such names may mean something else.
    ours = str(checkpoint.model["class_path"]).startswith("mnist_zoo.")
    for name, value in checkpoint.model["init_args"].items() if ours else ():
        if name.startswith("num_") and isinstance(value, int) and value > num_weights:
            raise ValueError(f"{name} is {value:,}, of {num_weights:,} weights in the file.")


def _require_weight_sizes(checkpoint: Checkpoint, wanted: dict[str, torch.Size]) -> None:
    for name, value in checkpoint.state_dict.items():
        if name in wanted and value.shape != wanted[name]:
            raise ValueError(
                f"size mismatch for {name}: {tuple(value.shape)} in the file,"
                f" {tuple(wanted[name])} by its arguments."
            )


def _does_not_fit(checkpoint: Checkpoint, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {checkpoint.path} does not fit {checkpoint.network} of this version: "
        + " ".join(str(error).split())[:300]
    )
