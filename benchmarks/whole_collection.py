"""The main job on real sound: ingest every clip of the data set by the command line, then again, then ask.

    python benchmarks/whole_collection.py [--data DIR] [--model NAME] [--paths audio/00 audio/01]

Runs `audiosearch ingest` on the audio folder in new processes: once for real, once with nothing to do (checking that no
heavy module is imported), then a few plain queries whose hits are compared with the labels of the table. Exit code 1 if
a clip failed, was missed, or the second run imported a model.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HEAVY = ("torch", "transformers", "faiss", "av")
QUERIES = ("a dog barking", "church bells ringing", "rain", "someone typing on a keyboard", "a cat meowing", "a siren")
COMMAND = [sys.executable, "-m", "audiosearch"]
# The second run, in a process that tells afterwards what it imported.
AGAIN = f"""
import json, sys
sys.argv = ["audiosearch", *sys.argv[1:]]
from audiosearch.cli import main
try:
    main()
finally:
    print(json.dumps(sorted(set({HEAVY!r}) & set(sys.modules))))
"""


def data_folder(given: str | None) -> Path:
    beside = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    return Path(given or os.environ.get("AUDIOSEARCH_DATA") or beside)


def run(command: list[str], library: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    environment = {**os.environ, "AUDIOSEARCH_LIBRARY": library}
    started = time.perf_counter()
    # From a folder without the source tree: `-m` would otherwise import what lies there, not what is installed.
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=library, check=False)
    return time.perf_counter() - started, done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with manifest.csv and audio/")
    parser.add_argument("--model", default="alm2vec-mini")
    parser.add_argument("--paths", nargs="+", default=["audio"], help="folders below --data to ingest")
    arguments = parser.parse_args()
    data = data_folder(arguments.data)
    if not (data / "manifest.csv").is_file():
        print(f"no data set at {data}: set AUDIOSEARCH_DATA", file=sys.stderr)
        return 2
    with (data / "manifest.csv").open(encoding="utf-8", newline="") as lines:
        labels = {Path(row["file"]).name: row["label"] for row in csv.DictReader(lines)}
    folders = [str(data / path) for path in arguments.paths]
    expected = sum(1 for folder in folders for file in Path(folder).rglob("*") if file.name in labels)
    with tempfile.TemporaryDirectory() as library:
        command = [*COMMAND, "ingest", *folders, "--model", arguments.model, "--json", "--quiet"]
        seconds, done = run(command, library)
        summary = json.loads(done.stdout)
        failed = summary["failed"]
        print(
            f"first ingest: {summary['files_indexed']} of {expected} files, {len(failed)} failed, "
            f"exit {done.returncode}"
        )
        heard = summary["audio_seconds"]
        print(f"  {heard / 3600:.2f} h of sound in {seconds:.1f} s: {heard / seconds:.0f} x real time")
        again, redone = run([sys.executable, "-c", AGAIN, *command[3:]], library)
        heavy = json.loads(redone.stdout.strip().splitlines()[-1])
        print(
            f"second ingest: {again:.2f} s whole process, {again / expected * 10_000:.2f} s per 10,000 files; "
            f"imported {heavy or 'none of the heavy modules'}"
        )
        for text in QUERIES:
            _, answer = run([*COMMAND, "query", text, "-k", "5", "--json", "--model", arguments.model], library)
            hits = json.loads(answer.stdout)["hits"]
            print(f"{text!r}: " + ", ".join(f"{labels.get(Path(hit['path']).name)} {hit['score']:.2f}" for hit in hits))
    return 0 if summary["files_indexed"] == expected and not failed and not heavy else 1


if __name__ == "__main__":
    sys.exit(main())
