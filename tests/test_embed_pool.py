"""The threads beside the loop: models on one or more devices, commits, and sound across the process border."""

from __future__ import annotations

import multiprocessing
import threading
import time

import numpy as np
import pytest
import toy
from store_helpers import chunks, file_record, key, spec, unit

from audiosearch.embed.shared import one_at_a_time
from audiosearch.errors import SpaceMismatch
from audiosearch.ingest import transport
from audiosearch.ingest import writer as writers
from audiosearch.ingest.embedding import EmbedPool
from audiosearch.ingest.meter import Stages
from audiosearch.ingest.writer import Writer
from audiosearch.store.records import FinishedRecording, RecordingInfo
from audiosearch.store.store import Store
from audiosearch.types import Chunk, MediaInfo

SECONDS = 20.0  # more than any wait here takes


def drained(pool: EmbedPool) -> dict[int, np.ndarray]:
    """Everything that comes out until nothing is under way, by item."""
    found: dict[int, np.ndarray] = {}
    give_up = time.monotonic() + SECONDS
    while not pool.is_idle:
        assert time.monotonic() < give_up
        for part in pool.results(0.05):
            for item, vector in part:
                assert item not in found
                found[item] = vector
    return found


def submitted(pool: EmbedPool, items: range, found: dict[int, np.ndarray]) -> None:
    """A batch, once there is room for it."""
    give_up = time.monotonic() + SECONDS
    while not pool.has_room:
        assert time.monotonic() < give_up
        for part in pool.results(0.05):
            found.update(part)
    pool.submit([(item, toy.noise(item, 0.1 + 0.01 * (item % 7))) for item in items])


def assert_all(found: dict[int, np.ndarray], n: int) -> None:
    assert sorted(found) == list(range(n))
    for item, vector in found.items():
        alone = toy.HandEmbedder().embed_audio([toy.noise(item, 0.1 + 0.01 * (item % 7))])[0]
        assert vector @ alone > 1 - 1e-6, item


# ── devices ──


class OnDevice(toy.HandEmbedder):
    """One of several devices. Each waits for another one's company in its first call, so that none does all."""

    def __init__(self, device: str, together: threading.Barrier) -> None:
        super().__init__()
        self.placement = f"{device}, float32: pretended"
        self.together, self.threads = together, set[str]()

    def embed_audio(self, clips, **options):
        if not self.batches:
            self.together.wait(SECONDS)
        self.threads.add(threading.current_thread().ident)
        return super().embed_audio(clips, **options)


def test_two_devices_share_the_work():
    together = threading.Barrier(2)
    devices = [OnDevice(f"cuda:{n}", together) for n in range(2)]
    pool: EmbedPool[int] = EmbedPool(lambda: devices[0], toy.description(), None, others=lambda: [lambda: devices[1]])
    found: dict[int, np.ndarray] = {}
    for first in range(0, 160, 16):
        submitted(pool, range(first, first + 16), found)
    found.update(drained(pool))
    pool.stop(SECONDS)
    assert_all(found, 160)
    assert all(device.clips_embedded for device in devices)
    assert sum(device.clips_embedded for device in devices) == 160
    assert [len(device.threads) for device in devices] == [1, 1] and devices[0].threads != devices[1].threads
    assert pool.placement == "cuda:0, float32: pretended; cuda:1, float32: pretended"
    assert pool.busy_seconds > 0 and pool.loading_seconds >= 0


def test_a_further_device_with_another_model_is_refused():
    other = toy.HandEmbedder()
    other.fingerprint = "another"
    pool: EmbedPool[int] = EmbedPool(toy.HandEmbedder, toy.description(), None, others=lambda: [lambda: other])
    pool.submit([(0, toy.noise(0, 0.1))])
    give_up = time.monotonic() + SECONDS
    with pytest.raises(SpaceMismatch, match="another"):
        while time.monotonic() < give_up:
            list(pool.results(0.05))
    pool.stop(SECONDS)


