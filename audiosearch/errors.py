"""Every error audiosearch raises on purpose.

    AudioSearchError            one clear line that says what to do next; the command line exits with 2
    ├── UsageError              an argument that cannot be meant
    │   └── QuerySyntaxError    a query or a filter that cannot be read; says where and what was expected
    ├── LibraryError            the catalogue itself
    │   ├── LibraryNotFound     no library at that place
    │   ├── LibraryEmpty        nothing has been ingested (or nothing in that space)
    │   ├── LibraryLocked       another process is writing; says which
    │   ├── SchemaError         a database that this version cannot open
    │   └── SpaceMismatch       vectors of different models or settings would meet
    ├── ModelError              a model that cannot be found, does not load, or does not fit its configuration
    └── MediaError              one file's sound cannot be read; `cause` is a short stable word

A `MediaError` concerns one file: ingest records it and goes on.
"""

from unicodedata import combining, east_asian_width


class AudioSearchError(Exception):
    """Root of everything the world can do wrong; a bug raises something else."""


class UsageError(AudioSearchError):
    """An argument that cannot be meant."""


class QuerySyntaxError(UsageError):
    """A query or a filter that cannot be read: at `position`, counted in characters of `source` from 0, something else
    was `expected`. `what` is "query" or "filter"."""

    def __init__(self, what: str, source: str, position: int, expected: str) -> None:
        assert 0 <= position <= len(source), position
        super().__init__(f"the {what} cannot be read: expected {expected} at character {position + 1}")
        self.what, self.source, self.position, self.expected = what, source, position, expected

    @property
    def drawing(self) -> str:
        """Two lines: the text around the mistake, and a caret below it."""
        start = max(0, self.position - 50)
        end = self.position + 25
        before, after = _one_line(self.source[start : self.position]), _one_line(self.source[self.position : end])
        more = "..." if start else ""
        rest = "..." if end < len(self.source) else ""
        return f"{more}{before}{after}{rest}\n{' ' * (len(more) + _columns(before))}^"

    def __reduce__(self) -> tuple[type, tuple[str, str, int, str]]:
        return type(self), (self.what, self.source, self.position, self.expected)


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def _columns(text: str) -> int:
    """How wide a terminal shows it."""
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


class LibraryError(AudioSearchError):
    """The catalogue itself."""


class LibraryNotFound(LibraryError):
    """No library at that place."""


class LibraryEmpty(LibraryError):
    """Nothing to search."""


class LibraryLocked(LibraryError):
    """Another process holds the writer lock."""


class SchemaError(LibraryError):
    """A database of another version, refused before anything is written."""


class SpaceMismatch(LibraryError):
    """Vectors that are not comparable would meet."""


class ModelError(AudioSearchError):
    """A model that cannot be used."""


class MediaError(AudioSearchError):
    """One file's sound cannot be read.

    `cause` is one of CAUSES: a short word that is stable across versions, for ledgers and scripts.
    """

    CAUSES = (
        "empty",
        "not-audio",
        "no-audio-stream",
        "corrupt",
        "too-large",  # beyond a limit: memory, hours of sound, channels
        "unreadable",
        "vanished",
        "too-slow",
        "crashed",
    )
    # Causes that may pass by themselves; the others hold until the file changes, or someone says `retry`.
    PASSING = frozenset({"unreadable", "vanished", "too-slow", "crashed"})
    # Those of PASSING that cost a time limit or a process each time, and so are tried again only so often.
    COSTLY = frozenset({"too-slow", "crashed"})
    COSTLY_ATTEMPTS = 3

    def __init__(self, path: str, cause: str, detail: str) -> None:
        assert cause in self.CAUSES, cause
        super().__init__(f"{path}: {detail}")
        self.path, self.cause, self.detail = path, cause, detail

    @classmethod
    def is_tried_again(cls, cause: str, attempts: int) -> bool:
        """Whether an ingest tries an unchanged file again that failed so often, last with this cause."""
        return cause in cls.PASSING and (cause not in cls.COSTLY or attempts < cls.COSTLY_ATTEMPTS)

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.path, self.cause, self.detail)
