"""`audiosearch ingest`."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from audiosearch.cli import INTERRUPTED
from audiosearch.cli.common import Common, common_options, count, fields_of, hours, print_json, printable
from audiosearch.cli.progress import ProgressView

if TYPE_CHECKING:
    from audiosearch.types import IngestSummary

FINISHED_WITH_FAILURES = 3
BOTTLENECKS = {
    "read": "reading the files",
    "decode": "decoding",
    "load": "loading the model",
    "model": "the model",
    "store": "writing to the library",
}


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
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C: take in what is new or changed as it comes.")
@click.option(
    "--settle",
    type=click.FloatRange(min=0),
    metavar="S",
    help="With --watch: read a file once it has not changed for so many seconds. [default: 5]",
)
@click.option(
    "--poll",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="With --watch: seconds between looks at folders whose changes the system does not tell. [default: 30]",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the summary as one JSON object; with --watch one line for each round.",
)
@common_options
def ingest(
    common: Common,
    paths: tuple[str, ...],
    instruct: str | None,
    window: float | None,
    hop: float | None,
    workers: int | None,
    watch: bool,
    settle: float | None,
    poll: float | None,
    as_json: bool,
) -> int:
    """Index the sound of files and folders.

    What is unchanged since the last time is passed over. Another --model, --window, --hop or --instruct makes a new
    space beside the others (see `audiosearch spaces`).

    Exit code: 0 all good, 2 after an error, 3 finished but some files failed, 130 after Ctrl-C (what was done is kept);
    with --watch 0 if Ctrl-C came while nothing was under way.
    """
    if watch:
        how = {"instruction": instruct, "window_seconds": window, "hop_seconds": hop, "workers": workers}
        return _watch(common, paths, as_json, settle_seconds=settle, poll_seconds=poll, **how)
    if settle is not None or poll is not None:
        raise click.UsageError("--settle and --poll need --watch")
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


def _watch(common: Common, paths: tuple[str, ...], as_json: bool, **options: Any) -> int:
    """Ingest round after round until Ctrl-C, or SIGTERM."""
    interrupted = False
    with (
        common.open(create=True) as library,
        ctrl_c(common, signal.SIGINT, signal.SIGTERM) as cancelled,
        contextlib.ExitStack() as stack,
    ):
        view = stack.enter_context(ProgressView(quiet=common.quiet))

        def on_round(summary: IngestSummary) -> None:
            nonlocal view, interrupted
            stack.close()  # the bar of this round
            report(common, summary, as_json, lines=True)
            sys.stdout.flush()
            interrupted = summary.interrupted
            view = stack.enter_context(ProgressView(quiet=common.quiet))

        library.watch(
            paths,
            on_round=on_round,
            on_note=lambda note: common.note(printable(note)),
            progress=lambda state: view(state),
            cancelled=lambda: bool(cancelled),
            **options,
        )
    return INTERRUPTED if interrupted else 0


def report(common: Common, summary: IngestSummary, as_json: bool, *, lines: bool = False) -> int:
    """Print what an ingest did and return the command's exit code. `lines`: JSON on one line, as one of many."""
    if as_json:
        print_json(fields_of(summary), lines=lines)
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
    moved = f"{summary.files_moved:,} moved, " if summary.files_moved else ""
    click.echo(
        f"{head}: {count(summary.files_seen, 'file')} seen, {summary.files_indexed:,} indexed, "
        f"{summary.files_unchanged:,} unchanged, {moved}{len(summary.failed):,} failed"
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
    if summary.stages and summary.bottleneck:
        busy = fields_of(summary.stages)
        shares = ", ".join(f"{stage} {share:.0%}" for stage, share in busy.items() if stage != "load" or share >= 0.01)
        click.echo(f"      slowest: {BOTTLENECKS[summary.bottleneck]}; busy: {shares}")


@contextlib.contextmanager
def ctrl_c(common: Common, *signals: signal.Signals) -> Iterator[list[bool]]:
    """A list that is not empty once Ctrl-C was pressed, or one of `signals` came; a second one interrupts at once."""
    pressed: list[bool] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(True)
        common.note("finishing what is under way; press Ctrl-C again to stop at once")

    before = {each: signal.signal(each, stop) for each in signals or (signal.SIGINT,)}
    try:
        yield pressed
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
