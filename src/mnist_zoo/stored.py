"""What a checkpoint stores about a network or data set: its class and its plain arguments.

The same rule decides what counts as plain when writing and when reading.
"""

from __future__ import annotations

from typing import Any

from mnist_zoo import registry
from mnist_zoo.errors import ZooError

# More than the settings of a network or data set ever need.
_MOST_VALUES, _LONGEST_WORD, _MOST_LAYERS = 10_000, 10_000, 10


def class_and_arguments(made: Any) -> dict[str, Any]:
    """Return what rebuilds a network or data set: ``class_path`` and ``init_args``.

    Its ``hparams`` also hold arguments that its class passes to its base; these are left out.
    """
    names = registry.accepted(type(made))  # type: ignore[arg-type]  # mypy takes no class for hashable
    arguments = {name: to_python(value) for name, value in made.hparams.items() if name in names}
    return {"class_path": registry.path_of(type(made)), "init_args": arguments}


def require_plain_arguments(made: Any) -> None:
    """Refuse a network or data set with an argument that a checkpoint cannot hold.

    A checkpoint with other than plain values could not be opened safely, and is refused.

    Raises:
        ZooError: It has one.
    """
    for name, value in class_and_arguments(made)["init_args"].items():
        if not is_plain(value):
            kind = f"the text {value[:40]!r}" if isinstance(value, str) else type(value).__name__
            raise ZooError(
                f"{type(made).__name__}: its argument {name} is of {kind}, which a checkpoint"
                " cannot hold.\nTake numbers, words, and lists or dicts of these."
            )


def to_python(value: Any) -> Any:
    """Return a value with NumPy and torch scalars, however deeply nested, as Python numbers."""
    if getattr(value, "ndim", None) == 0:
        return value.item()
    if type(value) in (list, tuple, set):
        return type(value)(map(to_python, value))
    if isinstance(value, dict):
        return {key: to_python(part) for key, part in value.items()}
    return value


def is_plain(values: Any) -> bool:
    """Return whether values in a checkpoint are only numbers and strings, in lists and dicts.

    The command-line parser instantiates whatever names a class, and parses strings as YAML, so a
    list or dict within a string counts as one. Values that are too large are not harmless either.
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
    """Return whether YAML, applied repeatedly, finds no list or dict in a text."""
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
