"""Errors that the command line shows as plain text instead of a traceback, and their wording."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

EMPTY_ARGUMENT = "an argument is empty: is a shell variable unset?"


class ZooError(Exception):
    """An error that the user can fix: one or two plain lines saying what, where and how.

    Any other exception is a bug in this package and keeps its traceback.
    """


class DataError(ZooError):
    """Data that is missing or damaged, or a request that it cannot meet."""


class UnknownNameError(ZooError):
    """A network, recipe or class that does not exist, or an ambiguous name."""


class FinishedError(ZooError):
    """A run that is to be resumed, but has nothing left to do."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``" Did you mean X?"`` for the choice closest to ``word``, else an empty string."""
    meant = closest(word, choices)
    return f" Did you mean {meant}?" if meant else ""


def closest(word: str, choices: Iterable[str]) -> str:
    """Return the choice closest to ``word``; an empty string if none is close."""
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else ""


def first_lines(error: BaseException) -> str:
    """Return the first two lines of an exception's message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "\n".join(lines[:2])


def printable(text: str) -> str:
    """Return a text with control codes other than line breaks made visible.

    Names in untrusted files may contain such codes, which a terminal would obey.
    """
    return "".join(
        char if char == "\n" or unicodedata.category(char) != "Cc" else ascii(char)[1:-1]
        for char in text
    )


def one_line(text: str) -> str:
    """Return a printable text without line breaks, for a table cell."""
    return printable(text.replace("\n", " "))
