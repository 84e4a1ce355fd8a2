"""The command line: a thin shell over `audiosearch.Library`. Resolve input, call, print.

Results go to stdout, everything else to stderr. Only click is imported to answer `--help`: a command's module is
imported when that command runs, and the one-line helps are written here. Errors are translated in one place, `run`.

Exit codes: 0 good (query: hits) · 1 query: no hits; verify: problems; model verify: not as published · 2 error ·
3 ingest or evaluate finished with failures · 4 sync kept files of what may be a disk that is not mounted ·
130 Ctrl-C · 141 the reader of stdout is gone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

import audiosearch
from audiosearch.errors import AudioSearchError, QuerySyntaxError

# name -> (module, attribute, one line). In the order in which someone meets them.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": (
        "audiosearch.cli.demo",
        "demo",
        "Make a small library of synthesised sounds and search it: by words, by example, under an instruction.",
    ),
    "ingest": ("audiosearch.cli.ingest", "ingest", "Index the sound of files and folders."),
    "query": ("audiosearch.cli.query", "query", "Find moments by words, by an example sound, or both."),
    "similar": ("audiosearch.cli.query", "similar", "Find what sounds like an earlier hit."),
    "label": (
        "audiosearch.cli.label",
        "label",
        "Say of a hit whether it is what was meant; list, take back or export what was said.",
    ),
    "status": ("audiosearch.cli.status", "status", "Say what the library holds."),
    "sync": ("audiosearch.cli.sync", "sync", "Follow the ingested folders: what is new, changed, moved or deleted."),
    "info": ("audiosearch.cli.info", "info", "Say what is known of a file: sound, tags, markers, time."),
    "retry": ("audiosearch.cli.retry", "retry", "Read files again that failed."),
    "spaces": (
        "audiosearch.cli.spaces",
        "spaces",
        "List the sets of vectors, choose which is searched, fill one up, drop one.",
    ),
    "verify": ("audiosearch.cli.verify", "verify", "Check catalogue, vectors and indexes against each other."),
    "backup": ("audiosearch.cli.backup", "backup", "Copy the library to another place, also while it is in use."),
    "restore": ("audiosearch.cli.backup", "restore", "Make a library from a backup, and check it."),
    "reindex": ("audiosearch.cli.reindex", "reindex", "Build the search index anew from the stored vectors."),
    "doctor": ("audiosearch.cli.doctor", "doctor", "Check the installation and say what to do about what is wrong."),
    "model": ("audiosearch.cli.model", "model", "Describe a model, or verify it against published similarities."),
    "train": ("audiosearch.cli.train", "train", "Train a model from a recipe."),
    "evaluate": (
        "audiosearch.cli.evaluate",
        "evaluate",
        "Judge a model by a public test set, beside the published figures.",
    ),
}
INTERRUPTED, PIPE_CLOSED = 130, 141


class LazyGroup(click.Group):
    """A group that knows its commands' names and helps, and imports a command when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        from importlib import import_module

        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_) for name, (_, _, help_) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # `| head` is satisfied. What is still buffered has nowhere to go; Python would complain at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise click.exceptions.Exit(PIPE_CLOSED) from None
        return result


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with `audiosearch demo`, or `audiosearch ingest FOLDER` and `audiosearch query TEXT`.",
)
@click.option(
    "--library", metavar="DIR", help="The library. [default: $AUDIOSEARCH_LIBRARY, else your user data folder]"
)
@click.option("--model", metavar="NAME", help="Bundled name, directory or hub id of a model.")
@click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1 ... [default: the best there is]")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no notes.")
@click.version_option(audiosearch.__version__, prog_name="audiosearch")
def cli(**_: object) -> None:
    """Find the moment you mean in a folder of sound: by words, by an example, or by both, steered by an instruction."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The console script."""
    sys.exit(run(argv))


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; what the world did wrong becomes one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:  # a file name that is not UTF-8 must come out as the bytes it is
            reconfigure(errors="surrogateescape")
    try:
        code = cli.main(None if argv is None else list(argv), prog_name="audiosearch", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" (see `{context.command_path} --help`)" if context else ""
        return _complain(error.format_message().rstrip(".") + hint)
    except (AudioSearchError, OSError) as error:
        if os.environ.get("AUDIOSEARCH_TRACEBACK"):
            raise
        code = _complain(str(error))
        if isinstance(error, QuerySyntaxError):
            click.echo("\n".join(f"  {line}" for line in error.drawing.split("\n")), err=True)
        return code
    except (click.Abort, KeyboardInterrupt):
        click.echo("audiosearch: interrupted", err=True)
        return INTERRUPTED


def _complain(message: str) -> int:
    click.echo("audiosearch: " + " ".join(message.split()), err=True)
    return 2
