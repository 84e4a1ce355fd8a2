"""`audiosearch query` and `audiosearch similar`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from audiosearch.cli.answers import answer_options
from audiosearch.cli.common import Common, common_options
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
@common_options
@answer_options
def query(
    common: Common, text: str | None, audio: str | None, asked: dict[str, Any], printing: Callable[[Answer], int]
) -> int:
    """Find moments by words, by an example sound, or both.

    TEXT is a sentence, or terms that are added up and left out: '"rain on a roof" + ref.wav@12.5-18 + hit:ab12 -
    "music"'. With --audio, sound and text are heard together, as one.

    Exit code: 0 with hits, 1 without, 2 after an error.
    """
    path, start, end = parse_example(audio) if audio is not None else (None, None, None)
    with common.open() as library:
        return printing(library.query(text, audio=path, start_seconds=start, end_seconds=end, **asked))


@click.command()
@click.argument("hit")
@common_options
@answer_options
def similar(common: Common, hit: str, asked: dict[str, Any], printing: Callable[[Answer], int]) -> int:
    """Find what sounds like an earlier hit.

    HIT is the beginning of its id, as `query` shows it. Exit code: 0 with hits, 1 without, 2 after an error.
    """
    with common.open() as library:
        return printing(library.similar(hit, **asked))
