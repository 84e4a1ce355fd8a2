"""How far an ingest has come, a guess at how far it has to go, and which of its stages was busy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from audiosearch.ingest.embedding import EmbedPool
from audiosearch.ingest.writer import Writer
from audiosearch.types import IngestProgress, StageShares

INTERVAL_SECONDS = 0.1


class Meter:
    """Counts files and sound, and tells the callback about ten times a second."""

    def __init__(self, callback: Callable[[IngestProgress], None] | None) -> None:
        self._callback = callback
        self._started_at = time.monotonic()
        self._told_at = float("-inf")
        self.files_total = 0
        self.files_done = 0
        self.chunks_embedded = 0
        self.audio_seconds = 0.0  # decoded
        self.current = ""
        self._bytes_to_probe = 0  # of files whose duration nobody has read yet
        self._bytes_probed = 0
        self._seconds_probed = 0.0
        self._seconds_expected = 0.0  # of the files that are decoded, by their headers

    @property
    def elapsed_seconds(self) -> float:
        """Since the ingest began."""
        return time.monotonic() - self._started_at

    def expect(self, n_bytes: int) -> None:
        """A file of this size will be looked at."""
        self._bytes_to_probe += n_bytes

    def probed(self, n_bytes: int, seconds: float | None, *, decodes: bool) -> None:
        """A file's header was read, or it failed before (None); `decodes`: its sound will be decoded."""
        self._bytes_to_probe -= n_bytes
        if seconds:
            self._bytes_probed += n_bytes
            self._seconds_probed += seconds
            if decodes:
                self._seconds_expected += seconds

    def tell(self, *, now: bool = False) -> None:
        """Call the callback if it is time, or `now`."""
        if self._callback is None:
            return
        moment = time.monotonic()
        if now or moment - self._told_at >= INTERVAL_SECONDS:
            self._told_at = moment
            self._callback(
                IngestProgress(
                    files_done=self.files_done,
                    files_total=self.files_total,
                    audio_seconds=self.audio_seconds,
                    audio_seconds_total=self._total(),
                    chunks_embedded=self.chunks_embedded,
                    elapsed_seconds=self.elapsed_seconds,
                    current=self.current,
                )
            )

    def _total(self) -> float | None:
        if not self._bytes_probed:
            return None
        ahead = max(self._bytes_to_probe, 0) * self._seconds_probed / self._bytes_probed
        return max(self._seconds_expected + ahead, self.audio_seconds)  # headers lie; the sound does not


class Stages:
    """What each stage did from the first file to the last commit, for the summary."""

    def __init__(self, n_workers: int) -> None:
        self._n_workers = n_workers
        self._started_at = time.perf_counter()
        self._read_seconds = self._decode_seconds = 0.0
        self.shares: StageShares | None = None

    def worked(self, read_seconds: float, decode_seconds: float) -> None:
        """A decode process has waited for its file, and computed, so long."""
        self._read_seconds += read_seconds
        self._decode_seconds += decode_seconds

    def end(self, embed: EmbedPool[Any], writer: Writer) -> None:
        """Everything is committed."""
        elapsed = max(time.perf_counter() - self._started_at, 1e-9)

        def share(seconds: float) -> float:
            return round(min(seconds / elapsed, 1.0), 4)

        self.shares = StageShares(
            read=share(self._read_seconds / self._n_workers),
            decode=share(self._decode_seconds / self._n_workers),
            load=share(embed.loading_seconds),
            model=share(embed.busy_seconds),
            store=share(writer.busy_seconds),
        )

    @property
    def bottleneck(self) -> str | None:
        """The busiest stage; None when nothing took any time."""
        if self.shares is None:
            return None
        shares = asdict(self.shares)
        name = max(shares, key=lambda stage: shares[stage])
        return name if shares[name] > 0 else None
