"""`audiosearch status`."""

from __future__ import annotations

import click

from audiosearch.cli.common import Common, byte_size, common_options, count, fields_of, hours, print_json, printable
from audiosearch.errors import MediaError


@click.command()
@click.option("--failed", is_flag=True, help="List the files that could not be read.")
@click.option("--cause", type=click.Choice(MediaError.CAUSES), help="With --failed: only those that failed like this.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common_options
def status(common: Common, failed: bool, cause: str | None, as_json: bool) -> int:
    """Say what the library holds."""
    failed = failed or cause is not None
    with common.open() as library:
        state = library.status()
        failures = library.failures(cause=cause) if failed else ()
    if as_json:
        listed = {"failures": [fields_of(failure) for failure in failures]} if failed else {}
        print_json({**fields_of(state), **listed})
        return 0
    click.echo(f"library     {printable(state.directory)} ({byte_size(state.bytes_on_disk)})")
    for root in state.roots:
        click.echo(f"root        {printable(root)}")
    causes = ", ".join(f"{n:,} {cause}" for cause, n in state.failed_by_cause.items())
    click.echo(f"files       {state.files:,} ({state.failed:,} failed{': ' + causes if causes else ''})")
    click.echo(
        f"recordings  {state.recordings:,}, {hours(state.audio_seconds)} of sound, {count(state.chunks, 'chunk')}"
    )
    for space in state.spaces:
        mark = " (default)" if space.is_default else ""
        click.echo(f"space       {space.name}{mark}")
        click.echo(f"            model {space.model}, {space.dim} dimensions, {space.licence}")
        click.echo(f"            {count(space.recordings, 'recording')}, {count(space.vectors, 'vector')}")
        click.echo(f"            listens for: {space.document_instruction or '(no instruction)'}")
    for failure in failures:
        tries = count(failure.attempts, "try").replace("trys", "tries")
        click.echo(
            f"failed      {printable(failure.path)}: {failure.cause}: {printable(failure.detail)} "
            f"({tries}, last {failure.last_attempt_at}{'; the next ingest tries again' if failure.will_retry else ''})"
        )
    if state.failed and not failed:
        common.note("`audiosearch status --failed` lists the failed files")
    elif any(not failure.will_retry for failure in failures):
        which = "those that it passes over" if any(failure.will_retry for failure in failures) else "they"
        common.note(f"{which} are read again when they have changed, or by `audiosearch retry`")
    return 0
