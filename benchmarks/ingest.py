"""What an ingest costs over its two unavoidable parts: the model on the same chunks, and ffmpeg on the same files.

    python benchmarks/ingest.py [--minutes 60] [--formats wav flac mp3] [--rounds 3] [--model alm2vec-mini]
                                [--parts decode ingest writer rivals] [--environment DIR]

Writes unlike sounds of 5 to 180 s (44.1 kHz stereo) in each format, and measures, in new processes, wall time and
processor seconds (user + system, decode processes included) of

    ours    `Library.ingest` into an empty library
    model   the model on the very same chunks, kept in one array, shortest first
    ffmpeg  `ffmpeg -i FILE -ar 16000 -ac 1 -f null -` on every file, one process a core

each less what the same program costs on one sound of 5 s a core (ours, model) or on none (ffmpeg): starting is shown
apart.
The reference in wall time is the better of model and ffmpeg one after the other, and both at once; in processor seconds
it is their sum. Every figure is the least of --rounds, taken in turns. Aim: 1.05 in both.

`decode` compares our decoder with ffmpeg on one core, `writer` commits unit vectors of 1,024 dimensions, `rivals` sets
beside it a plain script (librosa, file by file, one clip a call) and perch-hoplite's store, given the same vectors. The
rivals live in --environment, a virtual environment that is made there if there is none (pip install librosa
perch-hoplite); without it they are left out. The ffmpeg program is $FFMPEG, the system's, or imageio-ffmpeg's. Exit
code 1 if an aim was missed. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TESTS = str(Path(__file__).resolve().parent.parent / "tests")
sys.path.append(TESTS)

import make_media  # noqa: E402

from audiosearch.audio import decode  # noqa: E402
from audiosearch.chunk import stream_chunks  # noqa: E402
from audiosearch.ingest.identity import identify  # noqa: E402

RATE = 44_100
LENGTHS = (5.0, 20.0, 60.0, 180.0)  # seconds, in turn
CODECS = {"wav": "pcm_s16le", "flac": "flac", "mp3": "libmp3lame"}
AIM_RATIO, AIM_VECTORS_PER_SECOND = 1.05, 50_000
GROUP_ROWS = 4096

OURS = """
import json, sys
from audiosearch.library import Library
folder, library, model = sys.argv[1:]
with Library.open(library, create=True, model=model, device="cpu") as opened:
    summary = opened.ingest([folder])
shares = summary.stages
print(json.dumps({
    "chunks": summary.chunks_embedded, "files": summary.files_indexed, "failed": len(summary.failed),
    "audio_seconds": summary.audio_seconds, "bottleneck": summary.bottleneck, "elapsed": summary.elapsed_seconds,
    "shares": {name: getattr(shares, name) for name in ("read", "decode", "load", "model", "store")},
}))
"""

MODEL = """
import json, sys
import numpy as np
from audiosearch.embed import load_embedder
sound, spans, model = np.load(sys.argv[1], mmap_mode="r"), np.load(sys.argv[2]), sys.argv[3]
embedder = load_embedder(model, device="cpu")
rows = embedder.embed_audio(np.array(sound[start:end]) for start, end in spans)
print(json.dumps({"chunks": len(rows)}))
"""

PLAIN = """
import json, sys
from pathlib import Path
import librosa
import numpy as np
from audiosearch.embed import load_embedder
embedder, rows = load_embedder(sys.argv[2], device="cpu"), []
for path in sorted(Path(sys.argv[1]).iterdir()):
    sound, _ = librosa.load(path, sr=16000, mono=True)
    for start in range(0, max(1, len(sound) - 80000), 80000):
        rows.append(embedder.embed_audio([sound[start : start + 160000]])[0])
np.save(sys.argv[3], np.array(rows))
print(json.dumps({"chunks": len(rows)}))
"""

HOPLITE = """
import json, sys, time
import numpy as np
from ml_collections import config_dict
from perch_hoplite.db import sqlite_usearch_impl
vectors = np.load(sys.argv[1])
settings = sqlite_usearch_impl.get_default_usearch_config(vectors.shape[1])
started = time.perf_counter()
db = sqlite_usearch_impl.SQLiteUSearchDB.create(sys.argv[2], usearch_cfg=settings)
deployment = db.insert_deployment("all", "bench")
for first in range(0, len(vectors), 100):
    recording = db.insert_recording(f"{first}.wav", deployment_id=deployment)
    for n, vector in enumerate(vectors[first : first + 100]):
        db.insert_window(recording, [5.0 * n, 5.0 * n + 10.0], vector)
