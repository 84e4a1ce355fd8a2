"""`audiosearch demo`: synthesise a folder of sounds, ingest it, search it, and say what to try next."""

from __future__ import annotations

import contextlib
import shlex
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audiosearch.cli import INTERRUPTED
from audiosearch.cli.answers import print_hits
from audiosearch.cli.common import Common, common_options, count, fields_of, print_json, printable, styled
from audiosearch.cli.ingest import FINISHED_WITH_FAILURES, print_summary
from audiosearch.cli.progress import ProgressView
from audiosearch.cli.query import parse_example
from audiosearch.errors import UsageError

if TYPE_CHECKING:
    from audiosearch.library import Library
    from audiosearch.types import Answer

HITS = 3


@dataclass(frozen=True, slots=True)
class Search:
    """One query of the demo. `expected` is what should come first: the end of a path, with a model that can hear."""

    about: str
    expected: str
    text: str | None = None
    audio: str | None = None  # FILE[@start-end], below the demo's folder
    instruct: str | None = None

    @property
    def command(self) -> str:
        """The command line as a user would type it in the demo's folder."""
        words = ["audiosearch", "query"]
        if self.text is not None:
            words.append(self.text)
        if self.audio is not None:
            words += ["--audio", self.audio]
        if self.instruct is not None:
            words += ["--instruct", self.instruct]
        if self.text is not None and self.instruct is None:
            words += ["--names", "off"]
        return shlex.join([*words, "-k", str(HITS)])

    def run(self, library: Library, folder: Path) -> Answer:
        """The answer of `library`, asked as `command` would."""
        path, start, end = parse_example(str(folder / self.audio)) if self.audio is not None else (None, None, None)
        # By sound alone: the files of the demo are called what they are.
        return library.query(
            self.text,
            audio=path,
            start_seconds=start,
            end_seconds=end,
            instruction=self.instruct,
            names="off",
            k=HITS,
        )


SEARCHES = (
    Search("Plain words", "animals/dog.wav", "a dog barking"),
    Search("Other words than a label", "water/waves on the beach.opus", "the ocean rolling onto the shore"),
    Search("Music", "music/piano.flac", "somebody plays the piano"),
    Search("A moment in a long recording", "scenes/evening walk.flac", "a thunderstorm"),
    Search("An example sound: a dog that is in no file", "animals/dog.wav", audio="examples/another dog.wav"),
    Search("A span of a recording as the example", "signals/siren.wav", audio="sounds/scenes/evening walk.flac@37-44"),
    Search("Words alone", "home/footsteps.wav", "someone walking"),
    Search(
        "The same words under an instruction",
        "scenes/waves with footsteps behind.wav",
        "someone walking",
        instruct="what is in the background?",
    ),
)


