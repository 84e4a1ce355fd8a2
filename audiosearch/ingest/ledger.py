"""The failure ledger, as one run sees it: what to try again, and what to tell at the end.

The store keeps the ledger; here is what its causes mean.
"""

from __future__ import annotations

from audiosearch.errors import MediaError
from audiosearch.store.records import FileState
from audiosearch.store.store import Store
from audiosearch.types import FailedFile


def fails_for_good(state: FileState) -> bool:
    """Whether an unchanged file that failed before is not worth another attempt: its cause lies in the file itself, or
    each attempt is costly and there were several."""
    return state.failed_cause is not None and not MediaError.is_tried_again(state.failed_cause, state.failed_attempts)


class Ledger:
    """The failed files that one run met: its own, and unchanged ones from before."""

    def __init__(self) -> None:
        self._paths: set[str] = set()

    def __len__(self) -> int:
        return len(self._paths)

    def note(self, path: str) -> None:
        """Count the file at this absolute path among those to report."""
        self._paths.add(path)

    def report(self, store: Store) -> tuple[FailedFile, ...]:
        """The noted files with cause, attempts and time, by path."""
        if not self._paths:
            return ()
        return tuple(sorted((f for f in store.failures() if f.path in self._paths), key=lambda failed: failed.path))
