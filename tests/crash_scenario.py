"""What a library goes through in the tests of crashes, and what must be true of it afterwards.

    crash_scenario.py log FOLDER LOG [network]     once, every change to the disk logged
    crash_scenario.py kill FOLDER N...             once for each N, killed at the N-th change
    crash_scenario.py fail FOLDER ERRNO N...       once for each N, every change from the N-th on failing

runs with the shim of `disk_shim` preloaded. Run n happens in FOLDER/n, with what it had committed in FOLDER/n.noted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import disk_shim
import numpy as np
from store_helpers import DIM, chunks, file_record, key, spec, unit, whole

from audiosearch import index_cache
from audiosearch.errors import LibraryError
from audiosearch.store import connection, verify
from audiosearch.store import vectors as vectors_module
from audiosearch.store.faults import disk_faults
from audiosearch.store.records import CommitBatch, FailureRecord, FinishedRecording
from audiosearch.store.store import Store

Contents = dict[tuple[bytes, float], np.ndarray]
COMMITS = 9


def batch(n: int) -> CommitBatch:
    """The n-th of COMMITS: recordings of four vectors, one in two parts, one that replaces another, a failed file."""
    if n == 3:
        first = whole(1, "r3", list(unit(3, 2)))
        return replace(first, finished=[], files=[])
    if n == 4:
        rest = chunks("r3", list(unit(4, 2)), first=2)
        done = FinishedRecording(key("r3"), 25.0)
        return CommitBatch(chunks=rest, finished=[done], files=[file_record(1, "3", "r3")])
    if n == 6:
        return CommitBatch(failures=[FailureRecord(1, b"bad.wav", 1, 2, 3, "corrupt", "no sound in it")])
    if n == 7:
        return replace(whole(1, "r7", list(unit(7, 4))), files=[file_record(1, "r0.wav", "r7")])
    return whole(1, f"r{n}", list(unit(n, 4)))


def added(n: int) -> list[tuple[bytes, float]]:
    """What commit n makes findable."""
    if n in (3, 4):
        return [(key("r3"), 5.0 * i) for i in ((0, 1), (2, 3))[n - 3]]
    return [] if n == 6 else [(key(f"r{n}"), 5.0 * i) for i in range(4)]


def scenario(library: Path, note: Callable[[int], object] = lambda n: None) -> None:
    """A library is made, filled in three goes and indexed; done again, it ends the same. `note` hears of commits that
    have returned."""
    with patch.object(vectors_module, "SHARD_BYTES", 10 * DIM * 2):  # a new shard now and then
        for go in range(3):
            exists = (library / connection.DATABASE).exists()
            with Store.open(library, write=True) if exists else Store.create(library) as store:
                space = store.add_space(spec())
                store.add_root("/data")
                for n in range(3 * go, 3 * go + 3):
                    store.commit(space.id, batch(n))
                    note(n)
                with disk_faults(library):
                    index_cache.save_generation(store, space, force=True)


def contents(library: Path) -> Contents:
    """What can be found, with its vector; a sound that could be found twice is an error."""
    with Store.open(library) as store:
        ids = store.changes_since(1, 0).added_ids if store.spaces() else np.empty(0, np.int64)
        vectors = store.vectors(1, ids) if len(ids) else np.empty((0, DIM))
        with store.connected() as rows:
            sql = "SELECT v.id, r.packet_hash, c.start_seconds FROM vector v JOIN chunk c ON c.id = v.chunk_id "
            places = rows.exec_driver_sql(sql + "JOIN recording r ON r.id = c.recording_id").fetchall()
    where = {id_: (packet_hash, start) for id_, packet_hash, start in places}
    found = {where[id_]: vector for id_, vector in zip(ids.tolist(), vectors, strict=True)}
    assert len(found) == len(ids)
    return found


def faults(library: Path, noted: list[int], expected: Contents) -> list[str]:
    """What is wrong with a library that was cut off after the commits `noted`. It is opened, checked, and filled up."""
    try:
        if (library / connection.DATABASE).exists():
            found = contents(library)
            wanted = {each for n in noted for each in added(n)}
            if 7 in noted:
                wanted -= set(added(0))
            elif COMMITS - 1 not in noted:
                wanted -= set(added(0)) if key("r7") in {each[0] for each in found} else set()
            if missing := wanted - found.keys():
                return [f"{len(missing)} sounds of commits that had returned are gone"]
            with Store.open(library, write=True) as store:
                problems = verify.check(store).problems() + [each for _, each in index_cache.check(store).bad]
            if problems:
                return [f"{each.where}: {each.detail}" for each in problems]
        elif noted:
            return ["the library is gone"]
        scenario(library)
        finally_ = contents(library)
    except (LibraryError, OSError, ValueError, KeyError, AssertionError) as error:
        return [f"{type(error).__name__}: {error}"]
    if finally_.keys() != expected.keys():
        return [f"it ends with {len(finally_)} sounds, not {len(expected)}"]
    wrong = [name for name, vector in finally_.items() if float(vector @ expected[name]) < 1 - 1e-3]
    return [f"{len(wrong)} vectors are others'"] if wrong else []


def _forked(run: Callable[[], object]) -> int:
    """The exit code of `run` in a process of its own: 0, or 2 after writing an error that is not the library's."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        run()
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(2)


def _failing(place: Path, at: int, error: int, noted: Callable[[int], object]) -> None:
    """The disk fails, says so, comes back, and the same process goes on."""
    disk_shim.arm(place, disk_shim.FAIL, at=at, error=error)
    try:
        scenario(place / "library", noted)
    except LibraryError as failure:
        with (place.parent / "said").open("a", encoding="utf-8") as file:
            file.write(str(failure).replace(str(place), "") + "\n")
    disk_shim.arm(place, 0)
    scenario(place / "library")


def main() -> None:
    how, folder, *rest = sys.argv[1:]
    base = Path(folder)
    (base / "warm-up").mkdir()
    scenario(base / "warm-up/library")  # imports everything; a process that is to be killed begins with it
    if how == "log":
        if rest[1:] == ["network"]:
            connection.is_network = lambda _: True  # type: ignore[assignment]
        place = base / "logged"
        place.mkdir()
        disk_shim.arm(place, disk_shim.LOG, log=Path(rest[0]))
        scenario(place / "library", lambda n: disk_shim.mark(place, str(n)))
        print(json.dumps({"changes": disk_shim.changes()}))
        return
    error = int(rest.pop(0)) if how == "fail" else 0
    codes = {}
    for at in map(int, rest):
        place, noted = base / str(at), base / f"{at}.noted"
        place.mkdir()
        noted.touch()

        def note(n: int, file: Path = noted) -> None:
            with file.open("a") as out:
                out.write(f"{n}\n")

        def killed(place: Path = place, at: int = at, note: Callable[[int], None] = note) -> None:
            disk_shim.arm(place, disk_shim.KILL, at=at)
            scenario(place / "library", note)

        def failing(place: Path = place, at: int = at, note: Callable[[int], None] = note) -> None:
            _failing(place, at, error, note)

        codes[at] = _forked(failing if how == "fail" else killed)
    print(json.dumps(codes))


if __name__ == "__main__":
    main()
