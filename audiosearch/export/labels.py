"""For editors and bioacoustics: Audacity label tracks, Raven selection tables. Tab-separated text both.

Neither format can hold a tab or a line break in a name; each becomes a space.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING

from audiosearch.export.values import decimal, one_line

if TYPE_CHECKING:
    from audiosearch.types import Answer

_RAVEN = ("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)",
          "Begin File", "Begin Path", "File Offset (s)", "Score", "Query")  # fmt: skip
# Raven wants a band; ours is all that the built-in model hears, at 16 kHz.
_LOW_HZ, _HIGH_HZ = "0", "8000"


def audacity_labels(answer: Answer) -> Iterator[str]:
    """`start TAB end TAB text`, in time order, file by file. A label track is of one file: where hits are of several,
    the text begins with the path."""
    several = len({hit.path for hit in answer.hits}) > 1
    for hit in sorted(answer.hits, key=lambda hit: (hit.path, hit.start_seconds, hit.end_seconds)):
        text = f"{answer.query} ({hit.score:.3f})"
        text = f"{hit.path}: {text}" if several else text
        yield f"{hit.start_seconds:.6f}\t{hit.end_seconds:.6f}\t{one_line(text)}\n"


def raven_table(answer: Answer) -> Iterator[str]:
    """A header and a row a hit, best first. Times are of each file; `Begin Path` says which."""
    yield "\t".join(_RAVEN) + "\n"
    for rank, hit in enumerate(answer.hits, 1):
        start, end = f"{hit.start_seconds:.6f}", f"{hit.end_seconds:.6f}"
        name, path, query = one_line(PurePath(hit.path).name), one_line(hit.path), one_line(answer.query)
        row = (
            str(rank),
            "Spectrogram 1",
            "1",
            start,
            end,
            _LOW_HZ,
            _HIGH_HZ,
            name,
            path,
            start,
            decimal(hit.score),
            query,
        )
        yield "\t".join(row) + "\n"
