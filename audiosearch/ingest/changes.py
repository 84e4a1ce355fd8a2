"""What of the files on disk the space does not have yet: the scan held against the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from audiosearch.ingest import scan
from audiosearch.ingest.ledger import fails_for_good
from audiosearch.ingest.meter import Meter
from audiosearch.store.records import FileState
from audiosearch.store.store import Store


@dataclass(slots=True)
class File:
    """A file that has to be looked at."""

    root_id: int
    path: bytes  # relative to its root
    absolute: str
    stat: tuple[int, int, int]  # size, mtime_ns, inode: as of the scan, then as of just before it was read
    is_probed: bool = False
    has_changed: bool = False  # while it was being read, once already


@dataclass(slots=True)
class Findings:
    """The scanned files, sorted."""

    changed: list[File] = field(default_factory=list)  # new ones too, and those whose failure may have passed
    unreadable: list[tuple[File, str]] = field(default_factory=list)  # with the system's reason
    failed_before: list[str] = field(default_factory=list)  # absolute paths; unchanged since
    unchanged: int = 0
    warnings: list[str] = field(default_factory=list)


def find_changes(
    store: Store,
    space_id: int,
    targets: Iterable[scan.Target | scan.Listed],
    meter: Meter,
    stopped: Callable[[], bool],
    *,
    retry: bool = False,
) -> Findings:
    """Scan the targets, each file once, and sort what is there by what the space has of it.

    `retry`: unchanged files that failed for good are to be looked at as well.
    """
    findings = Findings()
    seen: set[tuple[str, bytes]] = set()  # targets may overlap
    for target in targets:
        root_id = store.add_root(target.root)
        states = store.file_states(root_id, space_id)
        for found in target.files(findings.warnings):
            if stopped():
                return findings
            if (target.root, found.path) in seen:
                continue
            seen.add((target.root, found.path))
            _sort(findings, target.root, root_id, found, states.get(found.path), meter, retry)
            meter.files_total += 1
            meter.tell()
    return findings


def _sort(
    findings: Findings,
    root: str,
    root_id: int,
    found: scan.ScannedFile,
    state: FileState | None,
    meter: Meter,
    retry: bool,
) -> None:
    stat = (found.size, found.mtime_ns, found.inode)
    is_same = state is not None and stat == (state.size, state.mtime_ns, state.inode)
    if state is not None and is_same and state.done:  # first: it is nearly every file of nearly every run
        findings.unchanged += 1
        meter.files_done += 1
        return
    absolute = scan.absolute_path(root, found.path)
    if found.error is not None:
        findings.unreadable.append((File(root_id, found.path, absolute, stat), found.error))
    elif state is not None and is_same and not retry and fails_for_good(state):
        findings.failed_before.append(absolute)
        meter.files_done += 1
    else:
        findings.changed.append(File(root_id, found.path, absolute, stat))
        meter.expect(found.size)