db.commit()
print(json.dumps({"seconds": time.perf_counter() - started}))
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one command: seconds on the wall, and of the processor."""

    wall: float
    cpu: float

    def least(self, other: Cost | None) -> Cost:
        return self if other is None else Cost(min(self.wall, other.wall), min(self.cpu, other.cpu))

    def less(self, other: Cost) -> Cost:
        return Cost(max(self.wall - other.wall, 1e-9), max(self.cpu - other.cpu, 1e-9))


def cost_of(work: Callable[[], Any]) -> tuple[Cost, Any]:
    """What `work` and every process it waits for cost, and what it returned."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    result = work()
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime), result


def run_python(code: str, *arguments: str, python: str = sys.executable) -> dict[str, Any]:
    """What a new process printed as JSON."""
    # From a folder without the source tree, and with the settings that the commands have.
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    command = [python, "-c", code, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, cwd="/", check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def ffmpeg_program() -> str:
    program = os.environ.get("FFMPEG") or shutil.which("ffmpeg") or make_media.ffmpeg_program()
    if not program:
        raise SystemExit("no ffmpeg: set FFMPEG, or pip install imageio-ffmpeg")
    return program


def run_ffmpeg(program: str, files: list[Path], processes: int, *, to_nothing: bool = False) -> None:
    """Decode and resample every file, `processes` at a time; `to_nothing`: only start, as often."""
    waiting, running = list(files), list[subprocess.Popen[bytes]]()
    while waiting or running:
        while waiting and len(running) < processes:
            path = str(waiting.pop())
            head = [program, "-v", "error", "-nostdin", "-threads", "1", "-i", path]
            tail = ["-t", "0"] if to_nothing else []
            running.append(subprocess.Popen([*head, "-ar", "16000", "-ac", "1", *tail, "-f", "null", "-"]))
        done = running.pop(0)
        if done.wait():
            raise SystemExit(f"ffmpeg ended with {done.returncode}")


def write_files(folder: Path, form: str, minutes: float, lengths: tuple[float, ...] = LENGTHS) -> list[Path]:
    """Unlike sounds, `minutes` in all."""
    folder.mkdir(parents=True)
    files, left = list[Path](), minutes * 60
    while left > 1e-6:
        seconds = min(lengths[len(files) % len(lengths)], max(left, 1.0))
        sound = make_media.sound(seconds, RATE, 2, seed=len(files))
        bit_rate = 192_000 if form == "mp3" else None
        files.append(folder / f"{len(files):05}.{form}")
        make_media.write(files[-1], sound, RATE, codec=CODECS[form], bit_rate=bit_rate)
        left -= seconds
    return files


def write_chunks(files: list[Path], sound: Path, spans: Path) -> int:
    """The chunks that need the model, shortest first, as an array of samples and one of spans in it."""
    found = {
        chunk.chunk_hash: chunk.samples for path in files for chunk in stream_chunks(decode(str(path)))
        if not chunk.silent and chunk.samples is not None
    }  # fmt: skip
    clips = sorted(found.values(), key=len)
    ends = np.cumsum([len(clip) for clip in clips])
    np.save(sound, np.concatenate(clips))
    np.save(spans, np.stack([ends - [len(clip) for clip in clips], ends], axis=1))
    return len(clips)


@dataclass(frozen=True, slots=True)
class Task:
    """Files of one format, and their chunks as arrays for the bare model."""

    folder: Path
    files: list[Path]
    sound: Path
    spans: Path
    n_chunks: int

    @classmethod
    def write(cls, folder: Path, form: str, minutes: float, lengths: tuple[float, ...] = LENGTHS) -> Task:
        files = write_files(folder, form, minutes, lengths)
        sound, spans = folder.with_suffix(".sound.npy"), folder.with_suffix(".spans.npy")
        return cls(folder, files, sound, spans, write_chunks(files, sound, spans))

    def ours(self, model: str) -> dict[str, Any]:
        library = self.folder.with_suffix(".library")
        done = run_python(OURS, str(self.folder), str(library), model)
        shutil.rmtree(library)
        if done["failed"] or done["chunks"] != self.n_chunks:
            raise SystemExit(f"not the same work: {done}, {self.n_chunks} chunks")
        return done

    def model(self, model: str) -> None:
        if run_python(MODEL, str(self.sound), str(self.spans), model)["chunks"] != self.n_chunks:
            raise SystemExit("not the same work")

    def at_once(self, model: str, program: str, cores: int) -> None:
        """Model and ffmpeg side by side, until both are done."""
        code = [sys.executable, "-c", MODEL, str(self.sound), str(self.spans), model]
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        beside = subprocess.Popen(code, stdout=subprocess.DEVNULL, env=environment, cwd="/")
        run_ffmpeg(program, self.files, cores)
        if beside.wait():
            raise SystemExit("the model failed")


def compare_ingest(form: str, options: argparse.Namespace, place: Path) -> bool:
    """Ours over model and ffmpeg, in one format; whether both aims were met."""
    task = Task.write(place / form, form, options.minutes)
    # As many as make every decode process start.
    small = Task.write(place / f"{form}-small", form, options.cores * LENGTHS[0] / 60, lengths=LENGTHS[:1])
    program, cores, name = ffmpeg_program(), options.cores, options.model
    costs: dict[str, Cost] = {}
    results: dict[str, Any] = {}
    works: dict[str, Callable[[], Any]] = {
        "ours": lambda: task.ours(name),
        "model": lambda: task.model(name),
        "ffmpeg": lambda: run_ffmpeg(program, task.files, cores),
        "at once": lambda: task.at_once(name, program, cores),
        "ours, starting": lambda: small.ours(name),
        "model, starting": lambda: small.model(name),
        "ffmpeg, starting": lambda: run_ffmpeg(program, task.files, cores, to_nothing=True),
    }
    for _ in range(options.rounds):
        for what, work in works.items():
            cost, results[what] = cost_of(work)
            costs[what] = cost.least(costs.get(what))
    net = {what: costs[what].less(costs[f"{what}, starting"]) for what in ("ours", "model", "ffmpeg")}
    at_once = costs["at once"].less(costs["model, starting"])
    one_after_the_other = net["model"].wall + net["ffmpeg"].wall
    wall = net["ours"].wall / min(one_after_the_other, at_once.wall)
    cpu = net["ours"].cpu / (net["model"].cpu + net["ffmpeg"].cpu)
    done, hours = results["ours"], results["ours"]["audio_seconds"] / 3600
    shares = ", ".join(f"{stage} {share:.0%}" for stage, share in done["shares"].items())
    print(f"{form}: {len(task.files)} files, {hours:.2f} h, {task.n_chunks} chunks; busy: {shares}; "
          f"bottleneck {done['bottleneck']}")  # fmt: skip
    print(f"{'':18}{'wall s':>10}{'cpu s':>10}{'cpu s per hour of sound':>26}")
    for what, cost in {**net, "at once": at_once, **{k: v for k, v in costs.items() if "starting" in k}}.items():
        print(f"  {what:16}{cost.wall:10.2f}{cost.cpu:10.2f}" + ("" if "," in what else f"{cost.cpu / hours:26.1f}"))
    whole = costs["ours"].cpu / (costs["model"].cpu + costs["ffmpeg"].cpu)
    good = wall <= AIM_RATIO and cpu <= AIM_RATIO
    print(f"  ours over model and ffmpeg: wall {wall:.3f} (one after the other {one_after_the_other:.2f} s, at once "
          f"{at_once.wall:.2f} s), cpu {cpu:.3f}, with starting {whole:.3f}; aim {AIM_RATIO}: "
          f"{'ok' if good else 'MISSED'}", flush=True)  # fmt: skip
    return good


def compare_decoding(form: str, options: argparse.Namespace, place: Path) -> bool:
    """Our decoder and ffmpeg, each on one core; whether ours is as fast."""
    files, program = write_files(place / f"decode-{form}", form, min(options.minutes, 10.0)), ffmpeg_program()
    best: dict[str, float] = {}
    seconds = 0.0
    for _ in range(options.rounds):
        for name, work in {
            "ours": lambda path: sum(len(block) for block in decode(path)),
            "with chunks": lambda path: sum(1 for _ in stream_chunks(decode(path))),
            "identify": lambda path: len(identify(path).packet_hash),
        }.items():
            before = time.process_time()
            total = sum(work(str(path)) for path in files)
            seconds = total / 16_000 if name == "ours" else seconds
            best[name] = min(time.process_time() - before, best.get(name, float("inf")))
        for name in ("ffmpeg", "starts"):
            cost, _ = cost_of(lambda name=name: run_ffmpeg(program, files, 1, to_nothing=name == "starts"))
            best[name] = min(cost.cpu, best.get(name, float("inf")))
    best["ffmpeg"] -= best["starts"]
    speeds = {name: seconds / max(best[name], 1e-9) for name in ("ours", "ffmpeg", "with chunks", "identify")}
    good = speeds["ours"] >= speeds["ffmpeg"]
    print(f"{form}: decoded on one core, x real time: " + ", ".join(f"{k} {v:,.0f}" for k, v in speeds.items())
          + f"; {'ok' if good else 'SLOWER than ffmpeg'}", flush=True)  # fmt: skip
    return good


def unit_vectors(n: int, dim: int) -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((n, dim), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def measure_writer(options: argparse.Namespace, place: Path) -> bool:
    """Commits of 4,096 vectors of 1,024 dimensions, each forced to the disk; whether that is fast enough."""
    import store_helpers

    from audiosearch.store.store import Store

    vectors, best = unit_vectors(GROUP_ROWS, 1024), float("inf")
    with Store.create(place / "writer") as store:
        space, root = store.add_space(store_helpers.spec(dim=1024)), store.add_root(str(place))
        for number in range(options.groups):
            batch = store_helpers.whole(root, f"recording {number}", list(vectors))
            started = time.perf_counter()
            store.commit(space.id, batch)
            best = min(best, time.perf_counter() - started)
    rate = GROUP_ROWS / best
    good = rate >= AIM_VECTORS_PER_SECOND
    print(f"writer: {rate:,.0f} vectors of 1,024 dimensions a second (the best of {options.groups} commits); "
          f"aim {AIM_VECTORS_PER_SECOND:,}: {'ok' if good else 'MISSED'}", flush=True)  # fmt: skip
    return good


def rivals_python(environment: Path) -> str:
    """The interpreter of the rivals' environment, made and filled if it is not there; it sees our packages too."""
    python = environment / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "librosa", "perch-hoplite"], check=True)
    ours = [path for path in sys.path if path.endswith("site-packages")]
    home = next(environment.glob("lib/python*/site-packages"))
    # Behind its own packages: numba wants a NumPy of its choice. `addsitedir`: editable installs are files there.
    (home / "audiosearch-benchmark.pth").write_text(
        "".join(f"import site; site.addsitedir({path!r})\n" for path in ours)
    )
    return str(python)


