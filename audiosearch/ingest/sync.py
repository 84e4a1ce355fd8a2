"""The library follows the folders: new and changed files are ingested, moved ones re-addressed, deleted ones let go.

What is gone is removed only after the ingest, so that a copy that was made meanwhile keeps the vectors, and not where
`guard.py` holds it back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from audiosearch.errors import LibraryEmpty, UsageError
from audiosearch.ingest import scan
from audiosearch.ingest.changes import Findings, look
from audiosearch.ingest.guard import Scope, held_back
from audiosearch.ingest.interrupt import Interruptible
from audiosearch.ingest.meter import Meter
from audiosearch.store.records import Root
from audiosearch.store.store import Store
from audiosearch.types import HeldBack, IngestProgress, IngestSummary, MovedFile, SyncSummary

Known = dict[int, set[bytes]]  # the paths that the store has, by root


def sync(
    store: Store,
    ingest: Callable[..., IngestSummary],
    paths: Collection[str] = (),
    *,
    relocate: Mapping[str, str] | None = None,
    prune_all: bool = False,
) -> SyncSummary:
    """Bring the library in step with its roots, or with what lies at or below `paths` in them.

    `ingest(targets, relocated=..., on_findings=...)` does with them what `pipeline.ingest` does. `relocate` are roots
    whose whole folder is elsewhere now, old -> new. With `prune_all` nothing is held back. After an interrupted ingest
    nothing is removed.

    Raises:
        LibraryEmpty: there is no root yet.
        UsageError: a path is in no root, or cannot be where a root went.
    """
    scopes = _scopes(store.root_states(), paths, relocate or {})
    for scope in scopes:
        if scope.is_relocated:
            store.relocate_root(scope.root.id, scope.root.path)
    known = _known(store, scopes)
    heard: list[Findings] = []
    relocated = [scope.root.id for scope in scopes if scope.is_relocated]
    targets = _targets(store, scopes, known)
    summary = ingest(targets, relocated=relocated, on_findings=heard.append)
    (findings,) = heard
    if summary.interrupted:
        return _summary(findings, {}, [], ingest=summary)
    gone = _gone(scopes, known, findings)
    held = held_back(scopes, known, gone, findings, prune_all=prune_all)
    untouched = {each.root for each in held}
    pruned = [(s.root.id, path) for s in scopes if s.root.path not in untouched for path in gone[s.root.id]]
    space = store.space(summary.space)
    recordings = store.remove_files(space.id, pruned) if pruned and space else 0
    for scope in scopes:
        if scope.root.path in untouched and scope.root.id in findings.other_volumes and scope.root.volume:
            store.describe_root(scope.root.id, volume=scope.root.volume)  # it is the other disk that is still missed
    store.forget_roots([scope.root.id for scope in scopes if not os.path.lexists(scope.root.path)])
    return _summary(findings, _absolute(scopes, gone), held, files=len(pruned), recordings=recordings, ingest=summary)


def preview(
    store: Store,
    space_id: int,
    paths: Collection[str] = (),
    *,
    relocate: Mapping[str, str] | None = None,
    prune_all: bool = False,
    progress: Callable[[IngestProgress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> SyncSummary:
    """What `sync` would find, with nothing written. `space_id`: the space it would ingest into, 0 if that is new.

    Raises:
        KeyboardInterrupt: it was cancelled.
        LibraryEmpty, UsageError: as `sync`.
    """
    scopes = _scopes(store.root_states(), paths, relocate or {})
    known = _known(store, scopes)
    roots = {root.path: root for root in store.root_states()} | {scope.root.path: scope.root for scope in scopes}
    relocated = [scope.root.id for scope in scopes if scope.is_relocated]
    with Interruptible(cancelled) as stopped:
        targets = _targets(store, scopes, known)
        findings = look(store, space_id, targets, roots, Meter(progress), stopped, relocated=relocated)
        if stopped():
            raise KeyboardInterrupt
    gone = _gone(scopes, known, findings)
    held = held_back(scopes, known, gone, findings, prune_all=prune_all)
    return _summary(findings, _absolute(scopes, gone), held)


def _scopes(roots: list[Root], paths: Collection[str], relocate: Mapping[str, str]) -> list[Scope]:
    """The roots to look at, those that moved at their new paths."""
    if not roots:
        raise LibraryEmpty("nothing has been ingested yet: run `audiosearch ingest PATH`")
    moved = {scan.absolute(old): scan.absolute(new) for old, new in relocate.items()}
    _check_relocation({root.path for root in roots}, moved)
    scopes = []
    for root in roots:
        home = max((old for old in moved if scan.is_inside(root.path, old)), key=len, default=None)
        path = root.path if home is None else moved[home] + root.path[len(home) :]
        scopes.append(Scope(replace(root, path=path, volume=root.volume if home is None else None), home is not None))
    if not paths:
        return scopes
    chosen: dict[int, list[bytes]] = {}
    for given in paths:
        path = scan.absolute(given)
        inside = [scope.root for scope in scopes if scan.is_inside(scope.root.path, path)]
        around = [scope.root for scope in scopes if scan.is_inside(path, scope.root.path)]
        if not inside and not around:
            raise UsageError(f"{given} is in no folder that was ingested: run `audiosearch ingest` on it first")
        for root in inside:
            chosen.setdefault(root.id, []).append(b"")
        if around:
            root = max(around, key=lambda root: len(root.path))
            chosen.setdefault(root.id, []).append(scan.relative(path, root.path))
    return [replace(each, parts=tuple(chosen[each.root.id])) for each in scopes if each.root.id in chosen]


def _check_relocation(known: Collection[str], moved: Mapping[str, str]) -> None:
    for old, new in moved.items():
        if old not in known:
            raise UsageError(f"{old} is not a root of this library: `audiosearch status` lists them")
        if new in known:
            raise UsageError(
                f"{new} is a root of this library already: run `audiosearch sync`, which finds there what moved"
            )
        if not Path(new).is_dir():
            raise UsageError(f"{new} is no folder: name the one where what was in {old} is now")


def _known(store: Store, scopes: Iterable[Scope]) -> Known:
    return {scope.root.id: store.known_paths(scope.root.id) for scope in scopes}


def _targets(store: Store, scopes: Iterable[Scope], known: Known) -> list[scan.Target | scan.Listed]:
    """Folders that were asked for as a whole are walked; what a walk would not take is looked up by its path."""
    roots = [root.path for root in store.root_states()]
    targets: list[scan.Target | scan.Listed] = []
    for scope in scopes:
        root = scope.root
        if not os.path.lexists(root.path):
            continue
        skip = frozenset(os.fsencode(each) for each in (*roots, str(store.directory)) if each != root.path)
        if root.is_walked:
            for part in scope.parts:
                path = Path(scan.absolute_path(root.path, part))
                if path.is_dir() or path.is_file():
                    targets.append(scan.Target(root.path, part, path.is_file(), skip))
        singles = (p for p in known[root.id] if scope.holds(p) and not (root.is_walked and scan.is_wanted(p)))
        targets.append(scan.Listed(root.path, tuple(sorted(singles))))
    return targets


def _gone(scopes: Iterable[Scope], known: Known, findings: Findings) -> dict[int, list[bytes]]:
    """Paths that certainly hold nothing any more, by root, without those whose file was found elsewhere."""
    moved = {(each.known.root_id, each.known.path) for each in findings.moved}
    gone: dict[int, list[bytes]] = {}
    for scope in scopes:
        root = scope.root
        absent = (p for p in known[root.id] - findings.present.get(root.id, set()) if scope.holds(p))
        gone[root.id] = sorted(p for p in absent if (root.id, p) not in moved and _is_gone(root.path, p))
    return gone


def _is_gone(root: str, path: bytes) -> bool:
    try:
        os.lstat(scan.absolute_path(root, path))
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # a lost share, or a folder that may not be entered
        return False
    return False


def _absolute(scopes: Iterable[Scope], paths: Mapping[int, Iterable[bytes]]) -> tuple[str, ...]:
    return tuple(scan.absolute_path(s.root.path, path) for s in scopes for path in paths[s.root.id])


def _summary(
    findings: Findings,
    gone: Iterable[str],
    held: Iterable[HeldBack],
    *,
    files: int = 0,
    recordings: int = 0,
    ingest: IngestSummary | None = None,
) -> SyncSummary:
    by_news = {
        news: tuple(file.absolute for file in findings.changed if file.news == news)
        for news in ("new", "changed", "again")
    }
    return SyncSummary(
        moved=tuple(MovedFile(each.before, each.file.absolute) for each in findings.moved),
        new=by_news["new"],
        changed=by_news["changed"],
        again=by_news["again"],
        gone=tuple(gone),
        held_back=tuple(held),
        files_unchanged=findings.unchanged,
        files_removed=files,
        recordings_removed=recordings,
        warnings=tuple(findings.warnings) if ingest is None else (),
        ingest=ingest,
    )
