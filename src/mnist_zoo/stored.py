"""What a checkpoint holds of a network or data set: its class, and plain values as arguments.

One rule says what is plain, when it is written and when it is read.
"""

from __future__ import annotations

from typing import Any

from mnist_zoo import registry

# Beyond what settings of a network or data set ever need.
_MOST_VALUES, _LONGEST_WORD, _MOST_LAYERS = 10_000, 10_000, 10


def class_and_arguments(made: Any) -> dict[str, Any]:
    """Return what it takes to make a network or data set again: ``class_path``, ``init_args``.

    Its ``hparams`` also hold what its class gives to the class above; that cannot be given again.
    """
    names = registry.accepted(type(made))  # type: ignore[arg-type]  # mypy takes no class for hashable
    arguments = {name: plain(value) for name, value in made.hparams.items() if name in names}
    return {"class_path": registry.path_of(type(made)), "init_args": arguments}


def not_plain(made: Any) -> str:
    """Return the first argument of a network or data set that is no plain value; else ``""``.

    A checkpoint with any other could not be opened safely, and is not.
    """
    arguments = class_and_arguments(made)["init_args"]
    return next((name for name, value in arguments.items() if not is_harmless(value)), "")


def plain(value: Any) -> Any:
    """Return a value with numbers of NumPy and torch, however deep within, as Python's own."""
    if getattr(value, "ndim", None) == 0:
        return value.item()
    if type(value) in (list, tuple, set):
        return type(value)(map(plain, value))
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return value


def is_harmless(values: Any) -> bool:
    """Return whether values in a checkpoint are numbers and words, in lists and dicts, and no more.

    The parser of the command line makes objects of what names a class, and takes a word for what it
    says in YAML: a list or dict in a word counts as one. What is too large is not harmless either.
    """
    to_come, num_seen = [values], 0
    while to_come:
        value = to_come.pop()
        num_seen += 1
        if num_seen > _MOST_VALUES:
            return False
        if type(value) is dict:
            if "class_path" in value:
                return False
            to_come += [*value, *value.values()]
        elif type(value) in (list, tuple, set):
            to_come += value
        elif type(value) is str:
            if not _is_word(value):
                return False
        elif type(value) not in (type(None), bool, int, float):
            return False
    return True


def _is_word(text: str) -> bool:
    """Return whether YAML reads no list or dict in a text, nor in what it reads there instead."""
    import yaml

    for _ in range(_MOST_LAYERS):
        if len(text) > _LONGEST_WORD:
            return False
        try:
            read = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError):
            return False
        if not isinstance(read, str) or read == text:
            return not isinstance(read, dict | list | set | tuple)
        text = read
    return False
