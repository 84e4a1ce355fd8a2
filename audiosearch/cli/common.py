"""What commands share: the options that name a library and a model, and how things are printed."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from audiosearch.export.values import JSON_VERSION as JSON_VERSION
from audiosearch.export.values import fields_of as fields_of

if TYPE_CHECKING:
    from audiosearch.library import Library


@dataclass(frozen=True, slots=True)
class Common:
    """The options every command with a library takes, before or after its name."""

    library: str | None
    model: str | None
    device: str | None
    quiet: bool

    def open(self, *, create: bool = False) -> Library:
        """The library these options name."""
        from audiosearch.library import Library

        return Library.open(self.library, create=create, model=self.model, device=self.device)

    def note(self, message: str) -> None:
        """A line on stderr, unless --quiet."""
        if not self.quiet:
            click.echo(message, err=True)


def common_options(function: Callable[..., int]) -> Callable[..., int]:
    """Add --library, --model, --device and --quiet to a command, whose first argument becomes a `Common`."""

    @click.option("--library", metavar="DIR", help="The library to use.")
    @click.option("--model", metavar="NAME", help="Bundled name, directory or hub id of a model.")
    @click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1 ...")
    @click.option("-q", "--quiet", is_flag=True, help="No progress, no notes.")
    @functools.wraps(function)
    def with_common(*args: Any, library: str, model: str, device: str, quiet: bool, **options: Any) -> int:
        common = Common(
            library or _said_before("library"),
            model or _said_before("model"),
            device or _said_before("device"),
            quiet or bool(_said_before("quiet")),
        )
        return function(common, *args, **options)

    return with_common


def _said_before(option: str) -> Any:
    """What a group was given: `audiosearch --library DIR query ...` and `audiosearch spaces --library DIR drop ...`."""
    context = click.get_current_context().parent
    while context is not None:
        if context.params.get(option):
            return context.params[option]
        context = context.parent
    return None


def print_json(value: dict[str, Any], *, lines: bool = False) -> None:
    """One JSON object on stdout, in one line if it is one of several `lines`. ASCII only: lone surrogates of a
    non-UTF-8 name survive as escapes."""
    click.echo(json.dumps({"version": JSON_VERSION, **value}, indent=None if lines else 2))


def printable(path: str) -> str:
    """`path` on one line: control characters escaped (a name may hold a line break or worse), the rest as it is."""
    return "".join(char if char.isprintable() or "\ud800" <= char <= "\udfff" else repr(char)[1:-1] for char in path)


def clock(seconds: float) -> str:
    """12:05.5, from an hour on 1:12:05.5."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    rest = f"{minutes:02d}:{tenths / 10:04.1f}"
    return f"{hours}:{rest}" if hours else rest


def hours(seconds: float) -> str:
    """A length of sound in the unit that reads best."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def byte_size(n_bytes: float) -> str:
    """1.5 GB and the like."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def count(number: int, noun: str) -> str:
    """`1 file`, `2 files`, `1,000 files`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def styled(text: str, **style: Any) -> str:
    """`text` with colour if stdout is a terminal and NO_COLOR is not set."""
    if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return click.style(text, **style)
