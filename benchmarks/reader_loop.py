"""Readers that query a library over and over while another process ingests into it: some open and close it each time,
some open it once and query it from several threads.

    python benchmarks/reader_loop.py [--files 300] [--readers 2] [--stayers 1] [--threads 2]
                                     [--milliseconds-per-clip 20]

Prints how often each reader came through, how many states of the library it saw, how long a query took (median and 95th
percentile, milliseconds), and for those that stay how old a commit was, at the median and at most, when a query first
found it. Exit code 1 if a reader met any error or saw the library shrink, or if at the end a vector is missing, there
twice, or not the one of its sound.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

import toy

from audiosearch.library import Library, Models


class SlowEmbedder(toy.HandEmbedder):
    """Takes a while, as a real model does."""

    seconds_per_clip = 0.0

    def embed_audio(self, clips, **options):  # type: ignore[no-untyped-def]
        clips = list(clips)
        time.sleep(self.seconds_per_clip * len(clips))
        return super().embed_audio(clips, **options)


MODELS = Models(lambda name: toy.description(), lambda name, **_: SlowEmbedder())


def sound(n: int) -> np.ndarray:
    """The sound of file n: 3 to 17 s, no two alike."""
    return 0.5 * toy.tone(80.0 + 17.0 * n, 3 + n % 15) + 0.2 * toy.noise(n, 3 + n % 15)


def ingest(library: str, folder: str, seconds_per_clip: float) -> None:
    """The writer's process."""
    SlowEmbedder.seconds_per_clip = seconds_per_clip
    with Library.open(library, models=MODELS) as opened:
        summary = opened.ingest([folder])
    print(json.dumps({"indexed": summary.files_indexed, "seconds": summary.elapsed_seconds}))


def read(library: str, stop: str) -> None:
    """A reader's process: until the file `stop` exists. An error ends it, and is its exit code."""
    seen, took = [0], []
    while not Path(stop).exists():
        started = time.perf_counter()
        with Library.open(library, models=MODELS) as opened:
            seen.append(len(opened.query("low hum", k=100_000).hits))
        took.append(time.perf_counter() - started)
    print(json.dumps({"kind": "opens each time", **report([seen], took)}))


def stay(library: str, stop: str, threads: int) -> None:
    """A reader's process that opens the library once; each thread queries it until the file `stop` exists."""
    seen: list[list[int]] = [[0] for _ in range(threads)]
    took: list[float] = []
    errors: list[BaseException] = []
    ages: dict[int, float] = {}  # of each commit, when a query first found it

    def query(mine: list[int], opened: Library) -> None:
        try:
            while not Path(stop).exists():
                started = time.perf_counter()
                hits = len(opened.query("low hum", k=100_000).hits)
                took.append(time.perf_counter() - started)
                if hits > max(mine):
                    # A commit's last act is on the log; the file's time says when the newest one was.
                    ages.setdefault(hits, time.time() - Path(library, "library.db-wal").stat().st_mtime)
                mine.append(hits)
        except BaseException as error:
            errors.append(error)

    with Library.open(library, models=MODELS) as opened:
        running = [threading.Thread(target=query, args=(mine, opened)) for mine in seen]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    if errors:
        raise errors[0]
    found = sorted(ages.values()) or [0.0]
    print(
        json.dumps(
            {
                "kind": f"stays, {threads} threads",
                **report(seen, took),
                "commit_age_ms": [round(1000 * found[len(found) // 2]), round(1000 * found[-1])],
            }
        )
    )


def report(seen: list[list[int]], took: list[float]) -> dict[str, Any]:
    """What a reader tells of itself: `seen` are the numbers of hits of each thread, in order."""
    took = sorted(took) or [0.0]
    return {
        "times": len(took),
        "states": len({hits for mine in seen for hits in mine}),
        "hits": seen[0][-1],
        "shrank": any(later < earlier for mine in seen for earlier, later in pairwise(mine)),
        "query_ms": [round(1000 * took[len(took) // 2], 1), round(1000 * took[int(len(took) * 0.95)], 1)],
    }


def check(library: str, folder: Path, files: int) -> list[str]:
    """What is wrong with the finished library."""
    from audiosearch.audio import read_span
    from audiosearch.chunk import plan
    from audiosearch.store.store import Store

    wanted: dict[tuple[str, float, float], np.ndarray] = {}
    for n in range(files):
        samples = read_span(str(folder / f"{n}.wav"))
        for start, end in plan(len(samples)):
            wanted[f"{n}.wav", start / 16000, end / 16000] = toy.HandEmbedder().embed_audio([samples[start:end]])[0]
    faults = []
    with Store.open(library) as store:
        space = store.default_space()
        assert space is not None
        ids = store.changes_since(space.id, 0).added_ids
        for chunk, vector in zip(store.resolve(ids), store.vectors(space.id, ids), strict=True):
            key = (chunk.paths[0][1], chunk.start_seconds, chunk.end_seconds)
            expected = wanted.pop(key, None)
            if expected is None:
                faults.append(f"{key} is there twice, or should not be")
            elif expected @ vector < 1 - 1e-4:
                faults.append(f"{key} has another vector")
    return faults + [f"{key} is missing" for key in wanted]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--readers", type=int, default=2, help="processes that open the library for each query")
    parser.add_argument("--stayers", type=int, default=1, help="processes that open it once")
    parser.add_argument("--threads", type=int, default=2, help="of each stayer")
    parser.add_argument("--milliseconds-per-clip", type=float, default=20.0, help="what the model takes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder, library, stop = Path(place, "sounds"), str(Path(place, "library")), Path(place, "stop")
        folder.mkdir()
        for n in range(options.files):
            toy.write_wav(folder / f"{n}.wav", sound(n))
        with Library.open(library, create=True, models=MODELS) as opened:
            opened.ingest([folder / "0.wav"], workers=1)  # a query of an empty library is an error by design
        me = [sys.executable, __file__]
        kinds = [["--read", library, str(stop)]] * options.readers
        kinds += [["--stay", library, str(stop), str(options.threads)]] * options.stayers
        readers = [subprocess.Popen([*me, *kind], stdout=subprocess.PIPE, text=True) for kind in kinds]
        slow = str(options.milliseconds_per_clip / 1000)
        writer = subprocess.run(
            [*me, "--ingest", library, str(folder), slow], stdout=subprocess.PIPE, text=True, check=False
        )
        time.sleep(1.0)  # the readers see the finished library too
        stop.touch()
        reports = [reader.communicate()[0] for reader in readers]
        faults = [f"a reader ended with code {reader.returncode}" for reader in readers if reader.returncode]
        if writer.returncode:
            faults.append(f"the ingest ended with code {writer.returncode}")
        print("ingest:", writer.stdout.strip())
        for report in filter(None, reports):
            print("reader:", report.strip())
            if json.loads(report)["shrank"]:
                faults.append("a reader saw the library shrink")
        faults += check(library, folder, options.files)
    print("\n".join(faults[:20]) or "no error, no vector lost")
    return 1 if faults else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        read(*sys.argv[2:])
    elif sys.argv[1:2] == ["--stay"]:
        stay(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    elif sys.argv[1:2] == ["--ingest"]:
        ingest(sys.argv[2], sys.argv[3], float(sys.argv[4]))
    else:
        sys.exit(main())
