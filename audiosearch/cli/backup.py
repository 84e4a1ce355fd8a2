"""`audiosearch backup` and `audiosearch restore`."""

from __future__ import annotations

import click

from audiosearch.cli.common import Common, byte_size, common_options, fields_of, print_json, printable
from audiosearch.cli.progress import StepView


@click.command()
@click.argument("dest", metavar="DEST", type=click.Path(file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common_options
def backup(common: Common, dest: str, as_json: bool) -> int:
    """Copy the library to another place, also while it is in use.

    A second backup to the same place copies only what is new. A backup can be searched: `--library DEST query ...`.
    """
    with common.open() as library, StepView(quiet=common.quiet) as view:
        copied = library.backup(dest, progress=view)
    if as_json:
        print_json(fields_of(copied))
        return 0
    kept = f", {byte_size(copied.bytes_kept)} were there already" if copied.bytes_kept else ""
    click.echo(f"backed up to {printable(copied.directory)}: {byte_size(copied.bytes_copied)} copied{kept}")
    return 0


@click.command()
@click.argument("source", metavar="SRC", type=click.Path(exists=True, file_okay=False))
@click.option("--force", is_flag=True, help="Move the library that is there aside first.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common_options
def restore(common: Common, source: str, force: bool, as_json: bool) -> int:
    """Make a library from a backup, and check it.

    It is made at --library, or where your library usually is; that place must be empty, or --force given.
    """
    from audiosearch.library import Library

    with StepView(quiet=common.quiet) as view:
        copied = Library.restore(source, common.library, force=force, progress=view)
    if as_json:
        print_json(fields_of(copied))
        return 0
    click.echo(f"restored to {printable(copied.directory)}: {byte_size(copied.bytes_copied)}")
    if copied.replaced:
        common.note(f"the library that was there is now {printable(copied.replaced)}; delete it when you are content")
    return 0
