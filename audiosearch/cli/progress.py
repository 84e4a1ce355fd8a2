"""How far an ingest is: a tqdm bar on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from audiosearch.cli.common import hours

if TYPE_CHECKING:
    from audiosearch.types import IngestProgress, StepProgress

LINE_EVERY_SECONDS = 30.0
_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} files{postfix} [{elapsed}]"


class ProgressView:
    """Call it with each `IngestProgress`. A context manager: the bar is gone from the terminal afterwards."""

    def __init__(self, *, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._clock = clock
        self._last_line = clock()
        self._bar: Any = None
        if not quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=0, bar_format=_BAR, file=sys.stderr, leave=False, dynamic_ncols=True)

    def __call__(self, state: IngestProgress) -> None:
        if self._bar is not None:
            self._bar.total = state.files_total
            self._bar.n = state.files_done
            self._bar.set_postfix_str(describe(state), refresh=False)
            self._bar.update(0)  # draws at most ten times a second
        elif not self._quiet and self._clock() - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = self._clock()
            click.echo(f"{state.files_done}/{state.files_total} files, {describe(state)}", err=True)

    def __enter__(self) -> ProgressView:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


class StepView:
    """Call it with each `StepProgress`: a bar for each step on a terminal, a line now and then elsewhere."""

    def __init__(self, *, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._clock = clock
        self._last_line = clock()
        self._bar: Any = None
        self._is_terminal = not quiet and sys.stderr.isatty()

    def __call__(self, state: StepProgress) -> None:
        if self._is_terminal:
            if self._bar is None or self._bar.desc != state.step + ": ":
                self._new_bar(state)
            self._bar.total = state.total
            self._bar.n = state.done
            self._bar.update(0)
        elif not self._quiet and self._clock() - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = self._clock()
            click.echo(f"{state.step}: {state.done:,} of {state.total:,} {state.unit}".rstrip(), err=True)

    def __enter__(self) -> StepView:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _new_bar(self, state: StepProgress) -> None:
        from tqdm import tqdm

        if self._bar is not None:
            self._bar.close()
        is_bytes = state.unit == "bytes"
        self._bar = tqdm(
            desc=state.step, total=state.total, unit="B" if is_bytes else " " + state.unit, unit_scale=is_bytes,
            file=sys.stderr, leave=False, dynamic_ncols=True,
        )  # fmt: skip


def describe(state: IngestProgress) -> str:
    """`3.1 h of sound, 85 x real time, ETA 0:12:05`, with what of it is known."""
    parts = [f"{hours(state.audio_seconds)} of sound"]
    if state.elapsed_seconds > 0 and state.audio_seconds > 0:
        parts.append(f"{state.audio_seconds / state.elapsed_seconds:.0f} x real time")
    left = seconds_left(state)
    if left is not None:
        minutes, seconds = divmod(round(left), 60)
        parts.append(f"ETA {minutes // 60}:{minutes % 60:02d}:{seconds:02d}")
    return ", ".join(parts)


def seconds_left(state: IngestProgress) -> float | None:
    """By the sound still to come where its length is known, else by the files; None before anything is known."""
    if state.audio_seconds_total and state.audio_seconds > 0:
        done = state.audio_seconds / state.audio_seconds_total
    elif state.files_done and state.files_total:
        done = state.files_done / state.files_total
    else:
        return None
    return max(0.0, state.elapsed_seconds * (1.0 / min(done, 1.0) - 1.0))
