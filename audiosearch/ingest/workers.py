"""Decode processes: each imports numpy and av only, and talks to the parent over one pipe.

    parent                     child
      Job        ──────────>   reads the packets
                 <──────────   Identified (hash, container, stat)
                 <──────────   or Described: only its metadata was asked for, and that is all
      answer     ──────────>   decode, or skip: it is free again at once
                 <──────────   ChunkReady ... ChunkReady
                 <──────────   Done, or Failed

A child blocks while the parent does not receive, so sound in flight is bounded. A child that dies or shows no progress
is replaced and its file reported as Failed; a parent that dies closes the pipes, which ends the children.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from audiosearch.audio import decode
from audiosearch.chunk import HOP_SECONDS, SAMPLE_RATE, WINDOW_SECONDS, stream_chunks
from audiosearch.config import Limits
from audiosearch.demux import read_seconds
from audiosearch.errors import MediaError
from audiosearch.ingest import transport
from audiosearch.ingest.identity import FileStat, file_stat, identify
from audiosearch.ingest.limits import Memory, Watch, memory_message
from audiosearch.metadata import metadata_of
from audiosearch.types import Chunk, MediaInfo, Metadata, Samples

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

_MAX_DETAIL = 500  # characters


@dataclass(frozen=True, slots=True)
class Job:
    """One file to read. `key` is the parent's name for it and comes back in every message."""

    key: int
    path: str
    window_seconds: float = WINDOW_SECONDS
    hop_seconds: float = HOP_SECONDS
    sample_rate: int = SAMPLE_RATE
    only_metadata: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """What a decode process did since it last told: seconds of waiting for files, and of processor time."""

    read_seconds: float = 0.0
    compute_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Identified:
    """The file's recording is known; the child waits for `answer`. `stat` was taken before reading."""

    key: int
    packet_hash: bytes
    info: MediaInfo
    stat: FileStat
    metadata: Metadata
    warnings: tuple[str, ...]  # about the metadata
    work: Work = Work()


@dataclass(frozen=True, slots=True)
class Described:
    """What the file says of itself, asked for by `Job.only_metadata`. `stat` was taken before reading."""

    key: int
    metadata: Metadata
    stat: FileStat
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChunkReady:
    """The next chunk, with its samples."""

    key: int
    chunk: Chunk


@dataclass(frozen=True, slots=True)
class Done:
    """The whole file was read. `changed`: its stat is no longer what it was before reading."""

    key: int
    duration_seconds: float
    n_chunks: int
    warnings: tuple[str, ...]
    changed: bool
    work: Work = Work()


@dataclass(frozen=True, slots=True)
class Failed:
    """The file cannot be read; chunks that came before it do not make a whole recording. Causes: MediaError.CAUSES."""

    key: int
    cause: str
    detail: str


Message = Identified | Described | ChunkReady | Done | Failed


@dataclass(frozen=True, slots=True)
class _Working:
    """A sign of life, kept from the caller."""

    key: int


@dataclass(frozen=True, slots=True)
class _Last:
    """A job's last message, and the child's: it has taken up too much memory to go on with another file."""

    message: Done | Described | Failed


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    pipe: Connection
    job: Job | None = None
    awaits_answer: bool = False
    last_sign: float = 0.0


