"""The data that a checkpoint's network was trained on, as available on this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_zoo import registry
from mnist_zoo.errors import ZooError

if TYPE_CHECKING:
    from mnist_zoo.data import ImageData
    from mnist_zoo.models.checkpoint import Checkpoint


def data_here(checkpoint: Checkpoint, named: str | None) -> dict[str, Any]:
    """Return the checkpoint's data, without its folder if this machine does not have it.

    If the user named other data than the checkpoint's own class, only its normalisation is left.

    Raises:
        ZooError: The class is not one of ours and the user named none; importing it would let the
            file choose code to run.
    """
    assert checkpoint.data is not None
    path, arguments = checkpoint.data["class_path"], dict(checkpoint.data["init_args"])
    if not registry.is_our_data(path) and path != named:
        if named:
            return {"class_path": registry.DEFAULT_DATA, "init_args": dict(checkpoint.pixels)}
        raise ZooError(
            f"{checkpoint.path} was trained on {path}, which is not part of this package.\n"
            f"If it is yours and you trust it, name it: --data {path}"
        )
    # A file must not decide where data is downloaded to.
    name = path.rpartition(".")[2] if registry.is_our_data(path) else ""
    if "root" in arguments and not Path(str(arguments["root"]), name).is_dir():
        del arguments["root"]
    return {"class_path": path, "init_args": arguments}


def data_with_test_images(
    checkpoint: Checkpoint, named: str | None, root: str | None = None
) -> ImageData:
    """Return the checkpoint's data, by default MNIST, with the test images loaded.

    Args:
        checkpoint: Names its data, and holds its settings, which fit no other class.
        named: What the user named, if anything: an import path or, for data of this package, a
            name.
        root: The folder of all data sets, if not the checkpoint's.

    Raises:
        ZooError: As ``data_here``; the user named other data than the checkpoint's; or the images
            cannot be loaded.
    """
    if checkpoint.data is None:
        mnist = {"class_path": registry.DEFAULT_DATA, "init_args": {}}
        checkpoint = dataclasses.replace(checkpoint, data=mnist)
    if named:
        _require_its_data(checkpoint, named)
        registry.look_into_current_folder()
    entry = data_here(checkpoint, named)
    from mnist_zoo.data import ImageData

    cls = registry.import_derived(entry["class_path"], ImageData, "--data")
    if root is not None:
        if "root" not in registry.accepted(cls):
            raise ZooError(f"--root: {cls.__name__} has no such option. Leave it out.")
        entry["init_args"]["root"] = root
    try:
        data: ImageData = cls(**entry["init_args"])
    except TypeError as error:
        raise ZooError(
            f"{checkpoint.path} does not fit {cls.__name__} of this version: {error}."
        ) from error
    data.prepare_data()
    data.setup("test")
    return data


def _require_its_data(checkpoint: Checkpoint, named: str) -> None:
    assert checkpoint.data is not None
    path = registry.full_path(checkpoint.data["class_path"])
    if registry.data_path(named) != path:
        raise ZooError(
            f"--data {named} does not fit --ckpt_path: {checkpoint.path} is of"
            f" {path.rpartition('.')[2]}.\n"
            "Leave --data out; the data comes from the checkpoint."
        )
