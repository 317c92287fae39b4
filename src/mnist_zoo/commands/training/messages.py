"""Errors of jsonargparse and Lightning in one or two plain lines.

jsonargparse answers a wrong value with every type that it tried; users need the flag, the value
and the possible types.
"""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Iterable, Sequence
from types import FrameType

from lightning.fabric.utilities.exceptions import MisconfigurationException

from mnist_zoo import registry
from mnist_zoo.errors import UnknownNameError, ZooError, did_you_mean, first_lines

_TYPE = re.compile(r"Expected an? (?:<class '([\w.]+)'>|typing\.Literal\[(.*?)\]\B)")
_GOT = re.compile(r"Got value: (.*)")
_GIVEN = re.compile(r"Given value: (.*)")
_NESTED = re.compile(r"NestedArg\(key='([^']*)', val=(.*)\)$")
# Flags of other projects, and names with a part left out.
_ELSEWHERE = {
    "lr": "--model.lr",
    "learning_rate": "--model.lr",
    "wd": "--model.weight_decay",
    "weight_decay": "--model.weight_decay",
    "optimizer": "--model.optimizer",
    "batch_size": "--data.batch_size",
    "batch-size": "--data.batch_size",
    "bs": "--data.batch_size",
    "epochs": "--trainer.max_epochs",
    "max_epochs": "--trainer.max_epochs",
    "device": "--trainer.accelerator",
    "accelerator": "--trainer.accelerator",
    "precision": "--trainer.precision",
    "seed": "--seed_everything",
}
_NO_CLASS = re.compile(r"Expected a dot import path string: (.*)")
_NEEDS = re.compile(r"given class_path '([\w.]+)':\s+the following arguments are required: (.*)")
_CLASS = re.compile(r"given class_path '([\w.]+)'")


def plain(message: str, options: Iterable[str], classes: dict[str, type]) -> str:
    """Return the relevant part of a parser's message, with a suggestion.

    Args:
        message: The parser's message, of any number of lines.
        options: All flags, such as ``--trainer.max_epochs``.
        classes: The known classes for ``model`` or ``data``, by name.
    """
    if match := re.match(r"unrecognized arguments: (\S+)", message):
        word = match[1].partition("=")[0]
        kind = "option" if word.startswith("-") else "argument"
        return f"unknown {kind} {word}.{_meant(word, options)}"
    if match := re.search(r"does not accept option '([^']+)'", message):
        flags = [option.lstrip("-") for option in options]
        return f"unknown setting {match[1]} in a configuration.{did_you_mean(match[1], flags)}"

    keys = re.findall(r'Parser key "([^"]+)"', message)
    key = ".".join(keys)
    kind = registry.KINDS.get(key, "class")
    if match := re.search(r"Option '([^']+)' is not accepted", message):
        flag = f"--{key}.{match[1]}"
        everyone = classes.values() if key in registry.KINDS else ()
        if any(match[1] in registry.accepted(cls) for cls in everyone):
            return f"unknown option {flag}. The chosen {kind} has no such option."
        chosen = _CLASS.search(message) if key in registry.KINDS else None
        accepted = registry.accepted(registry.import_class(chosen[1])) if chosen else ()
        return f"unknown option {flag}.{_meant(flag, [f'--{key}.{name}' for name in accepted])}"

    got, given = _GOT.findall(message), _GIVEN.findall(message)
    value = (got or given or [""])[0].strip()
    if match := _NESTED.match(value):
        value = match[2].strip("'\"")
    known = {name: cls for name, cls in classes.items() if not inspect.isabstract(cls)}
    choices = f"\nChoose from {', '.join(known)}." if key == "data" else ""
    if match := _NO_CLASS.search(message):
        hint = did_you_mean(match[1], known)
        return f"--{key} {match[1]}: no such class.{hint or choices}"
    if key in registry.KINDS and "but is abstract" in message:
        return f"--{key} {value}: not a {kind}, but the base class of all.{choices}"
    if match := _CLASS.search(message):
        try:
            registry.import_class(match[1])
        except UnknownNameError as error:
            return str(error)
    if match := _NEEDS.search(message):
        needed = match[2].split(", ")
        name = match[1].rpartition(".")[2]
        how = " and ".join(f"--{key}.{argument}" for argument in needed)
        return f"{name} needs {' and '.join(needed)}: give {how}."
    if match := re.search(r"does not correspond to a subclass of (\w+)", message):
        return f"--{key} {value}: not a {kind} (a subclass of {match[1]})."
    if key in registry.KINDS and "Not a valid subclass" in message:
        return f"{key} has no class_path in the configuration. Give one there, or with --{key}."
    if re.search(r"arguments are required: .*\bmodel\b|Classifier is abstract", message):
        return "which network? Name one with --model.\nAll networks: mnist-zoo models"
    expected = [
        choice.strip("'")
        for name, values in _TYPE.findall(message)
        for choice in (name or values).split(", ")
        if choice != "NoneType"
    ]
    if key and expected:
        comma = re.fullmatch(r"(\d*),(\d+)", value)
        hint = f" Did you mean {comma[1] or 0}.{comma[2]}?" if comma and "float" in expected else ""
        return f"--{key} {value}: expected {' or '.join(dict.fromkeys(expected))}.{hint}"
    return "\n".join(line.strip() for line in message.splitlines() if line.strip())[:400]


def _meant(word: str, options: Iterable[str]) -> str:
    """Return ``" Did you mean --X?"`` for an unknown flag: other projects' names, then typos."""
    last = word.rpartition(".")[2].lstrip("-")
    flag = _ELSEWHERE.get(last, "")
    prefix = word.rpartition(".")[0]
    if flag and flag.startswith(prefix):
        return f" Did you mean {flag}?"
    return did_you_mean(word, options)


def without_value(words: Sequence[str]) -> str:
    """Return which flag lacks a value: the parser names only the beginning of the flag."""
    for word, following in zip(words, [*words[1:], "--"], strict=False):
        if word.startswith("--") and "=" not in word and following.startswith("--"):
            return f"{word}: a value is missing."
    return ""


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
