"""For players: M3U, with VLC's options for where a piece begins and ends; other players ignore those."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING

from audiosearch.export.values import decimal, one_line

if TYPE_CHECKING:
    from audiosearch.types import Answer


def m3u_playlist(answer: Answer) -> Iterator[str]:
    """Hits in their order, each with its length, name and span."""
    yield "#EXTM3U\n"
    for hit in answer.hits:
        seconds = max(1, round(hit.end_seconds - hit.start_seconds))  # whole ones: not every player reads fractions
        span = f"{decimal(hit.start_seconds, 1)}-{decimal(hit.end_seconds, 1)} s"
        yield f"#EXTINF:{seconds},{_shown(PurePath(hit.path).name)} ({span})\n"
        yield f"#EXTVLCOPT:start-time={decimal(hit.start_seconds)}\n"
        yield f"#EXTVLCOPT:stop-time={decimal(hit.end_seconds)}\n"
        yield _location(hit.path) + "\n"


def _shown(name: str) -> str:
    """A title; bytes that are no UTF-8 would make players take the whole list for Latin-1."""
    return one_line(name).encode("utf-8", "replace").decode("utf-8").strip()


def _location(path: str) -> str:
    """The path itself where a line can hold it and players take it for a path, else as a URI."""
    if path.isprintable() and path == path.strip() and not path.startswith("#") and "://" not in path:
        return path
    from urllib.parse import quote

    return "file://" + quote(os.fsencode(path))
