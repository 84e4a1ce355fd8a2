"""What keeps one file within its limits, inside the decode process: a clock, a cap on memory, a cap on sound.

Memory is capped by RLIMIT_DATA, raised for each file to what the process holds plus the limit. On Linux that counts
every private allocation and no mapped library, so FFmpeg, NumPy and Python all get "out of memory" where a whole
machine would run out; RLIMIT_AS would also count the libraries and what is only reserved. Other systems accept the
call and do not keep to it: there the process looks at its own peak once a second, and Windows has neither.

A process that cannot even do this, because FFmpeg does not return, is ended by its parent (`workers`).
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from audiosearch.config import Limits
from audiosearch.errors import MediaError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

BEAT_SECONDS = 1.0
_MB = 1_000_000
_FREE_SECONDS = 600.0  # of sound, from however few bytes


class Watch:
    """One file's clock. Call it often: about once a second it gives a sign of life and looks at the limits.

    Raises MediaError ("too-slow", "too-large") when one is passed. Time in `waiting()` does not count.
    """

    def __init__(self, path: str, size: int, limits: Limits, sign: Callable[[], None]) -> None:
        self._path, self._size, self._limits, self._sign = path, size, limits, sign
        self._started = self._beat_at = time.monotonic()
        self._sound_seconds = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._beat_at < BEAT_SECONDS:
            return
        self._beat_at = now
        spent, least = now - self._started, self._limits.min_speed
        with self.waiting():
            self._sign()
        if spent > self._limits.stall_seconds + (self._sound_seconds + self._size / _MB) / least:
            self._fail(
                "too-slow",
                f"{self._sound_seconds:.0f} s of sound in {spent:.0f} s: slower than file_min_speed = {least:g} allows",
            )
        if not _KEEPS_DATA_LIMIT and _peak_mb() > self._limits.memory_mb:
            self._fail("too-large", memory_message(self._limits))

    def heard(self, seconds: float) -> None:
        """So much sound came out so far. Raises MediaError if it is more than a file of this size may hold."""
        self._sound_seconds = seconds
        if seconds > self._limits.max_hours * 3600:
            self._fail("too-large", f"longer than file_max_hours = {self._limits.max_hours:g}")
        per_byte = self._limits.max_seconds_per_byte
        if seconds > _FREE_SECONDS + self._size * per_byte:
            self._fail(
                "too-large",
                f"{self._size:,} bytes give more than {seconds / 3600:.1f} h of sound: "
                f"more than file_max_seconds_per_byte = {per_byte:g} allows",
            )

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """For time that the file is not to blame for, such as a parent that is behind."""
        before = time.monotonic()
        try:
            yield
        finally:
            self._started += time.monotonic() - before

    def _fail(self, cause: str, detail: str) -> None:
        raise MediaError(self._path, cause, f"{detail}; raise it and run `audiosearch retry --cause {cause}`")


class Memory:
    """What this process may allocate. `base` is what it held when it began: make one when everything is imported."""

    def __init__(self, limit_mb: int) -> None:
        self._limit = limit_mb * _MB
        self._base = _data_bytes()

    @contextlib.contextmanager
    def capped(self) -> Iterator[None]:
        """Allocating more than the limit raises MemoryError in here; lifted again outside, so that it can be told."""
        if not _KEEPS_DATA_LIMIT:
            yield
            return
        before = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = _data_bytes() + self._limit
        soft = wanted if before[1] == resource.RLIM_INFINITY else min(wanted, before[1])
        resource.setrlimit(resource.RLIMIT_DATA, (soft, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, before)

    def is_swollen(self) -> bool:
        """Whether files that are done with left so much behind that a new process is better."""
        return _data_bytes() - self._base > self._limit / 2


def memory_message(limits: Limits) -> str:
    """What is told of a file that needed more memory than it may."""
    return f"reading it takes more memory than file_memory_mb = {limits.memory_mb}"


_KEEPS_DATA_LIMIT = sys.platform == "linux"


def _data_bytes() -> int:
    """This process' private writable memory, as RLIMIT_DATA counts it; 0 where that cannot be known."""
    if not _KEEPS_DATA_LIMIT:
        return 0
    return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()


def _peak_mb() -> float:
    if resource is None:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MB if sys.platform == "darwin" else peak * 1024 / _MB
