"""`audiosearch label`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from audiosearch.cli.answers import write_whole
from audiosearch.cli.common import Common, clock, common_options, count, fields_of, print_json, printable, styled
from audiosearch.errors import UsageError

if TYPE_CHECKING:
    from audiosearch.types import Label

VERDICTS = {"yes": True, "no": False}


@click.command()
@click.argument("words", nargs=-1, metavar="[HIT]... [yes|no] [TAG]")
@click.option("--list", "listing", is_flag=True, help="Print the labels, oldest first.")
@click.option("--remove", "removing", is_flag=True, help="Take back what was said of HIT.")
@click.option("--export", "out", metavar="FILE", help="Write the labels as .json, .ndjson or .csv.")
@click.option("--tag", metavar="TAG", help="With these: only labels about TAG.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common_options
def label(
    common: Common,
    words: tuple[str, ...],
    listing: bool,
    removing: bool,
    out: str | None,
    tag: str | None,
    as_json: bool,
) -> int:
    """Say of a hit whether it is what was meant; list, take back or export what was said.

    HIT is the beginning of a hit's id, as `query` shows it. Without a TAG the label is about the words that were
    searched for. Labels stay with the sound, whatever happens to files, models and spaces: `--filter label:TAG`
    searches among them, `query --learn TAG` learns from them, and the trainer reads their export.
    """
    if listing + removing + (out is not None) > 1:
        raise UsageError("--list, --remove and --export exclude each other: choose one")
    if listing or out is not None:
        if words:
            raise UsageError(f"--{'list' if listing else 'export'} takes no hits: choose with --tag")
        with common.open() as library:
            found = library.labels(tag)
        if out is not None:
            export(out, found)
            common.note(f"{count(len(found), 'label')} written to {printable(out)}")
        else:
            show(found, as_json, "labels")
        return 0
    if removing:
        if not words:
            raise UsageError("say which hits: `audiosearch label --remove HIT`; `--list` shows them")
        with common.open() as library:
            removed = [each for hit in words for each in library.unlabel(hit, tag)]
        show(removed, as_json, "removed")
        return 0
    hits, verdict, about = parse(words)
    if tag is not None:
        raise UsageError(f"the tag goes to the end: `audiosearch label {' '.join(hits)} {words[len(hits)]} {tag}`")
    with common.open() as library:
        made = [library.label(hit, verdict, about) for hit in hits]
    show(made, as_json, "labels")
    return 0


def parse(words: Sequence[str]) -> tuple[list[str], bool, str | None]:
    """(hits, verdict, tag) of `HIT... yes|no [TAG]`; a hit's id can be neither yes nor no."""
    at = next((at for at, word in enumerate(words) if word.lower() in VERDICTS), None)
    if at is None or at == 0:
        raise UsageError("say of which hit, and whether it is right: `audiosearch label HIT yes|no [TAG]`")
    if len(words) > at + 2:
        raise UsageError(f'one tag at a time; if it has spaces put it in quotes: "{" ".join(words[at + 1 :])}"')
    return list(words[:at]), VERDICTS[words[at].lower()], words[at + 1] if len(words) > at + 1 else None


def show(labels: Iterable[Label], as_json: bool, name: str) -> None:
    """The labels on stdout: a line each, or one object with them under `name`."""
    if as_json:
        print_json({name: [fields_of(each) for each in labels]})
        return
    for each in labels:
        verdict = styled(f"{'yes' if each.verdict else 'no':<3}", fg="green" if each.verdict else "red")
        span = f"{clock(each.start_seconds)}-{clock(each.end_seconds)}"
        about = each.tag or (f"({each.query})" if each.query else "-")
        path = printable(each.path) if each.path is not None else "(no file holds it any more)"
        click.echo(f"{each.hit_id}  {verdict}  {printable(about)}  {styled(span, bold=True)}  {path}")


def export(out: str, labels: Iterable[Label]) -> None:
    """Write them into the file `out`, as its extension says."""
    from audiosearch.export.judgements import render_labels

    write_whole(out, render_labels(labels, out))
