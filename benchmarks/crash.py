"""An ingest that is killed again and again ends like one that was not; and the store survives a crash at every point.

    python benchmarks/crash.py [--files 320] [--kills 50] [--milliseconds-per-clip 250] [--seed 1]
    python benchmarks/crash.py --every-point [--step 1]

The first makes a folder of sounds and ingests it in a process that gets SIGKILL after a random time, starts again, and
so on, until it has been killed often enough; then it may finish. The library must then be the one of an uninterrupted
ingest: the same recordings and spans, scores within 1e-3, hits in the same order but for ties. Each kill may cost at
most one commit group (4,096 vectors or 2 s) of embedding.

The second goes through a short life of a store: killed at every single change to the disk, with a power cut after every
change (what was not forced is gone, or there in part), and with a disk that is full, read-only, broken or gone from
every change on. Needs Linux and a C compiler. Exit code 1 if anything was lost, twice there, or not said.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path.append(str(TESTS))

import toy  # noqa: E402

from audiosearch.ingest.writer import GROUP_ROWS, GROUP_SECONDS  # noqa: E402
from audiosearch.library import Library, Models  # noqa: E402
from audiosearch.store.store import Store  # noqa: E402

QUERIES = ("low hum", "high whistle", "noise", "rumble", "beep voice")
TOLERANCE = 1e-3
SLACK_SECONDS = 3.0  # a commit that is under way, and a machine that does other things


class SlowEmbedder(toy.HandEmbedder):
    """Takes a while, as a real model does, and writes down when it was done with how many clips."""

    seconds_per_clip = 0.0
    log: int

    def embed_audio(self, clips, **options):  # type: ignore[no-untyped-def]
        clips = list(clips)
        time.sleep(self.seconds_per_clip * len(clips))
        vectors = super().embed_audio(clips, **options)
        os.write(self.log, f"{time.time()} {len(clips)}\n".encode())
        return vectors


MODELS = Models(lambda name: toy.description(), lambda name, **_: SlowEmbedder())


def ingest(library: str, folder: str, log: str, seconds_per_clip: float) -> None:
    """The process that is killed."""
    SlowEmbedder.seconds_per_clip = seconds_per_clip
    SlowEmbedder.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    with Library.open(library, create=True, models=MODELS) as opened:
        summary = opened.ingest([folder])
    print(json.dumps({"failed": len(summary.failed), "indexed": summary.files_indexed}))


def make_sounds(folder: Path, files: int, seed: int) -> None:
    """Sounds of 3 to 34 s, every tenth a copy of another."""
    folder.mkdir()
    luck = random.Random(seed)
    for n in range(files):
        if n % 10 == 9:
            (folder / f"{n}.wav").write_bytes((folder / f"{luck.randrange(n)}.wav").read_bytes())
            continue
        seconds = luck.choice((3, 7, 12, 17, 34))
        toy.write_wav(folder / f"{n}.wav", 0.5 * toy.tone(80.0 + 17.0 * n, seconds) + 0.2 * toy.noise(n, seconds))


def stored(library: Path) -> int:
    """Vectors that are committed; shared ones count once."""
    if not (library / "library.db").exists():
        return 0
    with Store.open(library) as store:
        return sum(each.vectors for each in store.status().spaces)


def embedded(log: Path) -> list[tuple[float, int]]:
    if not log.exists():
        return []
    pairs = (line.split() for line in log.read_text().splitlines())
    return [(float(when), int(clips)) for when, clips in pairs]


def _killed(process: subprocess.Popen[str], log: Path, luck: random.Random, longest: float) -> bool:
    """Kill the process in a while; False if it ended before. One in five from its first instructions on, the others
    from its first embedding on: a machine may take seconds to come there."""
    if luck.random() > 0.2:
        while not embedded(log) and process.poll() is None:
            time.sleep(0.01)
    try:
        process.wait(timeout=luck.uniform(0.0, longest))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        return True
    return False


def killed_ingest(library: Path, folder: Path, options: argparse.Namespace, work: Path) -> list[str]:
    """Ingest with kills; what went wrong."""
    luck, kills, faults = random.Random(options.seed), 0, []
    lost_most, oldest_most, runs, lost_all = 0, 0.0, 0, 0
    while True:
        log, before = work / f"embedded-{runs}", stored(library)
        slow = str(options.milliseconds_per_clip / 1000)
        command = [sys.executable, __file__, "--ingest", library, folder, log, slow]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        runs += 1
        if kills == options.kills or not _killed(process, log, luck, options.longest):
            out, err = process.communicate()
            if process.returncode:
                return [*faults, f"an ingest ended with code {process.returncode}: {err.strip()[-500:]}"]
            if json.loads(out)["failed"]:
                faults.append(f"{json.loads(out)['failed']} files failed")
            break
        killed_at = time.time()
        process.communicate()
        kills += 1
        done = embedded(log)
        lost = sum(clips for _, clips in done) - (stored(library) - before)
        lost_all, lost_most = lost_all + lost, max(lost_most, lost)
        for when, clips in reversed(done):
            if lost <= 0:
                break
            lost, oldest_most = lost - clips, max(oldest_most, killed_at - when)
    print(f"{kills} kills in {runs} runs; embedded again {lost_all} vectors in all, at most {lost_most} for one kill, "
          f"the oldest of them {oldest_most:.1f} s old when it came")  # fmt: skip
    if kills < options.kills:
        faults.append(f"only {kills} kills before it was done: more --files or --milliseconds-per-clip")
    if lost_most > GROUP_ROWS or oldest_most > GROUP_SECONDS + SLACK_SECONDS:
        faults.append("a kill cost more than one commit group")
    return faults


def spans(library: Path) -> dict[tuple[bytes, float, float], np.ndarray]:
    """Every findable span with its vector."""
    with Store.open(library) as store:
        (space,) = store.spaces()
        ids = store.changes_since(space.id, 0).added_ids
        found = zip(store.resolve(ids), store.vectors(space.id, ids), strict=True)
        return {(each.packet_hash, each.start_seconds, each.end_seconds): vector for each, vector in found}


def differences(library: Path, judge: Path) -> list[str]:
    """How a library differs from the one of an uninterrupted ingest."""
    faults = []
    here, there = spans(library), spans(judge)
    if here.keys() != there.keys():
        faults.append(f"{len(here.keys() ^ there.keys())} spans are only in one of the libraries")
    worst = max((float(np.abs(here[key] - there[key]).max()) for key in here.keys() & there.keys()), default=0.0)
    if worst > TOLERANCE:
        faults.append(f"vectors differ by up to {worst:.2g}")
    with Library.open(library, models=MODELS) as one, Library.open(judge, models=MODELS) as other:
        if problems := one.verify().problems:
            faults.append(f"verify: {problems[0].where}: {problems[0].detail}")
        for text in QUERIES:
            mine, theirs = (
                {(hit.id): hit.score for hit in opened.query(text, k=100_000).hits} for opened in (one, other)
            )
            order = list(mine)
            if mine.keys() != theirs.keys() or any(abs(mine[id_] - theirs[id_]) > TOLERANCE for id_ in mine):
                faults.append(f"{text!r} has other hits or scores")
            elif any(theirs[a] < theirs[b] - TOLERANCE for a, b in pairwise(order)):
                faults.append(f"{text!r} has its hits in another order")
    print(f"{len(here)} spans of {len({key[0] for key in here})} recordings, vectors within {worst:.1g}")
    return faults


def every_point(step: int, work: Path) -> list[str]:
    """Kill, cut the power and fail at every step-th change to the disk of a store's short life."""
    import crash_scenario
    import disk_shim

    if reason := disk_shim.why_not():
        return [reason]
    script, faults = TESTS / "crash_scenario.py", []

    def run(name: str, how: str, *arguments: object) -> Path:
        folder = work / name
        folder.mkdir()
        done = disk_shim.preloaded(script, how, folder, *arguments, folder=work)
        if done.returncode:
            raise SystemExit(done.stderr)
        if how != "log":
            bad = {at: code for at, code in json.loads(done.stdout).items() if code != (-9 if how == "kill" else 0)}
            faults.extend(f"{name} at change {at}: ended with {code}" for at, code in bad.items())
        return folder

    for journal in ("wal", "network"):
        folder = run(journal, "log", work / f"{journal}.log", *(["network"] if journal == "network" else []))
        records = disk_shim.read_log(work / f"{journal}.log")
        expected = crash_scenario.contents(folder / "logged/library")
        cuts = 0
        for number, disk in disk_shim.states(records, folder / "logged"):
            if number % step:
                continue
            for kept in (0.0, 0.3, 0.7, 1.0):
                cuts += 1
                with tempfile.TemporaryDirectory(dir=work) as left:
                    disk.cut(Path(left), random.Random(number), kept)
                    marks = [int(each) for each in disk.marks]
                    found = crash_scenario.faults(Path(left) / "library", marks, expected)
                    faults += [f"{journal}: power cut after change {number}, {kept:.0%} kept: {each}" for each in found]
        print(f"{journal}: {cuts} power cuts, {len(faults)} faults so far", flush=True)
    points = range(1, sum(each.op != disk_shim.MARK for each in disk_shim.read_log(work / "wal.log")) + 1, step)
    for name, error in (("kill", 0), ("full", errno.ENOSPC), ("read-only", errno.EROFS), ("broken", errno.EIO),
                        ("gone", errno.ESTALE)):  # fmt: skip
        folder = run(name, "kill" if name == "kill" else "fail", *([] if name == "kill" else [error]), *points)
        for at in points:
            noted = [int(line) for line in (folder / f"{at}.noted").read_text().split()]
            found = crash_scenario.faults(folder / str(at) / "library", noted, expected)
            faults += [f"{name} at change {at}: {each}" for each in found]
        print(f"{name}: {len(points)} points, {len(faults)} faults so far", flush=True)
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=320)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--milliseconds-per-clip", type=float, default=250.0, help="what the model takes")
    parser.add_argument("--longest", type=float, default=6.0, metavar="S", help="longest time to a kill")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every-point", action="store_true", help="the store, at every change to the disk")
    parser.add_argument("--step", type=int, default=1, metavar="N", help="every N-th change only")
    options = parser.parse_args()
    memory = Path("/dev/shm")  # where forcing to the disk costs nothing
    quick = memory if options.every_point and os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=quick) as place:
        work = Path(place)
        if options.every_point:
            faults = every_point(options.step, work)
        else:
            make_sounds(work / "sounds", options.files, options.seed)
            ingest(str(work / "judge"), str(work / "sounds"), str(work / "judge.log"), 0.0)
            faults = killed_ingest(work / "killed", work / "sounds", options, work)
            faults += differences(work / "killed", work / "judge")
    print("\n".join(faults[:20]) or "nothing lost, nothing twice")
    return 1 if faults else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ingest"]:
        ingest(*sys.argv[2:5], float(sys.argv[5]))
    else:
        sys.exit(main())
