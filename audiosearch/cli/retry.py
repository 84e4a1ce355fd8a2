"""`audiosearch retry`."""

from __future__ import annotations

import click

from audiosearch.cli.common import Common, common_options
from audiosearch.cli.ingest import ctrl_c, report
from audiosearch.cli.progress import ProgressView
from audiosearch.errors import MediaError


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--cause", type=click.Choice(MediaError.CAUSES), help="Only files that failed with this cause.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Decoding processes.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@common_options
def retry(common: Common, paths: tuple[str, ...], cause: str | None, workers: int | None, as_json: bool) -> int:
    """Read files again that failed.

    All of them, or those at or below PATH. An ingest tries again by itself what may have passed (an unreadable disk,
    say), and what has changed. This tries the rest too: after a limit was raised, or with a newer version of FFmpeg.

    Exit code: 0 all good, 2 after an error, 3 some still fail, 130 after Ctrl-C (what was done is kept).
    """
    with common.open() as library, ctrl_c(common) as cancelled, ProgressView(quiet=common.quiet) as view:
        summary = library.retry(paths, cause=cause, workers=workers, progress=view, cancelled=lambda: bool(cancelled))
    return report(common, summary, as_json)
