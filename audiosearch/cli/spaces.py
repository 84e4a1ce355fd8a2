"""`audiosearch spaces`: the sets of vectors that live side by side in one library."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from audiosearch.cli.common import Common, common_options, count, fields_of, print_json, printable
from audiosearch.cli.ingest import ctrl_c, report
from audiosearch.cli.progress import ProgressView

if TYPE_CHECKING:
    from audiosearch.types import SpaceStatus


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common_options
def spaces(common: Common, as_json: bool) -> int:
    """List the sets of vectors, choose which is searched, fill one up, drop one.

    A space is what one model made under one instruction with one window and hop; vectors of different spaces are never
    compared. `ingest` with another --model, --window, --hop or --instruct makes a new one beside the others. NAME is
    the beginning of a space's name, or its model or instruction where that is clear.
    """
    if click.get_current_context().invoked_subcommand is not None:
        return 0
    with common.open() as library:
        state = library.status()
    if as_json:
        listed = [{**fields_of(each), "recordings_missing": missing(each, state.recordings)} for each in state.spaces]
        print_json({"recordings": state.recordings, "spaces": listed})
        return 0
    for each in state.spaces:
        mark = " (default)" if each.is_default else ""
        lacking = missing(each, state.recordings)
        fill = f"{each.recordings:,} of {count(state.recordings, 'recording')}" + (
            f", {lacking:,} to go" * bool(lacking)
        )
        click.echo(f"{each.name}{mark}  {fill}, {count(each.vectors, 'vector')}")
        cut = f"{each.window_seconds:g} s every {each.hop_seconds:g} s"
        click.echo(f"    {printable(each.model)}, {each.dim} dimensions, {cut}, {each.licence}")
        click.echo(f"    listens for: {printable(each.document_instruction) or '(no instruction)'}")
    half = next((each for each in state.spaces if missing(each, state.recordings)), None)
    if not state.spaces:
        common.note("no space yet: `audiosearch ingest FOLDER` makes the first")
    elif half is not None:
        common.note(f"`audiosearch spaces resume {half.name}` embeds what is missing there")
    return 0


def missing(space: SpaceStatus, recordings: int) -> int:
    """How many of the library's recordings the space lacks."""
    return max(recordings - space.recordings, 0)


@spaces.command("default")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the space as one JSON object.")
@common_options
def default_(common: Common, name: str, as_json: bool) -> int:
    """Search this space when none is named, and ingest as it was made."""
    with common.open() as library:
        library.set_default_space(name)
        chosen = next(each for each in library.spaces() if each.is_default)
    if as_json:
        print_json(fields_of(chosen))
    else:
        click.echo(f"queries search {chosen.name} now ({printable(chosen.model)})")
    return 0


@spaces.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print the dropped space as one JSON object.")
@common_options
def drop(common: Common, name: str, yes: bool, as_json: bool) -> int:
    """Forget a space and its vectors. The sound files and the other spaces stay as they are."""
    with common.open() as library:
        dropped = library.find_space(name)
        if not yes:
            what = f"space {dropped.name}: {count(dropped.vectors, 'vector')} of {printable(dropped.model)}"
            if not sys.stdin.isatty():
                raise click.UsageError(f"{what} would be gone for good: add --yes if that is meant")
            click.confirm(f"Drop {what}? To get them back all of it must be embedded again", abort=True, err=True)
        library.drop_space(dropped.name)
    if as_json:
        print_json(fields_of(dropped))
    else:
        click.echo(f"dropped {dropped.name}; its files go when the library is next written to")
    return 0


@spaces.command()
@click.argument("name")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Decoding processes.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@common_options
def resume(common: Common, name: str, workers: int | None, as_json: bool) -> int:
    """Embed what the library knows and this space lacks, as the space was made.

    Exit code: as of `ingest`.
    """
    with common.open() as library, ctrl_c(common) as cancelled, ProgressView(quiet=common.quiet) as view:
        summary = library.resume_space(name, workers=workers, progress=view, cancelled=lambda: bool(cancelled))
    return report(common, summary, as_json)
