"""What an ingest costs that finds nothing new: no model, no decoder, and less than two seconds per 10,000 files.

    python benchmarks/no_op_ingest.py [--files 10000] [--runs 3]

Makes a tree of tiny sound files, enters them into a library with the state they have on disk, and ingests the tree
again, each time in a new process: through `Library`, with a model computed by hand, as no model must be loaded anyway.
Exit code 1 if the time is missed or a heavy module was imported.
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

TESTS = str(Path(__file__).resolve().parent.parent / "tests")
sys.path.append(TESTS)

import toy  # noqa: E402

from audiosearch.library import Library, Models  # noqa: E402

AIM_SECONDS_PER_10_000 = 2.0
HEAVY = ("torch", "transformers", "faiss", "av")
AGAIN = f"""
import time; started = time.perf_counter()
import json, sys
sys.path.append({TESTS!r})
import toy
from audiosearch.library import Library, Models
models = Models(lambda name: toy.description(), None)
with Library.open(sys.argv[1], models=models) as library:
    opened = time.perf_counter()
    summary = library.ingest([sys.argv[2]])
print(json.dumps({{
    "seen": summary.files_seen,
    "unchanged": summary.files_unchanged,
    "seconds": time.perf_counter() - opened,
    "whole": time.perf_counter() - started,
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
        (first,) = store.resolve(store.changes_since(space.id, 0).added_ids)
        records = [
            FileRecord(root_id, file.path, file.size, file.mtime_ns, file.inode, first.packet_hash)
            for file in scan(str(folder))
        ]
        store.commit(space.id, CommitBatch(files=records))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder, library = Path(place, "sounds"), Path(place, "library")
        folder.mkdir()
        started = time.perf_counter()
        make_tree(folder, options.files)
        enter(library, folder)
        print(f"{options.files} files made and entered in {time.perf_counter() - started:.1f} s")
        runs = []
        for _ in range(options.runs):
            done = subprocess.run(
                [sys.executable, "-c", AGAIN, library, folder], check=True, capture_output=True, text=True
            )
            runs.append(json.loads(done.stdout))
    heavy = sorted({name for run in runs for name in run["heavy"]})
    complete = all(run["unchanged"] == run["seen"] == options.files for run in runs)
    seconds = statistics.median(run["seconds"] for run in runs)
    per_10_000 = seconds / options.files * 10_000
    whole = statistics.median(run["whole"] for run in runs)
    print(f"all unchanged: {complete}; imported of {', '.join(HEAVY)}: {', '.join(heavy) or 'none'}")
    print(f"median of {len(runs)}: ingest {seconds:.2f} s, with imports {whole:.2f} s")
    is_met = per_10_000 <= AIM_SECONDS_PER_10_000
    print(f"{per_10_000:.2f} s per 10,000 files, aim {AIM_SECONDS_PER_10_000:g}: {'ok' if is_met else 'MISSED'}")
    return 0 if is_met and complete and not heavy else 1


if __name__ == "__main__":
    sys.exit(main())
