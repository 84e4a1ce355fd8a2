"""How answers are asked for and printed: the options that `query` and `similar` share."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audiosearch.cli.common import Common, clock, count, printable, styled
from audiosearch.errors import UsageError
from audiosearch.export import FORMATS, render

if TYPE_CHECKING:
    from audiosearch.types import Answer, Explanation

ID_DIGITS = 8  # enough to tell the newest 100,000 hits apart, nearly always


def answer_options(function: Callable[..., int]) -> Callable[..., int]:
    """Add the options of a search. Those of `library.Query` come as one dict, `asked`; how to print as `printing`."""

    @click.option("--filter", metavar="FILTER", help='Which files to search: "tag:rain duration:5-30s -codec:mp3".')
    @click.option("--instruct", metavar="TEXT", help="What to listen for: the sound is judged under this instruction.")
    @click.option("-k", "--hits", "k", type=click.IntRange(min=1), default=10, show_default=True, help="How many hits.")
    @click.option(
        "--by", type=click.Choice(["moment", "file"]), default="moment", show_default=True, help="What a hit is."
    )
    @click.option(
        "--merge-gap", type=float, default=0.0, metavar="SECONDS", help="Moments this close together are one hit."
    )
    @click.option(
        "--names",
        type=click.Choice(["auto", "any", "off"]),
        default="auto",
        show_default=True,
        help="Rank files higher that are called like the text: with all its words, any of them, or not at all.",
    )
    @click.option("--learn", metavar="TAG", help="Search with what was labelled about TAG, too.")
    @click.option("--refine", is_flag=True, help="Hear the hits again, for where the sound begins and ends.")
    @click.option("--rerank", type=click.IntRange(min=0), metavar="N", help="With --instruct: hear N candidates again.")
    @click.option("--no-rerank", is_flag=True, help="Hear none again.")
    @click.option("--budget", type=click.FloatRange(min=0), metavar="SECONDS", help="Time for hearing again.")
    @click.option(
        "--min-confidence",
        type=click.FloatRange(0, 1),
        metavar="SHARE",
        help="Leave out hits that a query for something that is not there would reach more often than 1 - SHARE.",
    )
    @click.option("--explain", is_flag=True, help="Tell the candidates, their scores, and what took how long.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    @click.option("--format", "form", type=click.Choice(list(FORMATS)), help="Write the hits for another program.")
    @click.option("--out", metavar="FILE", help="With --format: into this file.")
    @functools.wraps(function)
    def with_options(
        common: Common,
        *args: Any,
        filter: str | None,
        instruct: str | None,
        k: int,
        by: str,
        merge_gap: float,
        names: str,
        learn: str | None,
        refine: bool,
        rerank: int | None,
        no_rerank: bool,
        budget: float | None,
        min_confidence: float | None,
        explain: bool,
        as_json: bool,
        form: str | None,
        out: str | None,
        **options: Any,
    ) -> int:
        if no_rerank and rerank:
            raise UsageError(f"--no-rerank and --rerank {rerank} contradict each other: leave one out")
        asked = {
            "filter": filter,
            "instruction": instruct,
            "k": k,
            "by": by,
            "merge_gap_seconds": merge_gap,
            "names": names,
            "learn": learn,
            "refine": refine,
            "rerank": 0 if no_rerank else rerank,
            "budget_seconds": budget,
            "min_confidence": min_confidence,
            "explain": explain,
        }
        return function(common, *args, asked=asked, printing=_printing(common, as_json, form, out), **options)

    return with_options


def _printing(common: Common, as_json: bool, form: str | None, out: str | None) -> Callable[[Answer], int]:
    """What prints an answer as asked for and gives the exit code. Mistakes are told now, before the search."""
    if as_json and form not in (None, "json"):
        raise UsageError(f"--json and --format {form} contradict each other: leave one out")
    chosen = "json" if as_json else form
    if out is not None:
        check_out(out, chosen)

    def show(answer: Answer) -> int:
        if out is not None and chosen is not None:
            write_whole(out, render(answer, chosen))
        elif chosen is not None:
            click.echo(render(answer, chosen), nl=False)
        else:
            print_hits(answer)
        if answer.explanation is not None and chosen != "json":
            print_explanation(answer.explanation)
        for note in answer.notes:
            common.note(f"note: {note}")
        if not answer.hits:
            common.note("no match")
        return 0 if answer.hits else 1

    return show


def print_hits(answer: Answer) -> None:
    """Rank, score, confidence, span, id and path of every hit, a line each, on stdout."""
    width = len(str(len(answer.hits)))
    for rank, hit in enumerate(answer.hits, 1):
        span = f"{clock(hit.start_seconds)}-{clock(hit.end_seconds)}"
        score = styled(f"{hit.score:.3f}", fg="green")
        # Rounded down: what is called 100% would be certain.
        sure = "   -" if hit.confidence is None else f"{int(100 * hit.confidence):3d}%"
        short = styled(hit.id[:ID_DIGITS], dim=True)
        reasons = "; ".join(reason for reason in hit.matched if reason != "sound")
        why = f"  ({printable(reasons)})" if reasons else ""
        click.echo(f"{rank:{width}d}  {score}  {sure}  {styled(span, bold=True)}  {short}  {printable(hit.path)}{why}")


def print_explanation(explanation: Explanation) -> None:
    """How the answer came about, on stderr."""
    searched = explanation.vectors if explanation.allowed is None else explanation.allowed
    lines = [f"model {explanation.model}; index {explanation.index}, {count(explanation.vectors, 'vector')}"]
    if explanation.allowed is not None:
        lines.append(f"the filter leaves {searched:,}")
    lines.append("; ".join(f"{step} {1000 * seconds:.1f} ms" for step, seconds in explanation.seconds.items()))
    lines.append("stored  heard again  hit       where")
    for each in explanation.candidates:
        again = f"{each.reread_score:11.3f}" if each.reread_score is not None else " " * 11
        span = f"{clock(each.start_seconds)}-{clock(each.end_seconds)}"
        hit = (each.hit or "")[:ID_DIGITS]
        lines.append(f"{each.stored_score:6.3f}  {again}  {hit:{ID_DIGITS}}  {span} {printable(each.path)}")
    for line in lines:
        click.echo(line, err=True)


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
