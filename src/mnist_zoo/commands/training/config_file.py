"""Configuration files, checked so that the parser's errors about them are plain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mnist_zoo.errors import ZooError, first_lines


def checked(config: Path) -> Path:
    """Return the file if it holds settings in a form for which the parser's errors are plain.

    Raises:
        ZooError: It does not.
    """
    import yaml

    try:
        settings = yaml.load(config.read_text(encoding="utf-8"), _strict_loader())
    # PyYAML passes on what its conversions of values raise.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or first_lines(error) or "a value"
        if isinstance(error, UnicodeDecodeError):
            problem = "not text"
        raise ZooError(f"--config {config}{line}: not valid YAML ({problem}).") from error
    if not isinstance(settings, dict):
        raise ZooError(f"--config {config}: holds no settings, which look like `trainer: ...`.")
    if odd := [key for key in _keys(settings) if not isinstance(key, str)]:
        raise ZooError(f"--config {config}: {odd[0]} is not the name of a setting.")
    for key in settings:
        group, dot, rest = key.partition(".")
        if dot and group in ("model", "data"):
            raise ZooError(f"--config {config}: {key}: write {rest} under {group}.init_args.")
    for key in ("trainer", "best", "last", "average"):
        if not isinstance(settings.get(key, {}), dict):
            raise ZooError(f"--config {config}: {key} must hold settings, one per line below it.")
    if settings.get("ckpt_path"):
        raise ZooError(f"--config {config}: ckpt_path is not read there; use --ckpt_path.")
    for key in ("model", "data"):
        entry = settings.get(key, {})
        if not isinstance(entry, str | dict):
            raise ZooError(
                f"--config {config}: {key} must be a name, or class_path and init_args below it."
            )
        if isinstance(entry, dict) and "class_path" in entry:
            misplaced = sorted({*entry} - {"class_path", "init_args", "dict_kwargs"})
            if misplaced:
                raise ZooError(
                    f"--config {config}: {key}.{misplaced[0]} belongs under {key}.init_args."
                )
    return config


def _strict_loader() -> type:
    """Return a YAML loader that rejects duplicate keys and values that contain themselves."""
    import yaml

    class Loader(yaml.SafeLoader):
        def __init__(self, stream: Any) -> None:
            super().__init__(stream)
            # PyYAML finds a value in itself only if its parts are made before it.
            self.deep_construct = True

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value]
            for number, (key, _) in enumerate(node.value):
                if key.value in names[:number]:
                    raise yaml.MarkedYAMLError(
                        problem=f"{key.value} is given twice", problem_mark=key.start_mark
                    )
            return super().construct_mapping(node, deep)

    return Loader


def _keys(settings: Any) -> Iterator[Any]:
    """Yield the keys of settings, including nested ones."""
    to_come, seen = [settings], set[int]()
    while to_come:
        value = to_come.pop()
        # A YAML alias is the same object wherever it is used.
        if isinstance(value, dict) and id(value) not in seen:
            seen.add(id(value))
            yield from value
            to_come += value.values()
