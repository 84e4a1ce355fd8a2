"""Chunks to vectors, beside decoding: batches across files in, vectors out, one thread for each device.

submit ─> one batch a device waits ─> [thread: sort by length, parts, the model] ─> results
                                      [thread ... on a second GPU              ]
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from audiosearch.errors import ModelError, SpaceMismatch
from audiosearch.types import ModelDescription, Samples, Vectors

if TYPE_CHECKING:
    from audiosearch.embed.base import AudioTextEmbedder, ComputesBeside

BATCH_CHUNKS = 64
BATCH_SECONDS = 600.0
# A call to the model is the longest wait after Ctrl-C, so a batch goes to it in parts sized to take about this long.
PART_SECONDS = 0.4
FIRST_PART = 8  # chunks

Item = TypeVar("Item")
Batch = list[tuple[Item, Samples]]
Embedded = list[tuple[Item, NDArray[np.float32]]]
Load = Callable[[], "AudioTextEmbedder"]


class EmbedPool(Generic[Item]):
    """Runs a model in threads of its own, one for each device. At most one batch a device waits; use from one thread.

    Args:
        load: gives the model. Called in the first thread when the first batch comes, so decoding goes on meanwhile.
        others: asked once the first model is loaded; one more `load` for each further device.
    """

    def __init__(
        self,
        load: Load,
        description: ModelDescription,
        instruction: str | None,
        *,
        others: Callable[[], Sequence[Load]] = tuple,
    ) -> None:
        self._load, self._others = load, others
        self._description, self._instruction = description, instruction
        self._inbox: queue.Queue[Batch[Item] | None] = queue.Queue()
        self._outbox: queue.Queue[Embedded[Item] | BaseException] = queue.Queue()
        self._stopping = threading.Event()
        self._devices: list[_Device[Item]] = []
        self._open_items = 0

    @property
    def has_room(self) -> bool:
        """Whether another batch is wanted: fewer wait than there are devices."""
        return self._inbox.qsize() < max(1, len(self._devices))

    @property
    def is_idle(self) -> bool:
        """Whether everything that went in has come out."""
        return not self._open_items

    @property
    def placement(self) -> str | None:
        """Where the model runs, once it is loaded."""
        return "; ".join(device.placement for device in list(self._devices) if device.placement) or None

    @property
    def busy_seconds(self) -> float:
        """How long the models have computed, the mean of the devices."""
        return sum(device.busy_seconds for device in self._devices) / max(1, len(self._devices))

    @property
    def loading_seconds(self) -> float:
        """How long loading took until the first vector could be computed."""
        return self._devices[0].loading_seconds if self._devices else 0.0

    def submit(self, batch: Batch[Item]) -> None:
        """Hand over one batch; call only while there is room."""
        assert self.has_room, "submit without room"
        if not self._devices:
            self._start(self._load)
        self._open_items += len(batch)
        self._inbox.put(batch)

    def results(self, timeout: float) -> Iterator[Embedded[Item]]:
        """What has been embedded, waiting up to `timeout` seconds for the first.

        Raises whatever loading or running a model raised.
        """
        try:
            result = self._outbox.get(timeout=timeout) if timeout > 0 else self._outbox.get_nowait()
            while True:
                if isinstance(result, BaseException):
                    raise result
                self._open_items -= len(result)
                yield result
                result = self._outbox.get_nowait()
        except queue.Empty:
            return

    def stop(self, grace: float) -> None:
        """Ask the threads to end after the part they are at, and wait up to `grace` seconds for that.

        Results that are ready stay readable.
        """
        self._stopping.set()
        give_up = time.monotonic() + grace
        for device in list(self._devices):
            self._inbox.put(None)  # for one that waits for a batch
            device.join(max(0.0, give_up - time.monotonic()))

    def _start(self, load: Load) -> None:
        device = _Device(load, self._description, self._instruction, self._inbox, self._outbox, self._stopping)
        self._devices.append(device)
        device.start(self._start_others if len(self._devices) == 1 else lambda: None)

    def _start_others(self) -> None:
        for load in self._others():
            self._start(load)


class _Device(Generic[Item]):
    """One device: its model, its thread, and what it has done."""

    def __init__(
        self,
        load: Load,
        description: ModelDescription,
        instruction: str | None,
        inbox: queue.Queue[Batch[Item] | None],
        outbox: queue.Queue[Embedded[Item] | BaseException],
        stopping: threading.Event,
    ) -> None:
        self._load, self._description, self._instruction = load, description, instruction
        self._inbox, self._outbox, self._stopping = inbox, outbox, stopping
        self._thread: threading.Thread | None = None
        self.placement: str | None = None
        self.busy_seconds = self.loading_seconds = 0.0

    def start(self, when_loaded: Callable[[], None]) -> None:
        """Begin in a thread. `when_loaded` is called in it."""
        # A daemon: a model that takes minutes for one clip must not hold up the end of an interrupted program.
        self._thread = threading.Thread(target=self._run, args=(when_loaded,), name="embed", daemon=True)
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait for the thread to end."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self, when_loaded: Callable[[], None]) -> None:
        try:
            started = time.perf_counter()
            embedder = self._checked(self._load())
            self.loading_seconds = time.perf_counter() - started
            self.placement = embedder.placement
            if not self._stopping.is_set():
                when_loaded()
            for part in self._embedded(embedder):
                self._outbox.put(part)
                if self._stopping.is_set():
                    return
        except BaseException as error:  # raised again in the thread that reads the results
            self._outbox.put(error)

    def _embedded(self, embedder: AudioTextEmbedder) -> Iterator[Embedded[Item]]:
        """The vectors of all batches, part by part.

        An embedder that computes beside us gets the next part before the last one is waited for: its device is never
        idle while sound is copied or vectors are handed on.
        """
        ahead = 1 if getattr(embedder, "computes_beside", False) else 0
        begun: deque[tuple[Batch[Item], Callable[[], Vectors]]] = deque()
        size = FIRST_PART  # chunks a call; follows the model's speed
        since = time.perf_counter()
        for batch in self._batches():
            # Parts of like length: less padding.
            left = sorted(batch or (), key=lambda pair: len(pair[1]))
            if not begun:
                since = time.perf_counter()  # before that it waited for sound
            while left or (batch is None and begun):
                if left:
                    part, left = left[:size], left[size:]
                    begun.append((part, self._begun(embedder, part, ahead > 0)))
                    if len(begun) <= ahead:
                        continue
                part, finish = begun.popleft()
                found = self._matched(part, finish())
                took, since = time.perf_counter() - since, time.perf_counter()
                self.busy_seconds += took
                if took < PART_SECONDS / 3:
                    size = min(size * 2, BATCH_CHUNKS)
                elif took > PART_SECONDS:
                    size = max(size // 2, 1)
                yield found

    def _batches(self) -> Iterator[Batch[Item] | None]:
        """Batches until there will be no more. None: there is none right now, and the next call waits for one."""
        while not self._stopping.is_set():
            try:
                batch = self._inbox.get_nowait()
            except queue.Empty:
                yield None
                batch = self._inbox.get()
            if batch is None:
                return
            yield batch

    def _begun(self, embedder: AudioTextEmbedder, part: Batch[Item], beside: bool) -> Callable[[], Vectors]:
        clips = [samples for _, samples in part]
        if beside:
            return cast("ComputesBeside", embedder).begin_audio(clips, instruction=self._instruction, task="document")
        return partial(embedder.embed_audio, clips, instruction=self._instruction, task="document")

    def _checked(self, embedder: AudioTextEmbedder) -> AudioTextEmbedder:
        if embedder.fingerprint != self._description.fingerprint:
            raise SpaceMismatch(
                f"the model that was loaded ({embedder.fingerprint}) is not the one this space was made for "
                f"({self._description.fingerprint}); did the files of {self._description.name} change? Start again"
            )
        if embedder.sample_rate != self._description.sample_rate:
            raise ModelError(
                f"{self._description.name} wants sound at {embedder.sample_rate} Hz and its files say "
                f"{self._description.sample_rate} Hz: download or export the checkpoint again"
            )
        return embedder

    def _matched(self, part: Batch[Item], vectors: Vectors) -> Embedded[Item]:
        expected = (len(part), self._description.dim)
        if vectors.shape != expected or not np.isfinite(vectors).all():
            raise ModelError(
                f"{self._description.name} gave {vectors.shape} values where {expected} were due, or some that are no "
                "numbers; nothing of them was stored. Try another device, or float32"
            )
        return [(item, vector) for (item, _), vector in zip(part, vectors, strict=True)]
