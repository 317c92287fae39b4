"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from mnist_zoo.errors import one_line


def in_markdown(
    columns: Sequence[str], numbers: Container[str], rows: Iterable[Sequence[str]]
) -> str:
    """Return a table in which the columns of numbers are right-aligned."""
    marks = ["---:" if column in numbers else "---" for column in columns]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in (columns, marks, *rows))


def _cell(text: str) -> str:
    """Return a text as a single table cell."""
    return one_line(text).replace("|", "\\|")
