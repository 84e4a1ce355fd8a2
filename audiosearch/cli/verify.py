"""`audiosearch verify`."""

from __future__ import annotations

import click

from audiosearch.cli.common import Common, byte_size, common_options, count, fields_of, print_json, printable
from audiosearch.cli.progress import StepView

PROBLEMS_FOUND = 1


@click.command()
@click.option("--repair", is_flag=True, help="Repair what can be repaired.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common_options
def verify(common: Common, repair: bool, as_json: bool) -> int:
    """Check catalogue, vectors and indexes against each other.

    Reads the whole library, and may run beside an ingest; --repair may not.

    Exit code: 0 all is well, or is again; 1 there are problems; 2 after an error.
    """
    with common.open() as library, StepView(quiet=common.quiet) as view:
        result = library.verify(repair=repair, progress=view)
    if as_json:
        print_json(fields_of(result))
        return PROBLEMS_FOUND if result.problems else 0
    for problem in result.repaired:
        click.echo(f"repaired: {printable(problem.where)}: {problem.detail}")
    for problem in result.problems:
        who = "`audiosearch verify --repair` " if problem.is_repairable else "you can repair it: "
        remedy = problem.remedy if problem.is_repairable else problem.remedy.replace("restores", "restore", 1)
        click.echo(f"problem:  {printable(problem.where)}: {printable(problem.detail)}; {who}{remedy}")
    for note in result.notes:
        common.note(f"note: {printable(note)}")
    head = count(len(result.problems), "problem") if result.problems else "all is well"
    click.echo(
        f"{head}: {count(result.vectors, 'vector')} in {count(result.commit_groups, 'commit')} "
        f"({byte_size(result.bytes_read)}) and {count(result.indexes, 'index file')} checked"
    )
    return PROBLEMS_FOUND if result.problems else 0