def test_at_most_one_batch_waits_for_each_device():
    going = threading.Event()

    class Held(toy.HandEmbedder):
        def embed_audio(self, clips, **options):
            assert going.wait(SECONDS)
            return super().embed_audio(clips, **options)

    pool: EmbedPool[int] = EmbedPool(Held, toy.description(), None)
    taken = 0
    give_up = time.monotonic() + SECONDS
    while taken < 2:  # one in the model, one that waits
        assert time.monotonic() < give_up
        if pool.has_room:
            pool.submit([(taken, toy.noise(taken, 0.1 + 0.01 * taken))])
            taken += 1
    time.sleep(0.1)
    assert not pool.has_room and not pool.is_idle
    going.set()
    assert_all(drained(pool), 2)
    assert pool.has_room
    pool.stop(SECONDS)


class Beside(toy.HandEmbedder):
    """Computes when it is asked to finish, as a device that was given work earlier would; notes the order of events."""

    computes_beside = True

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def begin_audio(self, clips, *, instruction=None, task="document"):
        number = sum(event.startswith("begin") for event in self.events)
        self.events.append(f"begin {number}")

        def finish():
            self.events.append(f"finish {number}")
            return self.embed_audio(clips, instruction=instruction, task=task)

        return finish


@pytest.mark.parametrize("wrap", [lambda embedder: embedder, one_at_a_time], ids=["bare", "shared"])
def test_the_next_part_is_begun_before_the_last_is_waited_for(wrap):
    embedder = Beside()
    pool: EmbedPool[int] = EmbedPool(lambda: wrap(embedder), toy.description(), None)
    pool.submit([(item, toy.noise(item, 0.1 + 0.01 * (item % 7))) for item in range(40)])
    found = drained(pool)
    pool.stop(SECONDS)
    assert_all(found, 40)
    begun = sum(event.startswith("begin") for event in embedder.events)
    assert begun >= 3, embedder.events
    order = {event: place for place, event in enumerate(embedder.events)}
    for number in range(begun - 1):
        assert order[f"begin {number + 1}"] < order[f"finish {number}"]
        if number:
            assert order[f"finish {number - 1}"] < order[f"begin {number + 1}"], "one ahead, not more"


# ── commits ──


@pytest.fixture
def store(tmp_path):
    with Store.create(str(tmp_path / "library")) as opened:
        yield opened


def add(writer: Writer, root: int, name: str, vectors) -> None:
    """One whole recording."""
    media = MediaInfo("x.wav", "wav", "pcm_s16le", 48_000, 2, None)
    writer.add(RecordingInfo(key(name), media))
    for chunk in chunks(name, vectors):
        writer.add(chunk)
    writer.add(FinishedRecording(key(name), 5.0))
    writer.add(file_record(root, f"{name}.wav", name))


def test_commits_run_beside_and_in_order(store, tmp_path, monkeypatch):
    space, root = store.add_space(spec()), store.add_root(str(tmp_path))
    going, plain, committed = threading.Event(), Store.commit, []

    def commit(self, space_id, batch):
        assert going.wait(SECONDS) and threading.current_thread() is not threading.main_thread()
        committed.append([each.packet_hash for each in batch.finished])
        return plain(self, space_id, batch)

    monkeypatch.setattr(Store, "commit", commit)
    writer = Writer(store, space.id)
    vectors = unit(1, 3)
    add(writer, root, "a", vectors)
    assert writer.hand_over() == []  # and it is back although nothing was committed yet
    first = chunks("a", vectors)[0].chunk_hash
    assert writer.holds_vector(first) and not store.hashes_present(space.id, [first])
    add(writer, root, "b", unit(2, 2))
    assert writer.collect() == [] and committed == []
    going.set()
    assert writer.hand_over() == [key("a")]  # waits: one group at a time
    assert not writer.holds_vector(first) and store.hashes_present(space.id, [first]) == {first}
    writer.close()
    assert committed == [[key("a")], [key("b")]]
    assert store.status().recordings == 2 and writer.busy_seconds > 0


