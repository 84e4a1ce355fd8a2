"""`audiosearch reindex`."""

from __future__ import annotations

import click

from audiosearch.cli.common import Common, byte_size, common_options, count, fields_of, print_json
from audiosearch.cli.progress import StepView

# As in `library.INDEX_KINDS`, which is not imported for --help.
KINDS = ("auto", "flat", "hnsw", "ivf", "ivf-sq8", "ivf-pq")


@click.command()
@click.option("--kind", type=click.Choice(KINDS), default="auto", show_default=True, help="What to build.")
@click.option("--space", metavar="NAME", help="Of this space only, as in `audiosearch spaces`.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common_options
def reindex(common: Common, kind: str, space: str | None, as_json: bool) -> int:
    """Build the search index anew from the stored vectors.

    The model is not called and no sound is read. `auto` takes an exact index for up to 50,000 vectors, beyond that the
    first kind that is measured to find 99 % of the true ten best: ivf, or for very many ivf-sq8 or ivf-pq, which need
    less memory. An ingest does the same when a library has doubled.
    """
    with common.open() as library, StepView(quiet=common.quiet) as view:
        built = library.reindex(kind, space=space, progress=view)
    if as_json:
        print_json({"indexes": [fields_of(each) for each in built]})
        return 0
    for each in built:
        size, seconds = byte_size(each.bytes_on_disk), f"{each.seconds:.1f} s"
        click.echo(f"{each.space}  {each.kind} ({each.factory}), {count(each.vectors, 'vector')}, {size}, {seconds}")
        if each.recall:
            found = ", ".join(f"{name} {recall:.3f}" for name, recall in each.recall.items())
            click.echo(f"    finds of the ten best: {found}; {each.milliseconds:.1f} ms a query")
    if not built:
        common.note("nothing to index yet: `audiosearch ingest FOLDER` comes first")
    return 0