def compare_rivals(options: argparse.Namespace, place: Path) -> None:
    """A plain script on the same files, perch-hoplite's store on the same vectors."""
    python = rivals_python(Path(options.environment).absolute())
    for form in options.formats:
        folder, library, rows = place / f"rivals-{form}", place / f"rivals-library-{form}", place / "rows.npy"
        write_files(folder, form, min(options.minutes, 10.0))
        ours, did = cost_of(lambda here=(folder, library): run_python(OURS, *map(str, here), options.model))
        arguments = [str(folder), options.model, str(rows)]
        plain, done = cost_of(lambda given=arguments: run_python(PLAIN, *given, python=python))
        print(f"{form}: ours {ours.wall:.1f} s ({ours.cpu:.1f} cpu s) for {did['chunks']} chunks; plain script "
              f"{plain.wall:.1f} s ({plain.cpu:.1f} cpu s) for {done['chunks']}: {plain.wall / ours.wall:.1f} times as "
              "long", flush=True)  # fmt: skip
    vectors = place / "vectors.npy"
    np.save(vectors, unit_vectors(options.hoplite_vectors, 1024))
    seconds = run_python(HOPLITE, str(vectors), str(place / "hoplite"), python=python)["seconds"]
    print(
        f"perch-hoplite: {options.hoplite_vectors / seconds:,.0f} of the same vectors a second, one by one, one commit"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="of sound in each format")
    parser.add_argument("--formats", nargs="+", choices=sorted(CODECS), default=["wav", "flac", "mp3"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="alm2vec-mini")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)), help="ffmpeg processes at a time")
    parser.add_argument("--groups", type=int, default=25, help="commits of the writer's part")
    parser.add_argument("--hoplite-vectors", type=int, default=20_000)
    parser.add_argument("--parts", nargs="+", choices=("decode", "ingest", "writer", "rivals"),
                        default=["decode", "ingest", "writer", "rivals"])  # fmt: skip
    parser.add_argument("--environment", help="virtual environment of the rivals")
    options = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for form in options.formats if "decode" in options.parts else ():
            good &= compare_decoding(form, options, place)
        for form in options.formats if "ingest" in options.parts else ():
            good &= compare_ingest(form, options, place)
        if "writer" in options.parts:
            good &= measure_writer(options, place)
        if "rivals" in options.parts and options.environment:
            compare_rivals(options, place)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
