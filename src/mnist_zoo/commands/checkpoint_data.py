"""The data that the network of a checkpoint was trained on, as they are to be had here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_zoo import registry
from mnist_zoo.errors import ZooError

if TYPE_CHECKING:
    from mnist_zoo.data import ImageData
    from mnist_zoo.models.checkpoint import Checkpoint


def require_data(checkpoint: Checkpoint, named: str | None) -> None:
    """Make sure that the data that the user named, if any, are those of the checkpoint.

    Args:
        checkpoint: It names its data, and holds their settings, which fit no other class.
        named: What the user named: a path or, of the data of this package, a name.

    Raises:
        ZooError: They are others.
    """
    assert checkpoint.data is not None
    path = str(checkpoint.data["class_path"])
    name = path.rpartition(".")[2]
    if named not in (None, path, name):
        raise ZooError(
            f"--data {named} does not fit --ckpt_path: {checkpoint.path} is of {name}.\n"
            "Leave --data out; the data come from the checkpoint."
        )


def data_here(checkpoint: Checkpoint, named: str | None) -> dict[str, Any]:
    """Return the checkpoint's data, its folder left out where this machine does not have it.

    Raises:
        ZooError: The class is not one of ours and the user did not name it; importing it would
            let the file choose code to run.
    """
    assert checkpoint.data is not None
    path, arguments = checkpoint.data["class_path"], dict(checkpoint.data["init_args"])
    if not registry.is_our_data(path) and path != named:
        raise ZooError(
            f"{checkpoint.path} was trained on {path}, which is not part of this package.\n"
            f"If it is yours and you trust it, name it: --data {path}"
        )
    # A folder without these data is not one to download them to, at a file's word.
    name = path.rpartition(".")[2] if registry.is_our_data(path) else ""
    if "root" in arguments and not Path(str(arguments["root"]), name).is_dir():
        del arguments["root"]
    return {"class_path": path, "init_args": arguments}


def data_with_test_images(
    checkpoint: Checkpoint, named: str | None, root: str | None = None
) -> ImageData:
    """Return the checkpoint's data, the test images loaded.

    Args:
        checkpoint: It names its data.
        named: The class that the user named, if any.
        root: The folder of all data sets, if it is not to be the checkpoint's.

    Raises:
        ZooError: As ``data_here``; or the images cannot be had.
    """
    entry = data_here(checkpoint, named)
    if root is not None:
        entry["init_args"]["root"] = root
    cls = registry.import_class(entry["class_path"])
    try:
        data: ImageData = cls(**entry["init_args"])
    except TypeError as error:
        raise ZooError(
            f"{checkpoint.path} does not fit {cls.__name__} of this version: {error}."
        ) from error
    data.prepare_data()
    data.setup("test")
    return data
