"""Folders of sound -> the store. `ingest` lists the stages; `_Run` is one ingest's state.

    scan ─> unchanged? ─> identify ─> known recording? ─> decode, chunk ─> known sound? ─> batch ─> embed ─> commit
    [here, with the store's states]  [worker processes, one file each   ]  [here          ]        [threads] [thread]

Everything is pulled from the right: a worker waits while the model is behind, the model while the store is, so no stage
gathers more than a batch. A file is in the store only once its last chunk is.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audiosearch.config import Limits
from audiosearch.errors import UsageError
from audiosearch.ingest import scan
from audiosearch.ingest.changes import File, Findings, find_changes, targets_of
from audiosearch.ingest.describing import describe_files
from audiosearch.ingest.embedding import BATCH_CHUNKS, BATCH_SECONDS, EmbedPool, Load
from audiosearch.ingest.interrupt import Interruptible
from audiosearch.ingest.ledger import Ledger
from audiosearch.ingest.meter import Meter, Stages
from audiosearch.ingest.writer import Writer
from audiosearch.model.fingerprint import space_spec
from audiosearch.store.records import (
    ChunkRecord,
    FailureRecord,
    FileRecord,
    FinishedRecording,
    RecordingInfo,
)
from audiosearch.store.store import Store
from audiosearch.types import Chunk, IngestProgress, IngestSummary, MediaInfo, ModelDescription

if TYPE_CHECKING:
    # Imported when there is something to decode: a run that finds nothing new must not load FFmpeg.
    from audiosearch.ingest.workers import DecodePool, Done, Failed, Identified, Work

POLL_SECONDS = 0.05
STOP_SECONDS = 0.6  # how long an interrupted run waits for the part the model is at
MOST_WORKERS = 8


def ingest(
    store: Store,
    description: ModelDescription,
    load_embedder: Load,
    paths: Collection[str | scan.Target | scan.Listed],
    *,
    window_seconds: float,
    hop_seconds: float,
    instruction: str | None = None,
    workers: int | None = None,
    other_embedders: Callable[[], Sequence[Load]] = tuple,
    limits: Limits | None = None,
    retry: bool = False,
    relocated: Collection[int] = (),
    on_findings: Callable[[Findings], None] = lambda findings: None,
    progress: Callable[[IngestProgress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> IngestSummary:
    """Bring everything under `paths`, or in chosen targets, into the space of that model, instruction, window and hop.

    The model is loaded by `load_embedder` when the first sound needs it, in another thread; then `other_embedders` says
    how to load it on further devices, each in a thread of its own. `progress` is called about ten times a second. When
    `cancelled` says so, or on Ctrl-C, the run ends within a second with all it finished committed, and the summary says
    that it was interrupted; a second Ctrl-C raises KeyboardInterrupt. `limits` are what one file may cost; `retry`:
    unchanged files that failed for good are read again; `relocated` as in `find_changes`. `on_findings` hears what the
    scan found, before anything is read.

    Raises:
        UsageError: a path does not exist, or an instruction for a model that follows none.
        ModelError, or what else the model raised: after what was finished has been committed.
    """
    if instruction is not None and not description.follows_instructions:
        raise UsageError(f"{description.name} follows no instruction: leave --instruct out, or use an ALM2Vec model")
    spec = space_spec(description, instruction=instruction, window_seconds=window_seconds, hop_seconds=hop_seconds)
    wanted = targets_of(store, paths)
    space = store.space(spec.fingerprint) or store.add_space(spec)
    settings = Settings(window_seconds, hop_seconds, description.sample_rate, instruction, limits or Limits())
    run = _Run(store, space.id, Meter(progress), settings)
    with Interruptible(cancelled) as stopped:
        findings = find_changes(store, space.id, wanted, run.meter, stopped, retry=retry, relocated=relocated)
        on_findings(findings)
        run.note(findings)
        placement = None
        if findings.changed:
            placement = run.process(findings.changed, description, load_embedder, other_embedders, workers, stopped)
            if not stopped():  # what an earlier run was cut off in, and whose file has changed since
                store.prune(space.id)
        if findings.undescribed and not stopped():
            n_workers = min(workers or min(_usable_cores(), MOST_WORKERS), len(findings.undescribed))
            run.warnings += describe_files(store, findings.undescribed, n_workers, settings.limits, stopped)
        if not stopped():
            for root_id, volume in findings.other_volumes.items():
                store.describe_root(root_id, volume=volume)
        return run.summary(spec.fingerprint, placement, interrupted=stopped())


@dataclass(frozen=True, slots=True)
class Settings:
    """What an ingest needs to know of its space, and what one file may cost."""

    window_seconds: float
    hop_seconds: float
    sample_rate: int
    instruction: str | None
    limits: Limits


@dataclass(slots=True)
class _Recording:
    """Content that is being decoded in this run. `open_chunks` have arrived and have no place in the store yet."""

    packet_hash: bytes
    info: MediaInfo
    owner: File
    twins: list[File] = field(default_factory=list)  # other files with the same packets
    open_chunks: int = 0
    decoded_seconds: float = 0.0
    announced: bool = False
    done: Done | None = None
    is_complete: bool = False
    is_given_up: bool = False


_Place = tuple[_Recording, Chunk]  # the chunk without its samples


class _Run:
    """One ingest. Everything here runs in the calling thread."""

    def __init__(self, store: Store, space_id: int, meter: Meter, settings: Settings) -> None:
        self.store, self.space_id, self.meter, self.settings = store, space_id, meter, settings
        self.writer = Writer(store, space_id)
        self.ledger = Ledger()
        self.stages: Stages | None = None  # what they did, once there is something to do
        self.warnings: list[str] = []
        self.unchanged = self.moved = self.indexed = self.added = self.shared = self.reused = self.silent = 0

        self.files: dict[int, File] = {}  # in the workers, by job key
        self.decoding: dict[int, _Recording] = {}  # of those, the ones that are decoded
        self.recordings: dict[bytes, _Recording] = {}  # by packet hash, until committed as complete
        self.again: list[File] = []  # to be looked at once more, after everything else
        self.next_key = 0

        self.unchecked: list[tuple[_Place, NDArray[np.float32]]] = []  # may be in the store
        self.fresh: list[tuple[_Place, NDArray[np.float32]]] = []  # need the model
        self.held_seconds = 0.0  # of both
        # By chunk hash, while that sound is at hand or in the model: where else it was heard meanwhile.
        self.waiting: dict[bytes, list[_Place]] = {}

    def note(self, findings: Findings) -> None:
        """What the scan said of files that need no more work."""
        self.unchanged, self.moved = findings.unchanged, len(findings.moved)
        self.warnings += findings.warnings
        for path in findings.failed_before:
            self.ledger.note(path)
        for file, reason in findings.unreadable:
            self.fail(file, "unreadable", reason)
        self.writer.close()

    # ── the loop ──

    def process(
        self,
        files: list[File],
        description: ModelDescription,
        load_embedder: Load,
        other_embedders: Callable[[], Sequence[Load]],
        workers: int | None,
        stopped: Callable[[], bool],
    ) -> str | None:
        """Identify, decode, embed and commit the files; where the model ran, if it was needed."""
        from audiosearch.ingest.workers import DecodePool

        n_workers = min(workers or min(_usable_cores(), MOST_WORKERS), len(files))
        self.stages = Stages(n_workers)
        embed: EmbedPool[_Place] = EmbedPool(
            load_embedder, description, self.settings.instruction, others=other_embedders
        )
        try:
            with DecodePool(n_workers, limits=self.settings.limits) as pool:
                ahead = deque(files)
                while ahead and not stopped():
                    self.round(ahead, pool, embed, stopped)
                    ahead, self.again = deque(self.again), []
        finally:
            # Whatever ended the loop, an error of the model too: what is finished is kept.
            try:
                self.forget(self.writer.hand_over())  # committed while the model ends its part
            finally:
                embed.stop(STOP_SECONDS)
                self.take(embed, 0.0, quietly=True)
                self.writer.close()
                self.stages.end(embed, self.writer)
        self.meter.tell(now=True)
        return embed.placement

    def round(
        self, ahead: deque[File], pool: DecodePool, embed: EmbedPool[_Place], stopped: Callable[[], bool]
    ) -> None:
        """Take every file in `ahead` through all stages."""
        while not stopped():
            while ahead and pool.free:
                self.submit(ahead.popleft(), pool)
            if self.is_full and not embed.has_room:
                self.take(embed, POLL_SECONDS)  # the workers wait meanwhile
            else:
                for message in pool.events(POLL_SECONDS if self.files else 0.0):
                    self.handle(message, pool)
                self.take(embed, 0.0 if self.files or ahead else POLL_SECONDS)
            is_last = not ahead and not self.files
            self.batch(embed, flush=is_last or (embed.is_idle and self.n_held >= BATCH_CHUNKS // 4))
            self.forget(self.writer.hand_over() if self.writer.is_due else self.writer.collect())
            self.meter.tell()
            if is_last and embed.is_idle and not self.n_held:
                self.writer.close()
                self.recordings.clear()  # what was given up may be tried again
                return

    def submit(self, file: File, pool: DecodePool) -> None:
        from audiosearch.ingest.workers import Job

        self.files[self.next_key] = file
        window, hop = self.settings.window_seconds, self.settings.hop_seconds
        pool.submit(Job(self.next_key, file.absolute, window, hop, self.settings.sample_rate))
        self.next_key += 1

    def handle(self, message: Any, pool: DecodePool) -> None:
        """One message of a worker."""
        from audiosearch.ingest.workers import ChunkReady, Done, Failed, Identified

        match message:
            case Identified():
                self.worked(message.work)
                pool.answer(message.key, self.identified(message))
            case ChunkReady():
                self.chunk(self.decoding[message.key], message.chunk)
            case Done():
                self.worked(message.work)
                self.done(message)
            case Failed():
                self.failed(message)
            case _:
                raise TypeError(f"a worker sent {message!r}")

    def worked(self, work: Work) -> None:
        """Count what a decode process did."""
        if self.stages is not None:
            self.stages.worked(work.read_seconds, work.compute_seconds)

    # ── identify, share what is known ──

    def identified(self, message: Identified) -> bool:
        """Whether the file's sound has to be decoded: no recording with the same packets is complete or under way."""
        file = self.files[message.key]
        size_at_scan, file.stat = file.stat[0], message.stat
        file.metadata, file.warning = message.metadata, "; ".join(message.warnings) or None
        self.meter.current = file.absolute
        recording = self.recordings.get(message.packet_hash)
        known = None if recording else self.store.recording_state(self.space_id, message.packet_hash)
        decodes = recording is None and not (known and known.complete)
        if not file.is_probed:
            file.is_probed = True
            self.meter.probed(size_at_scan, message.info.duration_seconds, decodes=decodes)
        if decodes:
            recording = _Recording(message.packet_hash, message.info, file)
            self.recordings[message.packet_hash] = self.decoding[message.key] = recording
            return True
        del self.files[message.key]
        if recording is not None and recording.is_given_up:
            self.again.append(file)
        elif recording is None or recording.is_complete:
            self.link(file, message.packet_hash, is_twin=True)
        else:
            recording.twins.append(file)
        return False

    def link(self, file: File, packet_hash: bytes, *, is_twin: bool, warning: str | None = None) -> None:
        """The file holds this recording, which is complete."""
        warning = "; ".join(filter(None, (warning, file.warning))) or None
        self.writer.add(FileRecord(file.root_id, file.path, *file.stat, packet_hash, warning, file.metadata))
        if warning:
            self.warnings.append(f"{file.absolute}: {warning}")
        self.indexed += 1
        self.shared += is_twin
        self.meter.files_done += 1

    # ── chunks: silence and known sound need no model ──

    def chunk(self, recording: _Recording, chunk: Chunk) -> None:
        assert chunk.samples is not None
        place = (recording, Chunk(chunk.start_seconds, chunk.end_seconds, chunk.chunk_hash, chunk.silent))
        recording.open_chunks += 1
        self.meter.audio_seconds += max(chunk.end_seconds - recording.decoded_seconds, 0.0)
        recording.decoded_seconds = max(chunk.end_seconds, recording.decoded_seconds)
        if chunk.silent:
            self.silent += 1
            self.put(place, None)
        elif chunk.chunk_hash in self.waiting:
            self.waiting[chunk.chunk_hash].append(place)
        elif self.writer.holds_vector(chunk.chunk_hash):
            self.reuse(place)
        else:
            self.waiting[chunk.chunk_hash] = []
            self.unchecked.append((place, chunk.samples))
            self.held_seconds += chunk.end_seconds - chunk.start_seconds

    @property
    def n_held(self) -> int:
        """Chunks at hand that may need the model."""
        return len(self.unchecked) + len(self.fresh)

    @property
    def is_full(self) -> bool:
        """Whether the chunks at hand fill a batch."""
        return self.n_held >= BATCH_CHUNKS or self.held_seconds >= BATCH_SECONDS

    def batch(self, embed: EmbedPool[_Place], *, flush: bool) -> None:
        """Look the gathered chunks up in the store, and give the model a batch of the new ones if it has room."""
        if self.unchecked and (flush or self.is_full):
            known = self.store.hashes_present(self.space_id, [place[1].chunk_hash for place, _ in self.unchecked])
            for place, samples in self.unchecked:
                if place[1].chunk_hash in known:
                    self.held_seconds -= place[1].end_seconds - place[1].start_seconds
                    for same in (place, *self.waiting.pop(place[1].chunk_hash)):
                        self.reuse(same)
                else:
                    self.fresh.append((place, samples))
            self.unchecked = []
        if self.fresh and embed.has_room and (flush or self.is_full):
            embed.submit(self.fresh)
            self.fresh, self.held_seconds = [], 0.0

    def take(self, embed: EmbedPool[_Place], timeout: float, *, quietly: bool = False) -> None:
        """Put away what the model has done. `quietly`: leave an error of the model to whoever is raising it."""
        try:
            for part in embed.results(timeout):
                self.meter.chunks_embedded += len(part)
                for place, vector in part:
                    self.put(place, vector)
                    for same in self.waiting.pop(place[1].chunk_hash):
                        self.reuse(same)
        except Exception:
            if not quietly:
                raise

    # ── into the store ──

    def reuse(self, place: _Place) -> None:
        self.reused += 1
        self.put(place, None)

    def put(self, place: _Place, vector: NDArray[np.float32] | None) -> None:
        """The chunk has its vector, or needs none of its own."""
        recording, chunk = place
        if not recording.announced:
            self.writer.add(RecordingInfo(recording.packet_hash, recording.info))
            recording.announced = True
        self.writer.add(
            ChunkRecord(
                recording.packet_hash, chunk.start_seconds, chunk.end_seconds, chunk.chunk_hash, chunk.silent, vector
            )
        )
        recording.open_chunks -= 1
        self.complete_if_ready(recording)

    def done(self, message: Done) -> None:
        """A worker has read a file to its end."""
        file, recording = self.files.pop(message.key), self.decoding.pop(message.key)
        if message.changed:
            self.give_up(recording)
            if file.has_changed:
                self.fail(file, "unreadable", "it changed while it was being read, twice; is it still being written?")
            else:
                file.has_changed = True
                self.again.append(file)
            return
        recording.done = message
        self.complete_if_ready(recording)

    def complete_if_ready(self, recording: _Recording) -> None:
        """Finish the recording and link its files, once it is read to the end and no chunk is under way."""
        if recording.done is None or recording.open_chunks:
            return
        recording.is_complete = True
        self.added += 1
        self.writer.add(FinishedRecording(recording.packet_hash, recording.done.duration_seconds))
        warning = "; ".join(recording.done.warnings) or None
        for file in (recording.owner, *recording.twins):
            self.link(file, recording.packet_hash, is_twin=file is not recording.owner, warning=warning)

    def forget(self, complete: Sequence[bytes]) -> None:
        """The store answers for these recordings from now on."""
        for packet_hash in complete:
            self.recordings.pop(packet_hash, None)

    # ── failures ──

    def failed(self, message: Failed) -> None:
        """A worker could not read a file, or did not survive it."""
        file, recording = self.files.pop(message.key), self.decoding.pop(message.key, None)
        if recording is not None:
            self.give_up(recording)
        elif not file.is_probed:
            self.meter.probed(file.stat[0], None, decodes=False)
        self.fail(file, message.cause, message.detail)

    def give_up(self, recording: _Recording) -> None:
        """Files that counted on this one to be decoded go through the stages themselves.

        Later: what came of this attempt may be under way, and a commit must not hold a span of a recording twice.
        """
        recording.is_given_up = True
        self.again.extend(recording.twins)

    def fail(self, file: File, cause: str, detail: str) -> None:
        self.writer.add(FailureRecord(file.root_id, file.path, *file.stat, cause, detail))
        self.ledger.note(file.absolute)
        self.meter.files_done += 1

    # ── the end ──

    def summary(self, space: str, placement: str | None, *, interrupted: bool) -> IngestSummary:
        return IngestSummary(
            files_seen=self.meter.files_total,
            files_indexed=self.indexed,
            files_unchanged=self.unchanged,
            files_moved=self.moved,
            recordings_added=self.added,
            recordings_shared=self.shared,
            chunks_embedded=self.meter.chunks_embedded,
            chunks_reused=self.reused,
            chunks_silent=self.silent,
            audio_seconds=self.meter.audio_seconds,
            elapsed_seconds=self.meter.elapsed_seconds,
            failed=self.ledger.report(self.store),
            warnings=tuple(self.warnings),
            space=space,
            device=placement,
            interrupted=interrupted,
            stages=self.stages.shares if self.stages else None,
            bottleneck=self.stages.bottleneck if self.stages else None,
        )


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