class DecodePool:
    """`workers` decode processes, started when first needed. Use as a context manager, from one thread.

    A file that passes one of the `limits` is given up ("too-slow", "too-large").
    """

    def __init__(self, workers: int, *, limits: Limits | None = None) -> None:
        assert workers >= 1
        self._size, self._limits = workers, limits or Limits()
        self._workers: list[_Worker] = []

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def free(self) -> int:
        """How many more jobs `submit` takes now."""
        return self._size - self.busy

    @property
    def busy(self) -> int:
        """How many jobs are under way."""
        return sum(worker.job is not None for worker in self._workers)

    def submit(self, job: Job) -> None:
        """Give a job to an idle worker; call only while `free` is above 0."""
        for worker in [worker for worker in self._workers if worker.job is None]:
            try:
                worker.pipe.send(job)
            except OSError:  # it died while idle
                self._drop(worker)
                continue
            break
        else:
            assert len(self._workers) < self._size, "submit without a free worker"
            worker = _start(self._limits)
            self._workers.append(worker)
            with contextlib.suppress(OSError):  # dead at birth: `events` reports it
                worker.pipe.send(job)
        worker.job, worker.awaits_answer, worker.last_sign = job, False, time.monotonic()

    def answer(self, key: int, decode: bool) -> None:
        """Answer an Identified: decode it, or skip it; a skipped job sends nothing more and its worker is free."""
        for worker in self._workers:
            if worker.job is not None and worker.job.key == key and worker.awaits_answer:
                with contextlib.suppress(OSError):
                    worker.pipe.send(decode)
                worker.awaits_answer, worker.last_sign = False, time.monotonic()
                if not decode:
                    worker.job = None
                return
        # Otherwise the worker has died since: its Failed is on the way or delivered.

    def events(self, timeout: float | None = None) -> Iterator[Message]:
        """Messages that are ready, at most one of each worker, waiting up to `timeout` seconds for the first.

        A message is taken from its pipe only when the iterator asks for it.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.busy:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            # Wake up often enough to notice a worker that hangs.
            left = min(left if left is not None else 1.0, 1.0, self._limits.stall_seconds / 2)
            pipes = {worker.pipe: worker for worker in self._workers if worker.job is not None}
            ready = wait(list(pipes), left)
            messages = False
            for pipe in ready:
                message = self._receive(pipes[pipe])  # type: ignore[index]
                if message is not None:
                    messages = True
                    yield message
            for worker in pipes.values():
                if worker.pipe not in ready and self._hangs(worker):
                    messages = True
                    stalled = f"no progress for file_stall_seconds = {self._limits.stall_seconds:g}"
                    yield self._give_up(worker, "too-slow", stalled)
            if messages or (deadline is not None and time.monotonic() >= deadline):
                return

    def close(self) -> None:
        """End all workers now, whatever they do."""
        for worker in self._workers:
            worker.process.kill()
        for worker in list(self._workers):
            self._drop(worker)

    def _receive(self, worker: _Worker) -> Message | None:
        if worker.job is None:
            return None
        try:
            message = transport.receive(worker.pipe)
        except (EOFError, OSError):
            worker.process.join(1)
            return self._give_up(worker, "crashed", _epitaph(worker.process.exitcode))
        except Exception as error:  # a decoder that wrote where it must not can make a message of anything
            return self._give_up(worker, "crashed", f"the decode process sent no message: {type(error).__name__}")
        worker.last_sign = time.monotonic()
        if isinstance(message, _Last):
            self._drop(worker)
            return message.message
        if isinstance(message, _Working):
            return None
        worker.awaits_answer = isinstance(message, Identified)
        if isinstance(message, (Done, Described, Failed)):
            worker.job = None
        return message

    def _hangs(self, worker: _Worker) -> bool:
        return (
            worker.job is not None
            and not worker.awaits_answer
            and time.monotonic() - worker.last_sign > self._limits.stall_seconds
            and not worker.pipe.poll()
        )

    def _give_up(self, worker: _Worker, cause: str, detail: str) -> Failed:
        assert worker.job is not None
        failed = Failed(worker.job.key, cause, detail)
        self._drop(worker)
        return failed

    def _drop(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.kill()
        worker.process.join(1)  # no longer: a process stuck in a dead network share cannot be ended


def _epitaph(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"the decode process was ended by {signal.Signals(-exitcode).name}"
    return f"the decode process ended with code {exitcode}"


def _start(limits: Limits) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=True)
    process = context.Process(target=_main, args=(theirs, limits), daemon=True, name="audiosearch-decode")
    with without_main_module(), _sigint_blocked():
        process.start()
    theirs.close()
    return _Worker(process, ours)


@contextlib.contextmanager
def without_main_module() -> Iterator[None]:
    """Spawn would run the caller's script again in every child: its imports (torch), and, unguarded, its ingest."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    """A child inherits the mask, so that Ctrl-C reaches only the parent even before `_main` runs."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # starting it would unblock the signal again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _main(pipe: Connection, limits: Limits) -> None:
    """A child's life: jobs until the pipe closes, or until it has taken up too much memory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import av  # noqa: F401 - before memory is measured

    memory, clock = Memory(limits.memory_mb), _Clock()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            last = _work(pipe, pipe.recv(), limits, memory, clock)
            if last is not None and memory.is_swollen():
                transport.send(pipe, _Last(last))
                return
            if last is not None:
                transport.send(pipe, last)


def _work(
    pipe: Connection, job: Job, limits: Limits, memory: Memory, clock: _Clock
) -> Done | Described | Failed | None:
    """Read one file; the last message about it, which is still to be sent. None: it was not wanted."""
    try:
        with memory.capped():
            watch = Watch(job.path, file_stat(job.path)[0], limits, lambda: transport.send(pipe, _Working(job.key)))
            if job.only_metadata:
                return _describe(job)
            identity = identify(job.path, watch)
            with watch.waiting():
                about = identity.metadata, tuple(map(_plain, identity.warnings))
                known = Identified(job.key, identity.packet_hash, identity.info, identity.stat, *about, clock.work())
                transport.send(pipe, known)
                if not pipe.recv():
                    return None
            return _read(pipe, job, identity.stat, watch, clock)
    except (EOFError, ConnectionError):
        raise
    except MediaError as error:
        return Failed(job.key, error.cause, _plain(error.detail))
    except MemoryError:
        return Failed(job.key, "too-large", memory_message(limits))
    except Exception as error:  # one file must not end the ingest, even by a bug
        return Failed(job.key, "crashed", _plain(f"{type(error).__name__}: {error}"))


def _describe(job: Job) -> Described:
    before, warnings = file_stat(job.path), list[str]()
    metadata = metadata_of(job.path, warnings)
    return Described(job.key, metadata, before, tuple(map(_plain, warnings)))


def _read(pipe: Connection, job: Job, before: FileStat, watch: Watch, clock: _Clock) -> Done:
    warnings: list[str] = []
    n_samples = n_chunks = 0

    def blocks() -> Iterator[Samples]:
        nonlocal n_samples
        for block in decode(job.path, sample_rate=job.sample_rate, warnings=warnings, progress=watch):
            n_samples += len(block)
            watch.heard(n_samples / job.sample_rate)
            yield block

    for chunk in stream_chunks(
        blocks(), window_seconds=job.window_seconds, hop_seconds=job.hop_seconds, sample_rate=job.sample_rate
    ):
        with watch.waiting():
            transport.send(pipe, ChunkReady(job.key, chunk))
        n_chunks += 1
    if not n_samples:  # less than one sample at this rate
        raise MediaError(job.path, "empty", "too little sound to make one sample of")
    changed = file_stat(job.path) != before
    seconds, notes = n_samples / job.sample_rate, tuple(map(_plain, warnings))
    return Done(job.key, seconds, n_chunks, notes, changed, clock.work())


class _Clock:
    """What this process has done, told in pieces; the first one holds its imports."""

    def __init__(self) -> None:
        self._told = 0.0, 0.0

    def work(self) -> Work:
        """Since the last call."""
        before, self._told = self._told, (read_seconds(), time.process_time())
        return Work(self._told[0] - before[0], self._told[1] - before[1])


def _plain(text: str) -> str:
    """Text that a database takes: no lone surrogates, whatever a file's name or contents put into a message."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")[:_MAX_DETAIL]
