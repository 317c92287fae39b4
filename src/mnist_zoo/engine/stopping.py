"""Deferring Ctrl-C and other signals until a run can stop without losing a step."""

from __future__ import annotations

import signal
import threading
from typing import Any

from lightning.pytorch.utilities.exceptions import SIGTERMException

# The last is sent when a terminal is closed; Windows has none.
SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class Stopping:
    """Defers the first Ctrl-C, SIGTERM or SIGHUP until the end of a block of steps."""

    def __init__(self) -> None:
        self.asked: type[BaseException] | None = None
        self._handlers: dict[int, Any] = {}

    def listen(self) -> None:
        """Handle the signals that are not ignored; only possible in the main thread."""
        self.asked = None
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._ask)

    def listen_no_more(self) -> None:
        """Restore the previous signal handlers."""
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def stop_if_asked(self) -> None:
        """Raise what the signal would have raised, if there was one."""
        if self.asked:
            raise self.asked

    def _ask(self, number: int, _: Any) -> None:
        self.stop_if_asked()
        self.asked = KeyboardInterrupt if number == signal.SIGINT else SIGTERMException
