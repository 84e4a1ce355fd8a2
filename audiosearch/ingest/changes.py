"""What of the files on disk the space does not have yet: the scan held against the store."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from audiosearch.ingest import scan
from audiosearch.ingest.ledger import fails_for_good
from audiosearch.ingest.meter import Meter
from audiosearch.ingest.moves import Match, find_moves
from audiosearch.ingest.volumes import Volumes, is_other
from audiosearch.store.records import FileState, Root
from audiosearch.store.store import Store
from audiosearch.types import Metadata


@dataclass(slots=True)
class File:
    """A file that has to be looked at."""

    root_id: int
    path: bytes  # relative to its root
    absolute: str
    stat: tuple[int, int, int]  # size, mtime_ns, inode: as of the scan, then as of just before it was read
    news: Literal["new", "changed", "again"] = "new"  # again: unchanged, but the space lacks it, or it failed
    is_probed: bool = False
    has_changed: bool = False  # while it was being read, once already
    metadata: Metadata | None = None  # once its recording is known
    warning: str | None = None  # about the metadata


@dataclass(slots=True)
class Findings:
    """The scanned files, sorted."""

    changed: list[File] = field(default_factory=list)  # new ones too, and those whose failure may have passed
    unreadable: list[tuple[File, str]] = field(default_factory=list)  # with the system's reason
    failed_before: list[str] = field(default_factory=list)  # absolute paths; unchanged since
    undescribed: list[File] = field(default_factory=list)  # unchanged, but nothing is known of what they say
    moved: list[Match] = field(default_factory=list)
    stayed: list[Match] = field(default_factory=list)  # where they were, in a root that is elsewhere now
    unchanged: int = 0
    present: dict[int, set[bytes]] = field(default_factory=dict)  # every path that was found, by root
    other_volumes: dict[int, str] = field(default_factory=dict)  # roots that are on another disk than before
    warnings: list[str] = field(default_factory=list)


def targets_of(store: Store, paths: Iterable[str | scan.Target | scan.Listed]) -> list[scan.Target | scan.Listed]:
    """What to scan for the paths a user named; what is a target already stays.

    Raises:
        UsageError: a path does not exist, or is neither a file nor a directory.
    """
    given = list(paths)
    roots = store.root_states()
    walked = scan.targets(
        [each for each in given if isinstance(each, str)],
        [root.path for root in roots],
        unwalked=[root.path for root in roots if not root.is_walked],
        exclude=[str(store.directory)],
    )
    return [*walked, *(each for each in given if not isinstance(each, str))]


def find_changes(
    store: Store,
    space_id: int,
    targets: Iterable[scan.Target | scan.Listed],
    meter: Meter,
    stopped: Callable[[], bool],
    *,
    retry: bool = False,
    relocated: Collection[int] = (),
) -> Findings:
    """Scan the targets, each file once, sort what is there by what the space has of it, and tell the store what moved.

    `retry`: unchanged files that failed for good are to be looked at as well. `relocated` as in `find_moves`.
    """
    wanted = list(targets)
    roots = _entered(store, wanted)
    findings = look(store, space_id, wanted, roots, meter, stopped, retry=retry, relocated=relocated)
    moves = [each.move for each in (*findings.stayed, *findings.moved)]
    if moves:
        store.move_files(space_id, moves)
        store.forget_roots([root.id for root in roots.values() if not os.path.lexists(root.path)])
    return findings


def look(
    store: Store,
    space_id: int,
    targets: Iterable[scan.Target | scan.Listed],
    roots: Mapping[str, Root],
    meter: Meter,
    stopped: Callable[[], bool],
    *,
    retry: bool = False,
    relocated: Collection[int] = (),
) -> Findings:
    """What `find_changes` finds, with nothing written. `roots` are all roots by path, the targets' included."""
    findings = Findings()
    volumes = Volumes()
    states: dict[int, dict[bytes, FileState]] = {}
    for target in targets:
        root = roots[target.root]
        known = states.get(root.id)
        if known is None:
            known = states[root.id] = store.file_states(root.id, space_id)
            volume = volumes.of(root.path).id
            if volume is not None and is_other(root.volume, volume):
                findings.other_volumes[root.id] = volume
                findings.warnings.append(f"{root.path}: on another disk than before; its files are read again")
        present = findings.present.setdefault(root.id, set())
        for found in target.files(findings.warnings):
            if stopped():
                return findings
            if found.path in present:  # targets may overlap
                continue
            present.add(found.path)
            _sort(findings, root, found, known.get(found.path), retry, meter)
            meter.files_total += 1
            meter.tell()
    _take_moves(store, space_id, roots.values(), findings, relocated)
    for file in findings.changed:
        meter.expect(file.stat[0])
    meter.files_done = meter.files_total - len(findings.changed) - len(findings.unreadable)
    return findings


def _take_moves(
    store: Store, space_id: int, roots: Collection[Root], findings: Findings, relocated: Collection[int]
) -> None:
    """Take what moved out of what changed; what the space lacks of it remains to be embedded."""
    fresh = [file for file in findings.changed if file.news != "again" and file.stat[0]]
    known = store.files_of_sizes(space_id, {file.stat[0] for file in fresh}) if fresh else []
    left = {id(file): file for file in findings.changed}
    for match in find_moves(fresh, known, roots, relocated) if known else ():
        (findings.stayed if match.stayed else findings.moved).append(match)
        findings.unchanged += match.stayed and match.known.done
        match.file.news = "again"
        if match.known.done:
            del left[id(match.file)]
    findings.changed = list(left.values())


def _entered(store: Store, targets: Iterable[scan.Target | scan.Listed]) -> dict[str, Root]:
    """Every root by path, those of the targets made or brought up to date."""
    roots = {root.path: root for root in store.root_states()}
    volumes = Volumes()
    for target in targets:
        known = roots.get(target.root)
        root_id = known.id if known else store.add_root(target.root)
        volume = volumes.of(target.root).id if known is None or known.volume is None else None
        is_walked = isinstance(target, scan.Target) and target.is_whole
        if volume is not None or (is_walked and not (known and known.is_walked)):
            store.describe_root(root_id, volume=volume, is_walked=is_walked or None)
        before = known or Root(root_id, target.root, None, is_walked=False)
        roots[target.root] = replace(before, volume=before.volume or volume, is_walked=before.is_walked or is_walked)
    return roots


def _sort(
    findings: Findings,
    root: Root,
    found: scan.ScannedFile,
    state: FileState | None,
    retry: bool,
    meter: Meter,
) -> None:
    stat = (found.size, found.mtime_ns, found.inode)
    is_same = state is not None and stat == (state.size, state.mtime_ns, state.inode)
    is_told_apart = root.id not in findings.other_volumes  # on another disk the same numbers say nothing
    if state is not None and is_same and state.done and is_told_apart:  # first: it is nearly every file of every run
        if not state.described:
            findings.undescribed.append(File(root.id, found.path, scan.absolute_path(root.path, found.path), stat))
        findings.unchanged += 1
        meter.files_done += 1
        return
    absolute = scan.absolute_path(root.path, found.path)
    file = File(root.id, found.path, absolute, stat)
    if found.error is not None:
        findings.unreadable.append((file, found.error))
    elif state is not None and is_same and is_told_apart and not retry and fails_for_good(state):
        findings.failed_before.append(absolute)
        meter.files_done += 1
    else:
        file.news = "new" if state is None else "again" if is_same else "changed"
        findings.changed.append(file)