@click.command()
@click.option(
    "--keep", metavar="DIR", help="Write sounds and library here and leave them. [default: a temporary folder]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common_options
def demo(common: Common, keep: str | None, as_json: bool) -> int:
    """Make a small library of synthesised sounds and search it: by words, by example, under an instruction.

    Nothing is downloaded. Without --keep everything is removed at the end.
    """
    if common.library is not None:
        raise UsageError(
            "the demo makes a library of its own: leave --library out, or choose its place with --keep DIR"
        )
    started = time.perf_counter()
    with _folder(keep) as folder:
        result = _run(common, folder, as_json=as_json)
        seconds = time.perf_counter() - started
        if isinstance(result, int):
            return result
        if as_json:
            print_json({"directory": str(folder), "kept": keep is not None, **result, "elapsed_seconds": seconds})
        else:
            _print_next(folder if keep else None, seconds)
    return FINISHED_WITH_FAILURES if result["ingest"]["failed"] else 0


def _run(common: Common, folder: Path, *, as_json: bool) -> dict[str, Any] | int:
    """Make the sounds, ingest and search them, printing as it goes; what was found, or an exit code if interrupted."""
    from audiosearch.cli.demo_sounds import EXAMPLES, SOUNDS, write_sounds
    from audiosearch.library import Library

    def say(line: str = "") -> None:
        if not as_json:
            click.echo(line)

    common.note(f"making {count(len(SOUNDS), 'sound')} in {printable(str(folder / 'sounds'))}")
    write_sounds(SOUNDS, folder / "sounds")
    write_sounds(EXAMPLES, folder / "examples")
    # A model's directory is named so that the library finds it from anywhere.
    model = str(Path(common.model).absolute()) if common.model and Path(common.model).is_dir() else common.model
    say(_prompt("cd " + shlex.quote(str(folder))))
    say(_prompt("export AUDIOSEARCH_LIBRARY=" + shlex.quote(str(folder / "library"))))
    say(_prompt(shlex.join(["audiosearch", "ingest", *(["--model", model] if model else []), "sounds"])))
    with (
        Library.open(folder / "library", create=True, model=model, device=common.device) as library,
        ProgressView(quiet=common.quiet) as view,
    ):
        summary = library.ingest([folder / "sounds"], progress=view)
        if summary.interrupted:
            return INTERRUPTED
        if not as_json:
            print_summary(summary)
        for failed in summary.failed:
            click.echo(f"failed: {printable(failed.path)}: {failed.cause}: {printable(failed.detail)}", err=True)
        searches: list[dict[str, Any]] = []
        answers: dict[str, Answer] = {}
        for search in SEARCHES:
            say(f"\n# {search.about}.")
            say(_prompt(search.command))
            answer = search.run(library, folder)
            if not as_json:
                print_hits(answer)
            for note in answer.notes:
                common.note(f"note: {note}")
            searches.append({"command": search.command, "expected": search.expected, "answer": fields_of(answer)})
            if search.instruct is not None:
                searches[-1]["why"] = _why(search, answers[search.text or ""], answer)
                say(f"\nWhy: {searches[-1]['why']}")
            answers[search.text or ""] = answer
    return {"ingest": fields_of(summary), "searches": searches}


def _why(search: Search, without: Answer, under: Answer) -> str:
    """What the instruction changed, and how."""
    before, after = (_best(answer) for answer in (without, under))
    changed = f"the best hit changed from {before} to {after}" if before != after else f"the best hit is still {after}"
    return (
        f"{changed}. Stored vectors do not know a question that is asked later, so the {under.reread} sounds that fit "
        f"{search.text!r} best were heard again, each with the question {search.instruct!r} beside it. A sound then "
        f"lies where its answer does, and the ones that answer {search.text!r} come first."
    )


def _best(answer: Answer) -> str:
    return printable(Path(answer.hits[0].path).name) if answer.hits else "none"


def _prompt(command: str) -> str:
    return styled(f"$ {command}", bold=True)


@contextlib.contextmanager
def _folder(keep: str | None) -> Iterator[Path]:
    """An empty folder to work in: `keep`, else a temporary one that is removed afterwards."""
    if keep is None:
        # On Windows a decoder that is just ending may still hold a file: leave it rather than fail.
        with tempfile.TemporaryDirectory(prefix="audiosearch-demo-", ignore_cleanup_errors=True) as temporary:
            yield Path(temporary)
        return
    folder = Path(keep).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: not a folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder}: not empty: name a new folder for the demo to keep its files in")
    folder.mkdir(parents=True, exist_ok=True)
    yield folder


def _print_next(kept: Path | None, seconds: float) -> None:
    click.echo(f"\nDone in {seconds:.0f} s. What to try next:")
    if kept is None:
        click.echo("  audiosearch demo --keep DIR                    the same, left in DIR to listen to and to search")
    else:
        library = shlex.quote(str(kept / "library"))
        click.echo(f"  audiosearch --library {library} query 'a helicopter flying'")
    click.echo("  audiosearch ingest FOLDER                      index your own recordings")
    click.echo("  audiosearch query 'rain on a tin roof'         search them by words")
    click.echo("  audiosearch query --audio REF.wav@0:12-0:18    or by a sound like it")
    click.echo("  audiosearch query birds --instruct 'what is in the background?'")
