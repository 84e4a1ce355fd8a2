"""Ctrl-C as a question that a loop asks, instead of an exception anywhere in it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interruptible:
    """Says whether to stop: the caller wants it, or the first Ctrl-C came. The second one raises as usual."""

    def __init__(self, cancelled: Callable[[], bool] | None = None) -> None:
        self._cancelled = cancelled
        self._interrupted = False
        self._previous: Any = None

    def __enter__(self) -> Interruptible:
        # Other threads get no signals, and a handler that the caller set is the caller's business.
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._previous = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        self._interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def __call__(self) -> bool:
        return self._interrupted or (self._cancelled is not None and self._cancelled())
