"""`audiosearch query`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from audiosearch.cli.common import Common, clock, common_options, printable, styled
from audiosearch.errors import UsageError
from audiosearch.export import FORMATS, render
from audiosearch.query.grammar import parse_span

if TYPE_CHECKING:
    from audiosearch.types import Answer


def parse_example(value: str) -> tuple[str, float | None, float | None]:
    """`FILE[@start-end]` as file, start and end in seconds. Times are seconds, mm:ss or h:mm:ss; the end may be absent.

    A file of that whole name wins, so names that contain `@` work. Raises UsageError for a span that has no length.
    """
    if os.path.exists(value):  # noqa: PTH110 - no Path: the name stays as given
        return value, None, None
    return parse_span(value)


@click.command()
@click.argument("text", required=False)
@click.option(
    "--audio", metavar="FILE[@start-end]", help="An example sound, or a span of it: ref.wav@12.5-18, @1:05-1:09."
)
@click.option("--instruct", metavar="TEXT", help="What to listen for: the sound is judged under this instruction.")
@click.option("-k", "--hits", "k", type=click.IntRange(min=1), default=10, show_default=True, help="How many hits.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), help="Write the hits for another program.")
@click.option("--out", metavar="FILE", help="With --format: into this file.")
@common_options
def query(
    common: Common,
    text: str | None,
    audio: str | None,
    instruct: str | None,
    k: int,
    as_json: bool,
    form: str | None,
    out: str | None,
) -> int:
    """Find moments by words, by an example sound, or both.

    Exit code: 0 with hits, 1 without, 2 after an error.
    """
    if as_json and form not in (None, "json"):
        raise UsageError(f"--json and --format {form} contradict each other: leave one out")
    form = "json" if as_json else form
    if out is not None:
        check_out(out, form)
    path, start, end = parse_example(audio) if audio is not None else (None, None, None)
    with common.open() as library:
        answer = library.query(text, audio=path, start_seconds=start, end_seconds=end, instruction=instruct, k=k)
    if out is not None and form is not None:
        write_whole(out, render(answer, form))
    elif form is not None:
        click.echo(render(answer, form), nl=False)
    else:
        print_hits(answer)
    for note in answer.notes:
        common.note(f"note: {note}")
    if not answer.hits:
        common.note("no match")
    return 0 if answer.hits else 1


def print_hits(answer: Answer) -> None:
    """Rank, score, span and path of every hit, a line each, on stdout."""
    width = len(str(len(answer.hits)))
    for rank, hit in enumerate(answer.hits, 1):
        span = f"{clock(hit.start_seconds)}-{clock(hit.end_seconds)}"
        score = styled(f"{hit.score:.3f}", fg="green")
        click.echo(f"{rank:{width}d}  {score}  {styled(span, bold=True)}  {printable(hit.path)}")


def check_out(out: str, form: str | None) -> None:
    """Refuse, before anything is searched, a file that is not for exports: a slip must not cost a recording."""
    if form is None:
        raise UsageError(f"--out {out}: say with --format which of {', '.join(FORMATS)} to write")
    if Path(out).is_file() and Path(out).suffix.lower() not in FORMATS[form].extensions:
        known = " or ".join(FORMATS[form].extensions)
        raise UsageError(f"{printable(out)} exists and is not named {known}: it is not replaced; choose another name")


def write_whole(out: str, content: bytes) -> None:
    """Write a file as a whole or not at all; what is no plain file (a pipe, /dev/stdout) is just written to."""
    path = Path(out)
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
