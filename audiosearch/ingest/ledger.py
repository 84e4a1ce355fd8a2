"""The failure ledger, as one run sees it: what to try again, and what to tell at the end.

The store keeps the ledger; here is what its causes mean.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from audiosearch.errors import MediaError, UsageError
from audiosearch.ingest import scan
from audiosearch.store.records import FileState
from audiosearch.store.store import Store
from audiosearch.types import FailedFile


def fails_for_good(state: FileState) -> bool:
    """Whether an unchanged file that failed before is not worth another attempt: its cause lies in the file itself, or
    each attempt is costly and there were several."""
    return state.failed_cause is not None and not MediaError.is_tried_again(state.failed_cause, state.failed_attempts)


def failed_files(store: Store, paths: Collection[str], cause: str | None) -> tuple[list[scan.Listed], list[str]]:
    """The failed files at or below `paths` (all, where there are none) with that `cause` (or any), and what there is to
    say about the others. Raises UsageError for a cause that there is not."""
    if cause is not None and cause not in MediaError.CAUSES:
        raise UsageError(f"no failure has the cause {cause!r}; there are {', '.join(MediaError.CAUSES)}")
    failed = [
        (root, path, scan.absolute_path(root, path))
        for root, path, its_cause in store.failed_places()
        if cause in (None, its_cause)
    ]
    below = [os.path.abspath(path) for path in paths]  # noqa: PTH100 - as the scan, no link is resolved
    notes = [
        f"no failed file is at or below {path}" for path in below if not any(scan.is_inside(f[2], path) for f in failed)
    ]
    wanted = [each for each in failed if not below or any(scan.is_inside(each[2], path) for path in below)]
    gone = [absolute for _, _, absolute in wanted if not os.path.lexists(absolute)]
    if not failed:
        notes.append(f"no file failed with the cause {cause}" if cause else "no file has failed")
    if gone:
        more = f" and {len(gone) - 1:,} more" if len(gone) > 1 else ""
        notes.append(f"{gone[0]}{more}: gone; `audiosearch sync` takes deleted files off the list")
    by_root: dict[str, list[bytes]] = {}
    for root, path, _ in wanted:
        by_root.setdefault(root, []).append(path)
    return [scan.Listed(root, tuple(names)) for root, names in by_root.items()], notes


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
