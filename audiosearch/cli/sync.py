"""`audiosearch sync`."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

import click

from audiosearch.cli import INTERRUPTED
from audiosearch.cli.common import Common, common_options, count, fields_of, print_json, printable
from audiosearch.cli.ingest import FINISHED_WITH_FAILURES, ctrl_c, print_summary
from audiosearch.cli.progress import ProgressView

if TYPE_CHECKING:
    from audiosearch.types import HeldBack, SyncSummary

HELD_BACK = 4


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--dry-run", is_flag=True, help="Only list what is new, changed, moved and deleted.")
@click.option("--yes", is_flag=True, help="Remove deleted files also where it looks like a disk that is not mounted.")
@click.option(
    "--root",
    "relocated",
    metavar="OLD=NEW",
    multiple=True,
    help="The folder OLD is at NEW now, as on another computer. Its files are not read again.",
)
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Decoding processes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common_options
def sync(
    common: Common,
    paths: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    relocated: tuple[str, ...],
    workers: int | None,
    as_json: bool,
) -> int:
    """Follow the ingested folders: what is new, changed, moved or deleted.

    All of them, or what lies at or below PATH. Moved and renamed files keep their vectors. Deleted files are removed,
    but of a folder that is missing or empty, on another disk than before, or of which more than 20 % (and more than 10)
    of the files are gone, only with --yes: its disk may not be mounted.

    Exit code: 0 all good, 2 after an error, 3 finished but some files failed, 4 deleted files were kept that only --yes
    removes, 130 after Ctrl-C (what was done is kept, and nothing removed).
    """
    with common.open() as library, ctrl_c(common) as cancelled, ProgressView(quiet=common.quiet) as view:
        summary = library.sync(
            paths,
            relocate=dict(_parsed(each, library.status().roots) for each in relocated),
            dry_run=dry_run,
            prune_all=yes,
            workers=workers,
            progress=view,
            cancelled=lambda: bool(cancelled),
        )
    if as_json:
        print_json({"dry_run": summary.ingest is None, **fields_of(summary)})
    elif summary.ingest is None:
        _print_plan(summary)
    else:
        print_summary(summary.ingest)
        if summary.files_removed:
            click.echo(
                f"      {count(summary.files_removed, 'deleted file')} removed, "
                f"and {count(summary.recordings_removed, 'recording')} that no other file holds"
            )
    return _complain(common, summary)


def _parsed(given: str, roots: Collection[str]) -> tuple[str, str]:
    """OLD=NEW as its parts: a name may hold a `=` as well, so OLD is tried against the roots."""
    for i in (i for i, char in enumerate(given) if char == "="):
        old = os.path.abspath(os.path.expanduser(given[:i]))  # noqa: PTH100, PTH111 - links stay as given
        if old in roots and given[i + 1 :]:
            return old, os.path.expanduser(given[i + 1 :])  # noqa: PTH111
    raise click.UsageError(f"--root {given}: give OLD=NEW, where OLD is a root that `audiosearch status` lists")


def _print_plan(summary: SyncSummary) -> None:
    for each in summary.moved:
        click.echo(f"moved    {printable(each.before)} -> {printable(each.after)}")
    named: Iterable[tuple[str, tuple[str, ...]]] = (
        ("new", summary.new),
        ("changed", summary.changed),
        ("again", summary.again),
        ("gone", summary.gone),
    )
    for word, files in named:
        for path in files:
            click.echo(f"{word:8} {printable(path)}")
    click.echo(
        f"would do: {summary.files_unchanged:,} unchanged, {len(summary.moved):,} moved, {len(summary.new):,} new, "
        f"{len(summary.changed):,} changed, {len(summary.again):,} again, {len(summary.gone):,} gone"
    )


def _kept(held: HeldBack) -> str:
    if held.reason == "unreadable":
        return f"{held.detail}; run `audiosearch sync` again when it can be"
    remedy = "; `audiosearch sync --root OLD=NEW` says where it is now" if held.reason == "missing" else ""
    return (
        f"{held.gone:,} of {count(held.known, 'file')} gone, none removed: {printable(held.detail)} "
        f"(`audiosearch sync --yes` removes them{remedy})"
    )


def _complain(common: Common, summary: SyncSummary) -> int:
    """Say on stderr what did not go well and return the exit code."""
    ingest = summary.ingest
    for warning in ingest.warnings if ingest else summary.warnings:
        common.note(f"warning: {printable(warning)}")
    for failed in ingest.failed if ingest else ():
        click.echo(f"failed: {printable(failed.path)}: {failed.cause}: {printable(failed.detail)}", err=True)
    for held in summary.held_back:  # even with --quiet: they are why the exit code is not 0
        click.echo(f"kept: {printable(held.root)}: {_kept(held)}", err=True)
    if ingest is not None and ingest.interrupted:
        return INTERRUPTED
    if summary.held_back:
        return HELD_BACK
    return FINISHED_WITH_FAILURES if ingest is not None and ingest.failed else 0
