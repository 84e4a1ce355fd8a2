"""What it costs to find nothing new: no model, no decoder, not a byte of a file read, and a ten-second limit.

    python benchmarks/no_op_ingest.py [--files 100000] [--runs 3]

Makes a tree of tiny sound files and enters them into a library with the state they have on disk. Then, each time in a
new process, through `Library`, with a model that must not be loaded: ingests the tree again, syncs it, and, after `mv`
of the whole tree, ingests it at its new place. Exit code 1 if ten seconds for 100,000 files are missed (in proportion,
for fewer), a heavy module was imported, or a file was read.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TESTS = str(Path(__file__).resolve().parent.parent / "tests")
sys.path.append(TESTS)

import toy  # noqa: E402

from audiosearch.library import Library, Models  # noqa: E402
from audiosearch.types import Metadata  # noqa: E402

AIM_SECONDS = 10.0  # for FILES
FILES = 100_000
HEAVY = ("torch", "transformers", "faiss", "av", "alembic")
AGAIN = f"""
import time; started = time.perf_counter()
import json, sys
sys.path.append({TESTS!r})
import toy
from audiosearch.library import Library, Models
models = Models(lambda name: toy.description(), None)
with Library.open(sys.argv[1], models=models) as library:
    opened = time.perf_counter()
    if sys.argv[3] == "sync":
        synced = library.sync()
        summary, gone = synced.ingest, len(synced.gone)
    else:
        summary, gone = library.ingest([sys.argv[2]]), 0
print(json.dumps({{
    "seen": summary.files_seen,
    "unchanged": summary.files_unchanged,
    "moved": summary.files_moved,
    "other": summary.files_indexed + summary.chunks_embedded + len(summary.failed) + gone,
    "seconds": time.perf_counter() - opened,
    "whole": time.perf_counter() - started,
    "processor": time.process_time(),
    "heavy": sorted(set({HEAVY!r}) & set(sys.modules)),
}}))
"""


def make_tree(folder: Path, files: int) -> None:
    """`files` copies of a short sound, a hundred in a folder."""
    toy.write_wav(folder / "first.wav", toy.tone(440, 0.1))
    content = (folder / "first.wav").read_bytes()
    for n in range(files - 1):
        home = folder / f"{n // 100:04}"
        if n % 100 == 0:
            home.mkdir()
        (home / f"{n}.wav").write_bytes(content)


def enter(library: Path, folder: Path) -> None:
    """Ingest one file, then enter the others as its copies: reading each of them is not what is measured here."""
    from audiosearch.ingest.scan import scan
    from audiosearch.store.store import CommitBatch, FileRecord, Store

    models = Models(lambda name: toy.description(), lambda name, **_: toy.HandEmbedder())
    with Library.open(library, create=True, models=models) as opened:
        opened.ingest([folder / "first.wav"], workers=1)
    with Store.open(library, write=True) as store:
        space = store.default_space()
        assert space is not None
        root_id = store.add_root(str(folder))
        store.describe_root(root_id, is_walked=True)
        (first,) = store.resolve(store.changes_since(space.id, 0).added_ids)
        records = [
            FileRecord(root_id, file.path, file.size, file.mtime_ns, file.inode, first.packet_hash, metadata=Metadata())
            for file in scan(str(folder))
        ]
        store.commit(space.id, CommitBatch(files=records))


def again(library: Path, folder: Path, what: str) -> dict[str, Any]:
    """One run in a process of its own."""
    command = [sys.executable, "-c", AGAIN, library, folder, what]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def judge(name: str, runs: list[dict[str, Any]], files: int, counted: str) -> bool:
    """Print what the runs took, and whether that is good; `counted` is what every file must have counted as."""
    aim = AIM_SECONDS * files / FILES
    whole = statistics.median(run["whole"] for run in runs)
    seconds = statistics.median(run["seconds"] for run in runs)
    processor = statistics.median(run["processor"] for run in runs)
    heavy = sorted({name for run in runs for name in run["heavy"]})
    complete = all(run["seen"] == run[counted] == files and not run["other"] for run in runs)
    is_met = whole <= aim and complete and not heavy
    print(
        f"{name:12} {whole:7.2f} s with imports, {seconds:7.2f} s without, {processor:7.2f} s of a processor; "
        f"all {counted}: {complete}; imported of {', '.join(HEAVY)}: {', '.join(heavy) or 'none'}; "
        f"aim {aim:g} s: {'ok' if is_met else 'MISSED'}"
    )
    return is_met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder, library = Path(place, "sounds"), Path(place, "library")
        folder.mkdir()
        started = time.perf_counter()
        make_tree(folder, options.files)
        enter(library, folder)
        print(f"{options.files:,} files made and entered in {time.perf_counter() - started:.1f} s")
        nothing_new = [again(library, folder, "ingest") for _ in range(options.runs)]
        synced = [again(library, folder, "sync") for _ in range(options.runs)]
        moved = []
        for _ in range(options.runs):
            folder = folder.rename(folder.with_name(folder.name + "-moved"))
            moved.append(again(library, folder, "ingest"))
    print(f"median of {options.runs}:")
    good = [
        judge("ingest", nothing_new, options.files, "unchanged"),
        judge("sync", synced, options.files, "unchanged"),
        judge("after mv", moved, options.files, "moved"),
    ]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
