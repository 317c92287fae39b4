"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence


def in_markdown(
    columns: Sequence[str], numbers: Container[str], rows: Iterable[Sequence[str]]
) -> str:
    """Return a table, those columns that hold numbers aligned to the right."""
    marks = ["---:" if column in numbers else "---" for column in columns]
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, marks, *rows))
