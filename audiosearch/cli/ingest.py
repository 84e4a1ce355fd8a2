"""`audiosearch ingest`."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

import click

from audiosearch.cli import INTERRUPTED
from audiosearch.cli.common import Common, common_options, count, fields_of, hours, print_json, printable
from audiosearch.cli.progress import ProgressView

if TYPE_CHECKING:
    from audiosearch.types import IngestSummary

FINISHED_WITH_FAILURES = 3


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(exists=True))
@click.option(
    "--instruct", metavar="TEXT", help="Listen under this instruction, into a space of its own beside the default."
)
@click.option(
    "--window", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Length of a chunk in seconds."
)
@click.option("--hop", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Seconds from chunk to chunk.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Decoding processes.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@common_options
def ingest(
    common: Common,
    paths: tuple[str, ...],
    instruct: str | None,
    window: float | None,
    hop: float | None,
    workers: int | None,
    as_json: bool,
) -> int:
    """Index the sound of files and folders.

    What is unchanged since the last time is passed over.

    Exit code: 0 all good, 2 after an error, 3 finished but some files failed, 130 after Ctrl-C (what was done is kept).
    """
    with common.open(create=True) as library, ctrl_c(common) as cancelled, ProgressView(quiet=common.quiet) as view:
        summary = library.ingest(
            paths,
            instruction=instruct,
            window_seconds=window,
            hop_seconds=hop,
            workers=workers,
            progress=view,
            cancelled=lambda: bool(cancelled),
        )
        spaces = library.status().spaces
    code = report(common, summary, as_json)
    default = next((space for space in spaces if space.is_default), None)
    if instruct is None and default is not None and not summary.space.startswith(default.name):
        common.note(
            f"note: this went into space {summary.space[:12]}; queries search the default one, {default.name}, unless "
            f"its model is out of date; `audiosearch spaces default {summary.space[:12]}` changes that"
        )
    return code


def report(common: Common, summary: IngestSummary, as_json: bool) -> int:
    """Print what an ingest did and return the command's exit code."""
    if as_json:
        print_json(fields_of(summary))
    else:
        print_summary(summary)
    for warning in summary.warnings:
        common.note(f"warning: {printable(warning)}")
    for failed in summary.failed:  # even with --quiet: they are why the exit code is not 0
        click.echo(f"failed: {printable(failed.path)}: {failed.cause}: {printable(failed.detail)}", err=True)
    if summary.interrupted:
        return INTERRUPTED
    return FINISHED_WITH_FAILURES if summary.failed else 0


def print_summary(summary: IngestSummary) -> None:
    """A few lines on stdout."""
    head = "interrupted; kept so far" if summary.interrupted else "done"
    click.echo(
        f"{head}: {count(summary.files_seen, 'file')} seen, {summary.files_indexed:,} indexed, "
        f"{summary.files_unchanged:,} unchanged, {len(summary.failed):,} failed"
    )
    if summary.recordings_added or summary.recordings_shared:
        speed = summary.audio_seconds / summary.elapsed_seconds if summary.elapsed_seconds else 0.0
        click.echo(
            f"      {count(summary.recordings_added, 'new recording')}, {hours(summary.audio_seconds)} of sound in "
            f"{hours(summary.elapsed_seconds)} ({speed:.0f} x real time); "
            f"{count(summary.recordings_shared, 'file')} held known sound"
        )
        click.echo(
            f"      {count(summary.chunks_embedded, 'chunk')} embedded, {summary.chunks_reused:,} reused, "
            f"{summary.chunks_silent:,} silent"
        )
    if summary.device:
        click.echo(f"      on {summary.device}")


@contextlib.contextmanager
def ctrl_c(common: Common) -> Iterator[list[bool]]:
    """A list that is not empty once Ctrl-C was pressed; a second press interrupts at once."""
    pressed: list[bool] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(True)
        common.note("finishing what is under way; press Ctrl-C again to stop at once")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
