"""Errors of jsonargparse in one or two plain lines.

It answers a wrong value with every type that it tried; users need the flag, the value and the
possible types.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence

from mnist_zoo import registry
from mnist_zoo.errors import EMPTY_ARGUMENT, UnknownNameError, closest, did_you_mean

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


def in_plain_words(message: str, options: Iterable[str], classes: Mapping[str, type]) -> str:
    """Return the relevant part of a parser's message, with a suggestion.

    Args:
        message: The parser's message, of any number of lines.
        options: All flags, such as ``--trainer.max_epochs``.
        classes: The known classes for ``model`` or ``data``, by name.
    """
    return (
        _of_unknown_name(message, options)
        or _of_unknown_argument(message, classes)
        or _of_class(message, classes)
        or _of_value(message)
        or "\n".join(line.strip() for line in message.splitlines() if line.strip())[:400]
    )


def without_value(words: Sequence[str]) -> str:
    """Return which flag lacks a value: the parser names only the beginning of the flag."""
    for word, following in zip(words, [*words[1:], "--"], strict=False):
        if word.startswith("--") and "=" not in word and following.startswith("--"):
            return f"{word}: a value is missing."
    return ""


def _of_unknown_name(message: str, options: Iterable[str]) -> str:
    """Say which flag or setting does not exist, if that is the error; else return ``""``."""
    if re.fullmatch(r"unrecognized arguments:\s*", message):
        return EMPTY_ARGUMENT
    if match := re.match(r"unrecognized arguments: (\S+)", message):
        word = match[1].partition("=")[0]
        kind = "option" if word.startswith("-") else "argument"
        return f"unknown {kind} {word}.{_meant(word, options)}"
    if match := re.search(r"does not accept option '([^']+)'", message):
        flags = [option.lstrip("-") for option in options]
        return f"unknown setting {match[1]} in a configuration.{did_you_mean(match[1], flags)}"
    return ""


def _of_unknown_argument(message: str, classes: Mapping[str, type]) -> str:
    """Say which argument the chosen class does not have, if that is the error."""
    match = re.search(r"Option '([^']+)' is not accepted", message)
    if match is None:
        return ""
    key = _key(message)
    flag = f"--{key}.{match[1]}"
    if key not in registry.KINDS:
        return f"unknown option {flag}."
    if any(match[1] in registry.accepted(cls) for cls in classes.values()):
        return f"unknown option {flag}. The chosen {registry.KINDS[key]} has no such option."
    if (chosen := _CLASS.search(message)) is None:
        return f"unknown option {flag}."
    path = chosen[1]
    accepted = [f"--{key}.{name}" for name in registry.accepted(registry.import_class(path))]
    name = path.rpartition(".")[2] if path.startswith("mnist_zoo.") else path
    hint = f"\nFor all options of {name}: mnist-zoo fit --{key}.help {name}"
    return f"unknown option {flag}.{_meant(flag, accepted)}{hint}"


def _of_class(message: str, classes: Mapping[str, type]) -> str:
    """Say what is wrong with a class or its name, if that is the error."""
    key, value = _key(message), _value(message)
    kind = registry.KINDS.get(key, "class")
    known = {name: cls for name, cls in classes.items() if not inspect.isabstract(cls)}
    choices = f"\nChoose from {', '.join(known)}." if key == "data" else ""
    if match := _NO_CLASS.search(message):
        return f"--{key} {match[1]}: no such class.{did_you_mean(match[1], known) or choices}"
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
    return ""


def _of_value(message: str) -> str:
    """Say which types or words a value may have, if it has none of them."""
    expected = [
        choice.strip("'")
        for name, values in _TYPE.findall(message)
        for choice in (name or values).split(", ")
        if choice != "NoneType"
    ]
    key, value = _key(message), _value(message)
    if not (key and expected):
        return ""
    comma = re.fullmatch(r"(\d*),(\d+)", value)
    hint = f" Did you mean {comma[1] or 0}.{comma[2]}?" if comma and "float" in expected else ""
    if value.lower() == "none" and "NoneType" in message:
        hint = " Did you mean null?"
    return f"--{key} {value}: expected {' or '.join(dict.fromkeys(expected))}.{hint}"


def _key(message: str) -> str:
    """Return the setting that a message is about, such as ``trainer.max_epochs``."""
    return ".".join(re.findall(r'Parser key "([^"]+)"', message))


def _value(message: str) -> str:
    """Return the value that a message is about, as it was given."""
    value = (_GOT.findall(message) or _GIVEN.findall(message) or [""])[0].strip()
    match = _NESTED.match(value)
    return match[2].strip("'\"") if match else value


def _meant(word: str, options: Iterable[str]) -> str:
    """Return ``" Did you mean --X?"`` for an unknown flag: other projects' names, then typos."""
    last = word.rpartition(".")[2].lstrip("-")
    flag = _ELSEWHERE.get(last, "")
    prefix = word.rpartition(".")[0]
    if flag and flag.startswith(prefix):
        return f" Did you mean {flag}?"
    beside = {option.rpartition(".")[2] for option in options if option.startswith(f"{prefix}.")}
    if not beside:
        return did_you_mean(word, options)
    # Without what they share, which makes all of them look alike.
    meant = closest(last, beside)
    return f" Did you mean {prefix}.{meant}?" if meant else ""