def test_a_full_group_is_due_and_an_old_one_waits_for_the_last(store, tmp_path, monkeypatch):
    space, root = store.add_space(spec()), store.add_root(str(tmp_path))
    going, plain = threading.Event(), Store.commit

    def commit(self, space_id, batch):
        assert going.wait(SECONDS)
        return plain(self, space_id, batch)

    monkeypatch.setattr(Store, "commit", commit)
    monkeypatch.setattr(writers, "GROUP_SECONDS", 0.0)
    monkeypatch.setattr(writers, "GROUP_ROWS", 8)
    writer = Writer(store, space.id)
    assert not writer.is_due
    add(writer, root, "a", unit(1, 1))
    assert writer.is_due, "old enough"
    writer.hand_over()
    add(writer, root, "b", unit(2, 1))
    assert not writer.is_due, "old enough, but another one is under way"
    add(writer, root, "c", unit(3, 1))
    assert writer.is_due, "full: from now on the loop has to wait"
    going.set()
    writer.close()
    assert store.status().recordings == 3


def test_a_commit_that_fails_is_raised_once_and_nothing_follows(store, tmp_path, monkeypatch):
    space, root = store.add_space(spec()), store.add_root(str(tmp_path))
    monkeypatch.setattr(Store, "commit", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    writer = Writer(store, space.id)
    add(writer, root, "a", unit(1, 1))
    writer.hand_over()
    add(writer, root, "b", unit(2, 1))
    with pytest.raises(OSError, match="No space left"):
        writer.hand_over()
    monkeypatch.undo()
    writer.close()  # what came after counted on what is lost
    assert store.status().recordings == 0


# ── the process border ──


def test_sound_crosses_as_it_is():
    ours, theirs = multiprocessing.Pipe()
    sounds = [toy.noise(1, 10.0), toy.noise(2, 0.2), np.zeros(1, np.float32)]  # the first is more than a pipe holds
    messages = [Chunk(0.0, 10.0, b"hash", False, sound) for sound in sounds] + ["no sound"]
    sender = threading.Thread(target=lambda: [transport.send(theirs, message) for message in messages])
    sender.start()
    for message, sound in zip(messages, sounds, strict=False):
        got = transport.receive(ours)
        assert got == message and got.samples.dtype == np.float32
        np.testing.assert_array_equal(got.samples, sound)
        assert got.samples.flags.writeable
    assert transport.receive(ours) == "no sound"
    sender.join(SECONDS)
    theirs.close()
    with pytest.raises(EOFError):
        transport.receive(ours)


def test_a_sender_that_dies_midway_is_noticed():
    ours, theirs = multiprocessing.Pipe()
    theirs.send((b"", [1000]))
    theirs.send_bytes(b"x" * 10)
    theirs.close()
    with pytest.raises(EOFError):
        transport.receive(ours)


# ── what the summary says of the stages ──


def test_the_busiest_stage_is_the_bottleneck(monkeypatch):
    clock = iter([0.0, 10.0])
    monkeypatch.setattr("audiosearch.ingest.meter.time.perf_counter", lambda: next(clock))
    stages = Stages(n_workers=2)
    stages.worked(read_seconds=1.0, decode_seconds=6.0)
    stages.worked(read_seconds=1.0, decode_seconds=4.0)
    pool, writer = type("", (), {"loading_seconds": 0.5, "busy_seconds": 4.0}), type("", (), {"busy_seconds": 0.1})
    assert stages.bottleneck is None
    stages.end(pool, writer)
    assert stages.shares is not None and stages.bottleneck == "decode"
    assert (stages.shares.read, stages.shares.decode, stages.shares.load) == (0.1, 0.5, 0.05)
    assert (stages.shares.model, stages.shares.store) == (0.4, 0.01)
