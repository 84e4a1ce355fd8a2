"""The values that travel between the parts: frozen, without behaviour that needs a library or a model.

Paths are `str` in file-system encoding with surrogate escapes (`os.fsdecode`), so that every name a file system allows
can travel. Times are seconds from the start of the recording; spans are half-open, `[start_seconds, end_seconds)`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Task = Literal["query", "document"]
Samples = NDArray[np.float32]  # mono, [-1, 1], shape (n,)
Vectors = NDArray[np.float32]  # unit rows, shape (n, dim)


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a probe of one file says, without decoding it. `duration_seconds` is the container's claim, or None."""

    path: str
    container: str
    codec: str
    sample_rate: int
    channels: int
    duration_seconds: float | None


@dataclass(frozen=True, slots=True)
class Field:
    """One thing a file says of itself; a name may occur more than once. Names and sources: docs/ingest.md."""

    name: str
    value: str
    source: str  # "tag", "info", "bext", "ixml" or "name"


@dataclass(frozen=True, slots=True)
class Marker:
    """A place in a recording that the file names: a cue point (no end), a region or a chapter."""

    start_seconds: float
    end_seconds: float | None = None
    label: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a file says of itself beside its sound. It belongs to the file: a copy may be tagged otherwise.

    `recorded_at` is when the sound began by the clock on the wall: ISO 8601, a day or a second, with an offset only
    where the file states one, so that it sorts as text. `time_reference_samples` counts from midnight (BWF), at the
    recording's own rate.
    """

    fields: tuple[Field, ...] = ()
    markers: tuple[Marker, ...] = ()
    recorded_at: str | None = None
    recorded_at_source: str | None = None
    time_reference_samples: int | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A span of a recording and, while it travels to the model, its sound.

    `chunk_hash` is BLAKE2b-128 of the span's mono s16 samples with front-end version and rate; `silent` is digital
    silence: every s16 sample is zero.
    """

    start_seconds: float
    end_seconds: float
    chunk_hash: bytes
    silent: bool
    samples: Samples | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What can be known of a model without importing torch (from its directory)."""

    name: str  # what the user asked for: bundled name, directory or hub id
    directory: str
    fingerprint: str
    dim: int
    sample_rate: int
    max_seconds: float
    document_instruction: str
    licence: str
    follows_instructions: bool = True


@dataclass(frozen=True, slots=True)
class SpaceSpec:
    """Everything that makes stored vectors comparable. `fingerprint` is a hash of all the other fields but `model_name`
    and `licence`."""

    fingerprint: str
    model_name: str
    model_fingerprint: str
    document_instruction: str
    is_aspect: bool
    dim: int
    window_seconds: float
    hop_seconds: float
    resampler: str
    channel_policy: str
    front_end: str
    licence: str


@dataclass(frozen=True, slots=True)
class Space:
    """A stored space: its spec, database id and whether it is the one searched by default."""

    id: int
    spec: SpaceSpec
    is_default: bool


@dataclass(frozen=True, slots=True)
class Hit:
    """A moment as the user sees it. `score` is the inner product of unit vectors, higher is better.

    What that is worth is measured against queries for things that are most likely not in the library: `percentile` of
    them find nothing that scores as high, a share of `false_alarm_rate` does, and `confidence` is 1 minus that. All are
    None where there is nothing to measure by.
    """

    id: str
    path: str  # absolute
    root: str
    recording_id: int
    start_seconds: float
    end_seconds: float
    score: float
    confidence: float | None = None
    percentile: float | None = None
    false_alarm_rate: float | None = None
    metadata: Metadata | None = None  # of the file at `path`, as far as it has been read
    curve: tuple[tuple[float, float, float], ...] = ()  # (start, end, score) of what was merged into it, in time order
    matched: tuple[str, ...] = ("sound",)  # why it is here: also `name: dog bark`, `title: Rain`, `folder: ...`
    heard_again: bool | None = None  # under the instruction; None where that was not needed


@dataclass(frozen=True, slots=True)
class Moment:
    """A span of one file that fits a query; `curve` holds the (start, end, score) of what was merged into it."""

    id: str
    start_seconds: float
    end_seconds: float
    score: float
    curve: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chunk that a query considered. `stored_score` is by its stored vector, `reread_score` by its sound under the
    instruction, where it was heard again; `hit` is the id of the hit it became part of."""

    path: str
    start_seconds: float
    end_seconds: float
    stored_score: float
    reread_score: float | None
    hit: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """How an answer came about. `vectors` are in the index, of which a filter `allowed` so many; `seconds` by step."""

    model: str
    index: str
    vectors: int
    allowed: int | None
    candidates: tuple[Candidate, ...]
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query returns. `instruction_route` says how an instruction was applied: `aspect-space`, `re-embedded` or
    None; of the candidates `reread` were re-embedded under it and `not_reread` kept their stored score."""

    query: str
    hits: tuple[Hit, ...]
    space: str
    instruction_route: str | None = None
    reread: int = 0
    not_reread: int = 0
    notes: tuple[str, ...] = ()
    filter: str | None = None
    explanation: Explanation | None = None


@dataclass(frozen=True, slots=True)
class FileInfo:
    """All that a library knows of one file. Of one that failed there may be nothing but the failure, `cause: detail`.

    `spaces` are the fingerprints of those that hold its sound.
    """

    path: str  # absolute
    root: str
    recording_id: int | None = None
    container: str | None = None
    codec: str | None = None
    sample_rate: int | None = None
    channels: int | None = None
    duration_seconds: float | None = None
    spaces: tuple[str, ...] = ()
    metadata: Metadata | None = None
    warning: str | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class FailedFile:
    """One line of the failure ledger. `will_retry`: the next ingest tries it again; otherwise one does when the file
    has changed, or `retry`."""

    path: str  # absolute
    cause: str
    detail: str
    attempts: int
    last_attempt_at: str  # ISO 8601, UTC
    will_retry: bool


@dataclass(frozen=True, slots=True)
class Label:
    """What the user said of a hit: that it is (`verdict`) or is not the `tag` or, without one, what was asked for.

    `query` is what found it, where there is no tag and that was words. `recording` is its packet hash, in hexadecimal
    digits; `path` a file that holds it, None if none does any more.
    """

    hit_id: str
    verdict: bool
    tag: str | None
    query: str | None
    path: str | None  # absolute
    start_seconds: float
    end_seconds: float
    recording: str
    created_at: str  # ISO 8601, UTC

    @property
    def about(self) -> str | None:
        """The tag, else the query."""
        return self.tag or self.query


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """A snapshot for a progress bar, sent often; never required for the work."""

    files_done: int
    files_total: int
    audio_seconds: float  # decoded so far
    audio_seconds_total: float | None  # estimate, when there is one
    chunks_embedded: int
    elapsed_seconds: float
    current: str


@dataclass(frozen=True, slots=True)
class StageShares:
    """How busy each stage of an ingest was: the share of the time between the first file and the last commit, 0 to 1.

    Stages run side by side. `read` and `decode` are means over the decode processes, waiting for files and computing;
    `model` is the mean over the devices; `load` is the wait for the model, `store` for the disk and the catalogue.
    """

    read: float
    decode: float
    load: float
    model: float
    store: float


@dataclass(frozen=True, slots=True)
class IngestSummary:
    """What an ingest did. `failed` holds this run's failures and those of unchanged files that failed before."""

    files_seen: int
    files_indexed: int
    files_unchanged: int
    files_moved: int  # known ones at another place, told by size, time and inode: not even read
    recordings_added: int
    recordings_shared: int  # files whose recording was already known: a copy or a rename, at no model cost
    chunks_embedded: int
    chunks_reused: int  # the same sound was embedded before
    chunks_silent: int
    audio_seconds: float
    elapsed_seconds: float
    failed: tuple[FailedFile, ...]
    warnings: tuple[str, ...]
    space: str
    device: str | None  # "cuda:0, bf16: ..." with the reason, None when no model was needed
    interrupted: bool = False
    stages: StageShares | None = None  # None when no file had to be read
    bottleneck: str | None = None  # the stage of them that was busiest


