"""Exceptions of Lightning, PyTorch and the user's own code in one or two plain lines."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from types import FrameType

from lightning.fabric.utilities.exceptions import MisconfigurationException

from mnist_zoo.errors import ZooError, first_lines


def of_exception(error: BaseException) -> str | None:
    """Return a plain message for an exception, or None if it is a bug.

    jsonargparse wraps errors raised in ``__init__``; the ``ZooError`` is in the chain.
    """
    if isinstance(error, ModuleNotFoundError) or _raised_in_lightning(error):
        return first_lines(error)
    if _raised_in(error, "torch.optim.lr_scheduler"):
        return (
            f"the learning-rate scheduler fails: {first_lines(error)}.\nIts arguments are given by"
            " --model.scheduler_args"
        )
    if isinstance(error, ValueError) and "than 1 value per channel when training" in str(error):
        return (
            "batch normalisation cannot train on a single image, but a minibatch, perhaps the last"
            " of an epoch, has only one.\nChoose another --data.batch_size."
        )
    if isinstance(error, AttributeError) and _asked_by_lightning(error):
        return f"a callback of Lightning asks for what the network does not have: {error}."
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ZooError):
            return str(cause)
        if isinstance(cause, MisconfigurationException):
            return first_lines(cause)
        cause = cause.__cause__
    return None


def of_weights(error: BaseException, flags: Iterable[str]) -> str | None:
    """Return a plain message for weights that do not fit the network; None for other errors."""
    functions = [frame.f_code.co_name for frame in _frames(error)]
    if "load_model_state_dict" not in functions or not isinstance(error, RuntimeError):
        return None
    text = "the weights of --ckpt_path do not fit the network"
    if any(flag.startswith("--model.") for flag in flags):
        return (
            f"{text} as the flags describe it.\nLeave out the --model flags: the checkpoint knows"
            " how its network was built."
        )
    _, _, reason = str(error).partition(":")
    return f"{text} as its class is now: {' '.join(reason.split())[:300]}"


def of_resuming(error: BaseException, ckpt_path: str | None) -> str | None:
    """Return a plain message if a run's state cannot be restored; None for other errors."""
    if ckpt_path is None:
        return None
    frames = [(str(f.f_globals.get("__name__")), f.f_code.co_name) for f in _frames(error)]
    # Its own hooks may fail for other reasons, which the traceback shows.
    ours = ("mnist_zoo.", "lightning.", "torch.")
    if not frames or not frames[-1][0].startswith(ours):
        return None
    restores = ("restore", "_restore", "load_state_dict", "on_load_checkpoint")
    if not any(module.startswith(ours) and name.startswith(restores) for module, name in frames):
        return None
    return (
        f"{ckpt_path} cannot be resumed: {type(error).__name__}: {first_lines(error)}\n"
        "It is damaged, or the network or its optimizer has changed since."
    )


def first_cause(error: BaseException) -> BaseException:
    """Return the root cause of an exception, or the first ``ZooError`` on the way to it."""
    while error.__cause__ and not isinstance(error, ZooError):
        error = error.__cause__
    return error


def _raised_in_lightning(error: BaseException) -> bool:
    """Whether Lightning itself raised an error, even late in a run."""
    return _raised_in(error, "lightning.") and isinstance(error, RuntimeError | ValueError)


def _raised_in(error: BaseException, module: str) -> bool:
    """Whether an error was raised in a module whose name begins like this."""
    frames = _frames(error)
    return bool(frames) and str(frames[-1].f_globals.get("__name__")).startswith(module)


def _asked_by_lightning(error: AttributeError) -> bool:
    """Whether Lightning's code looked for an attribute in a network in vain."""
    names = [str(frame.f_globals.get("__name__")) for frame in _frames(error)]
    in_network = names[-1:] == ["torch.nn.modules.module"]
    return in_network and names[-2].startswith("lightning.pytorch.callbacks.")


def built_when_raised(error: BaseException | None) -> object:
    """Return the outermost object in whose ``__init__`` an exception was raised."""
    frames = _frames(error) if error else []
    inits = [frame for frame in frames if frame.f_code.co_name == "__init__"]
    return inits[0].f_locals.get("self") if inits else None


def _frames(error: BaseException) -> list[FrameType]:
    """Return the frames that an exception passed through, the outermost first."""
    return [frame for frame, _ in traceback.walk_tb(error.__traceback__)]


def of_trainer(error: Exception) -> str:
    """Return a plain message for an error of Lightning's ``Trainer`` about its arguments."""
    missing = ("No supported gpu backend", "can not run on your system", "'torch_xla")
    if any(text in str(error) for text in missing):
        return (
            "--trainer.accelerator: PyTorch finds no such device on this machine.\n"
            "Leave the flag out to use what there is, or give --trainer.accelerator cpu."
        )
    return f"the trainer refuses its settings: {first_lines(error)}"