@dataclass(frozen=True, slots=True)
class MovedFile:
    """A known file that is at another place now."""

    before: str  # absolute
    after: str  # absolute


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A root of which `sync` removed nothing, because its `gone` files may come back. `reason` is a short stable word:
    missing, unreadable, other-disk, empty, many, empty-folder."""

    root: str
    reason: str
    detail: str
    gone: int
    known: int


@dataclass(frozen=True, slots=True)
class SyncSummary:
    """What a `sync` found and did; with `ingest` None it was a dry run. Paths are absolute.

    `again` are unchanged files that are read all the same: the space lacks them, or they failed. Of the `gone` ones
    those of `held_back` roots are still in the library; `recordings_removed` are those that no file holds any more.
    """

    moved: tuple[MovedFile, ...]
    new: tuple[str, ...]
    changed: tuple[str, ...]
    again: tuple[str, ...]
    gone: tuple[str, ...]
    held_back: tuple[HeldBack, ...]
    files_unchanged: int
    files_removed: int
    recordings_removed: int
    warnings: tuple[str, ...]
    ingest: IngestSummary | None


@dataclass(frozen=True, slots=True)
class SpaceStatus:
    """One line of `status`. `recordings` are complete in the space; it is full when that equals `Status.recordings`."""

    name: str
    model: str
    document_instruction: str
    is_aspect: bool  # `document_instruction` is the user's
    is_default: bool
    window_seconds: float
    hop_seconds: float
    dim: int
    recordings: int
    chunks: int
    vectors: int
    licence: str


@dataclass(frozen=True, slots=True)
class StepProgress:
    """How far a step of `verify`, `backup` or `restore` is, for a progress bar."""

    step: str
    done: int
    total: int
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a library that is not as it was written. `remedy` ends a sentence that begins with what does it:
    `audiosearch verify --repair` where `is_repairable`, else the user."""

    kind: str  # "database", "shard", "vector", "coverage" or "index"
    where: str
    detail: str
    remedy: str
    is_repairable: bool


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found. `repaired` are problems that were there and are not any more; `notes` need nobody's care."""

    problems: tuple[Problem, ...]
    repaired: tuple[Problem, ...]
    notes: tuple[str, ...]
    commit_groups: int  # read and compared with their checksums
    vectors: int
    indexes: int  # index files compared with the shards
    bytes_read: int


@dataclass(frozen=True, slots=True)
class BuiltIndex:
    """What `reindex` made of one space. `recall` is the share of the true ten best that the index finds, by kind of
    query, at `effort`, its search knobs; both are empty for a kind that finds everything."""

    space: str
    kind: str
    factory: str  # as FAISS calls it
    vectors: int
    bytes_on_disk: int
    seconds: float
    effort: dict[str, int] | None
    recall: dict[str, float]
    milliseconds: float | None  # of one query


@dataclass(frozen=True, slots=True)
class Copied:
    """What a backup or a restore did."""

    directory: str  # where the copy is
    commit_seq: int  # it holds every commit up to this one
    bytes_copied: int
    bytes_kept: int  # were there from an earlier backup
    replaced: str | None = None  # where the library is now that was in that place


@dataclass(frozen=True, slots=True)
class Status:
    """The whole library at a glance."""

    directory: str
    roots: tuple[str, ...]
    files: int
    recordings: int
    chunks: int
    failed: int
    failed_by_cause: dict[str, int]
    audio_seconds: float
    bytes_on_disk: int
    spaces: tuple[SpaceStatus, ...]
