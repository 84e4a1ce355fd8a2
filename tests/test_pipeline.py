"""Ingest from folder to store, with a model computed by hand and real decode processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy

from audiosearch.audio import read_span
from audiosearch.chunk import plan
from audiosearch.errors import ModelError, SpaceMismatch, UsageError
from audiosearch.ingest import pipeline, workers
from audiosearch.ingest.pipeline import ingest
from audiosearch.ingest.workers import DecodePool, Done, Failed
from audiosearch.store.store import Store
from audiosearch.types import IngestSummary


@pytest.fixture
def store(tmp_path):
    with Store.create(str(tmp_path / "library")) as opened:
        yield opened


@pytest.fixture
def sounds(tmp_path):
    folder = tmp_path / "sounds"
    folder.mkdir()
    return folder


def run(store: Store, *paths: Path, embedder: toy.HandEmbedder | None = None, **options) -> IngestSummary:
    embedder = embedder or toy.HandEmbedder()
    options = {"window_seconds": 10.0, "hop_seconds": 5.0, "workers": 1, **options}
    return ingest(store, toy.description(), lambda: embedder, [str(path) for path in paths], **options)


def no_model():
    raise AssertionError("the model was loaded")


def contents(store: Store, space: str | None = None) -> dict[tuple[str, float, float], np.ndarray]:
    """(path, start, end) -> vector, for every searchable chunk of every file."""
    chosen = store.space(space) if space else store.default_space()
    assert chosen is not None
    changes = store.changes_since(chosen.id, 0)
    vectors = store.vectors(chosen.id, changes.added_ids)
    found = {}
    for chunk, vector in zip(store.resolve(changes.added_ids), vectors, strict=True):
        for root, path in chunk.paths:
            key = (str(Path(root) / path), chunk.start_seconds, chunk.end_seconds)
            assert key not in found, f"{key} is there twice"
            found[key] = vector
    return found


def expected(*paths: Path) -> dict[tuple[str, float, float], np.ndarray]:
    """The same, computed file by file without any of the pipeline."""
    found = {}
    for path in paths:
        samples = read_span(str(path))
        for start, end in plan(len(samples), window_seconds=10.0, hop_seconds=5.0):
            if np.any(np.rint(samples[start:end] * 32768)):
                key = (str(path), start / toy.SAMPLE_RATE, end / toy.SAMPLE_RATE)
                found[key] = toy.HandEmbedder().embed_audio([samples[start:end]])[0]
    return found


def assert_same(found: dict, wanted: dict) -> None:
    assert found.keys() == wanted.keys()
    for key in wanted:
        assert found[key] @ wanted[key] > 1 - 1e-4, key  # stored as fp16


# ── what is stored ──


def test_every_span_of_every_file_has_its_own_vector(store, sounds):
    toy.write_wav(sounds / "short.wav", toy.tone(300, 2.5))
    (sounds / "sub").mkdir()
    toy.write_wav(sounds / "sub" / "middle.wav", np.concatenate([toy.tone(100, 6), toy.tone(3000, 6)]))
    toy.write_wav(sounds / "long.wav", toy.noise(1, 41.0, rate=22050), rate=22050)
    summary = run(store, sounds, workers=2)
    files = [sounds / "short.wav", sounds / "sub" / "middle.wav", sounds / "long.wav"]
    assert_same(contents(store), expected(*files))
    assert (summary.files_seen, summary.files_indexed, summary.recordings_added, summary.failed) == (3, 3, 3, ())
    assert summary.chunks_embedded == len(contents(store))
    assert summary.audio_seconds == pytest.approx(2.5 + 12 + 41, abs=0.01)
    assert summary.device == toy.HandEmbedder.placement and not summary.interrupted
    assert summary.space == store.default_space().spec.fingerprint
    shares = summary.stages
    assert shares is not None and summary.bottleneck in ("read", "decode", "load", "model", "store")
    assert getattr(shares, summary.bottleneck) == max(getattr(shares, stage) for stage in shares.__slots__) <= 1.0
    assert shares.decode > 0 and shares.model > 0 and shares.store > 0


def test_batches_run_across_files(store, sounds):
    for n in range(60):
        toy.write_wav(sounds / f"{n}.wav", toy.noise(n, 1.0))
    embedder = toy.HandEmbedder()
    assert run(store, sounds, embedder=embedder, workers=2).files_indexed == 60
    assert embedder.clips_embedded == 60
    assert len(embedder.batches) <= 15, embedder.batches


def test_an_instruction_makes_a_space_beside_the_default_one(store, sounds):
    toy.write_wav(sounds / "a.wav", np.concatenate([toy.tone(100, 4), toy.tone(5000, 4)]))
    run(store, sounds)
    plain = contents(store)
    aspect = run(store, sounds, instruction="only what is high")
    assert aspect.files_indexed == 1 and aspect.chunks_embedded == 1
    samples = read_span(str(sounds / "a.wav"))
    under_instruction = toy.HandEmbedder().embed_audio([samples], instruction="only what is high")[0]
    (vector,) = contents(store, aspect.space).values()
    assert vector @ under_instruction > 1 - 1e-4
    assert_same(contents(store), plain)
    assert next(iter(plain.values())) @ under_instruction < 0.9


# ── the same sound is paid for once ──


def test_a_second_run_loads_no_model_and_starts_no_worker(store, sounds, monkeypatch):
    toy.write_wav(sounds / "a.wav", toy.tone(300, 2))
    toy.write_wav(sounds / "silence.wav", np.zeros(16000, np.float32))
    run(store, sounds)
    monkeypatch.setattr(workers, "DecodePool", lambda *_: pytest.fail("a worker pool was made"))
    again = ingest(store, toy.description(), no_model, [str(sounds)], window_seconds=10.0, hop_seconds=5.0)
    assert (again.files_seen, again.files_unchanged, again.files_indexed, again.device) == (2, 2, 0, None)
    assert (again.stages, again.bottleneck) == (None, None)


def test_a_copy_and_a_moved_tree_cost_nothing(store, sounds):
    for n in range(4):
        toy.write_wav(sounds / f"{n}.wav", toy.noise(n, 12.0))
    first = run(store, sounds)
    shutil.copytree(sounds, sounds / "copy")
    copied = ingest(store, toy.description(), no_model, [str(sounds)], window_seconds=10.0, hop_seconds=5.0)
    assert (copied.files_indexed, copied.recordings_shared, copied.recordings_added) == (4, 4, 0)
    assert (copied.chunks_embedded, copied.audio_seconds) == (0, 0.0)
    moved = sounds.with_name("moved")
    sounds.rename(moved)
    summary = ingest(store, toy.description(), no_model, [str(moved)], window_seconds=10.0, hop_seconds=5.0)
    assert (summary.files_seen, summary.files_moved, summary.files_indexed, summary.chunks_embedded) == (8, 8, 0, 0)
    assert all(path.startswith(str(moved)) for path, _, _ in contents(store))
    assert len(contents(store)) == 2 * first.chunks_embedded


def test_copies_within_one_run_are_decoded_once(store, sounds):
    toy.write_wav(sounds / "a.wav", toy.noise(1, 25.0))
    for n in range(5):
        shutil.copy(sounds / "a.wav", sounds / f"copy{n}.wav")
    summary = run(store, sounds, workers=3)
    assert (summary.files_indexed, summary.recordings_added, summary.recordings_shared) == (6, 1, 5)
    assert summary.chunks_embedded == len(expected(sounds / "a.wav"))
    assert summary.audio_seconds == pytest.approx(25.0)
    assert_same(contents(store), expected(*sounds.iterdir()))


def test_a_loop_is_embedded_once(store, sounds):
    toy.write_wav(sounds / "loop.wav", np.tile(toy.noise(1, 5.0), 12))
    summary = run(store, sounds)
    assert (summary.chunks_embedded, summary.chunks_reused) == (1, 10)
    other = np.concatenate([np.tile(toy.noise(1, 5.0), 10), toy.noise(2, 5.0)])
    toy.write_wav(sounds / "other.wav", other)
    later = run(store, sounds)
    assert (later.chunks_embedded, later.chunks_reused) == (1, 9)  # only the window with the new sound
    assert_same(contents(store), expected(*sounds.iterdir()))


def test_silence_needs_no_model_and_counts_as_indexed(store, sounds):
    toy.write_wav(sounds / "silence.wav", np.zeros(20 * 16000, np.float32))
    summary = ingest(store, toy.description(), no_model, [str(sounds)], window_seconds=10.0, hop_seconds=5.0)
    assert (summary.files_indexed, summary.chunks_silent, summary.chunks_embedded) == (1, 4, 0)
    assert contents(store) == {} and summary.failed == ()


def test_changed_content_replaces_the_old(store, sounds):
    toy.write_wav(sounds / "a.wav", toy.tone(100, 3))
    run(store, sounds)
    toy.write_wav(sounds / "a.wav", toy.tone(5000, 3))
    assert run(store, sounds).files_indexed == 1
    assert_same(contents(store), expected(sounds / "a.wav"))


def test_overlapping_paths_and_a_single_file_name_each_file_once(store, sounds):
    (sounds / "sub").mkdir()
    toy.write_wav(sounds / "sub" / "a.wav", toy.tone(100, 2))
    toy.write_wav(sounds / "take.odd", toy.tone(200, 2))
    summary = run(store, sounds / "sub", sounds, sounds / "take.odd", sounds / "sub" / "a.wav")
    assert (summary.files_seen, summary.files_indexed) == (2, 2)
    assert_same(contents(store), expected(sounds / "sub" / "a.wav", sounds / "take.odd"))


# ── stops and errors ──


class SlowEmbedder(toy.HandEmbedder):
    """Takes `seconds` a clip."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def embed_audio(self, clips, **options):
        clips = list(clips)
        time.sleep(self.seconds * len(clips))
        return super().embed_audio(clips, **options)


def test_cancelled_keeps_what_is_finished_and_the_next_run_goes_on(store, sounds):
    for n in range(60):
        toy.write_wav(sounds / f"{n:02}.wav", toy.noise(n, 1.0))
    embedder = SlowEmbedder(0.02)
    summary = run(store, sounds, embedder=embedder, cancelled=lambda: embedder.clips_embedded >= 8)
    assert summary.interrupted and 0 < summary.files_indexed < 60
    assert len(contents(store)) == summary.files_indexed
    second = toy.HandEmbedder()
    rest = run(store, sounds, embedder=second)
    assert not rest.interrupted
    assert (rest.files_unchanged, rest.files_indexed) == (summary.files_indexed, 60 - summary.files_indexed)
    assert second.clips_embedded == 60 - summary.chunks_embedded
    assert_same(contents(store), expected(*sounds.iterdir()))


@pytest.fixture
def sigint_as_usual():
    """A shell's background job, such as a CI run, starts with SIGINT ignored; Python then leaves it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_stops_within_a_second(store, sounds, sigint_as_usual):
    for n in range(60):
        toy.write_wav(sounds / f"{n:02}.wav", toy.noise(n, 1.0))
    pressed: list[float] = []

    def progress(snapshot):
        if snapshot.chunks_embedded and not pressed:
            pressed.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    stopped_after = []
    for _ in range(3):  # the best of three: other work on the machine may hold up any one
        pressed.clear()
        summary = run(store, sounds, embedder=SlowEmbedder(0.3), progress=progress)
        stopped_after.append(time.monotonic() - pressed[0])
        assert summary.interrupted and summary.files_indexed >= 1
        assert len(contents(store)) == summary.files_unchanged + summary.files_indexed
        assert signal.getsignal(signal.SIGINT) is before
        if stopped_after[-1] < 1.0:
            break
    assert min(stopped_after) < 1.0, stopped_after


class FailingEmbedder(toy.HandEmbedder):
    """Breaks at its third call."""

    def embed_audio(self, clips, **options):
        if len(self.batches) == 2:
            raise RuntimeError("the model broke")
        return super().embed_audio(clips, **options)


def test_an_error_of_the_model_is_raised_and_loses_nothing(store, sounds):
    for n in range(60):
        toy.write_wav(sounds / f"{n:02}.wav", toy.noise(n, 1.0))
    broken = FailingEmbedder()
    with pytest.raises(RuntimeError, match="the model broke"):
        run(store, sounds, embedder=broken)
    assert len(contents(store)) == broken.clips_embedded > 0
    second = toy.HandEmbedder()
    assert run(store, sounds, embedder=second).failed == ()
    assert second.clips_embedded == 60 - broken.clips_embedded
    assert_same(contents(store), expected(*sounds.iterdir()))


def test_a_model_that_does_not_load_is_raised(store, sounds):
    toy.write_wav(sounds / "a.wav", toy.tone(100, 1))

    def load():
        raise ModelError("no such model")

    with pytest.raises(ModelError, match="no such model"):
        ingest(store, toy.description(), load, [str(sounds)], window_seconds=10.0, hop_seconds=5.0)
    assert run(store, sounds).files_indexed == 1


def test_another_model_than_the_described_one_is_refused(store, sounds):
    toy.write_wav(sounds / "a.wav", toy.tone(100, 1))
    other = toy.HandEmbedder()
    other.fingerprint = "another"
    with pytest.raises(SpaceMismatch):
        run(store, sounds, embedder=other)
    assert contents(store) == {}


def test_vectors_that_are_no_numbers_are_refused(store, sounds):
    toy.write_wav(sounds / "a.wav", toy.tone(100, 1))

    class Overflowing(toy.HandEmbedder):
        def embed_audio(self, clips, **options):
            return np.full_like(super().embed_audio(clips, **options), np.nan)

    with pytest.raises(ModelError, match="no numbers"):
        run(store, sounds, embedder=Overflowing())
    assert contents(store) == {}


def test_a_missing_path_is_a_usage_error_before_anything_is_written(store, sounds):
    with pytest.raises(UsageError, match="nowhere"):
        run(store, sounds, sounds / "nowhere")
    assert store.roots() == [] and store.spaces() == []


# ── files that fail or change ──


def pool_that(monkeypatch, change) -> None:
    """Let `change(message, path)` replace what the decode processes send."""

    class Changing(DecodePool):
        def submit(self, job):
            paths[job.key] = job.path
            super().submit(job)

        def events(self, timeout=None):
            for message in super().events(timeout):
                yield change(message, paths[message.key])

    paths: dict[int, str] = {}
    monkeypatch.setattr(workers, "DecodePool", Changing)


def test_a_cause_that_may_pass_is_tried_again_and_a_lasting_one_is_not(store, sounds, monkeypatch):
    toy.write_wav(sounds / "slow.wav", toy.tone(100, 1))
    (sounds / "text.wav").write_text("this is no sound at all, whatever its name says\n" * 10)
    with monkeypatch.context() as patch:
        pool_that(
            patch,
            lambda message, path: (
                Failed(message.key, "too-slow", "no progress")
                if isinstance(message, Done) and path.endswith("slow.wav")
                else message
            ),
        )
        first = run(store, sounds)
    assert {(Path(f.path).name, f.cause, f.attempts) for f in first.failed} == {
        ("slow.wav", "too-slow", 1),
        ("text.wav", "not-audio", 1),
    }
    second = run(store, sounds)
    assert second.files_indexed == 1
    assert [(Path(f.path).name, f.attempts) for f in second.failed] == [("text.wav", 1)]
    third = ingest(store, toy.description(), no_model, [str(sounds)], window_seconds=10.0, hop_seconds=5.0)
    assert (third.files_unchanged, len(third.failed)) == (1, 1)
    toy.write_wav(sounds / "text.wav", toy.tone(200, 1))
    assert run(store, sounds).failed == ()


def test_a_file_that_changes_while_it_is_read_is_read_again(store, sounds, monkeypatch):
    monkeypatch.setattr(pipeline, "BATCH_CHUNKS", 4)
    path = sounds / "growing.wav"
    toy.write_wav(path, toy.noise(1, 200.0))  # longer than all that can be under way at once

    class Touching(toy.HandEmbedder):
        def embed_audio(self, clips, **options):
            if not self.batches:
                os.utime(path, (1, 1))
            return super().embed_audio(clips, **options)

    embedder = Touching()
    summary = run(store, sounds, embedder=embedder)
    assert (summary.files_indexed, summary.recordings_added, summary.failed) == (1, 1, ())
    assert embedder.clips_embedded == 39 == summary.chunks_reused
    assert_same(contents(store), expected(path))
    assert run(store, sounds).files_unchanged == 1


def test_a_file_that_changes_twice_fails_and_its_copy_does_not(store, sounds, monkeypatch):
    toy.write_wav(sounds / "changing.wav", toy.noise(1, 12.0))
    shutil.copy(sounds / "changing.wav", sounds / "steady.wav")
    with monkeypatch.context() as patch:
        pool_that(
            patch,
            lambda message, path: (
                replace(message, changed=True) if isinstance(message, Done) and "changing" in path else message
            ),
        )
        summary = run(store, sounds)
    assert summary.files_indexed == 1
    assert [(Path(f.path).name, f.cause) for f in summary.failed] == [("changing.wav", "unreadable")]
    assert "changed while it was being read" in summary.failed[0].detail
    assert_same(contents(store), expected(sounds / "steady.wav"))
    later = run(store, sounds)
    assert (later.recordings_shared, later.failed) == (1, ())


# ── what it shows and costs ──


def test_progress_comes_often_and_ends_at_the_total(store, sounds):
    for n in range(10):
        toy.write_wav(sounds / f"{n}.wav", toy.noise(n, 12.0))
    snapshots, times = [], []

    def progress(snapshot):
        snapshots.append(snapshot)
        times.append(time.monotonic())

    run(store, sounds, embedder=SlowEmbedder(0.03), progress=progress)
    assert np.median(np.diff(times)) < 0.2
    last = snapshots[-1]
    assert (last.files_done, last.files_total, last.chunks_embedded) == (10, 10, 30)
    assert last.audio_seconds == pytest.approx(120) == last.audio_seconds_total
    done = [snapshot.files_done for snapshot in snapshots]
    assert done == sorted(done)


def test_a_run_with_nothing_to_do_imports_nothing_heavy(store, sounds, tmp_path):
    toy.write_wav(sounds / "a.wav", toy.tone(300, 2))
    (sounds / "text.wav").write_text("no sound " * 100)
    run(store, sounds)
    store.close()
    code = (
        "import sys; sys.path.append(sys.argv[1]); import toy\n"
        "from audiosearch.store.store import Store\n"
        "from audiosearch.ingest.pipeline import ingest\n"
        "with Store.open(sys.argv[2], write=True) as store:\n"
        "    summary = ingest(store, toy.description(), None, [sys.argv[3]], window_seconds=10.0, hop_seconds=5.0)\n"
        "assert (summary.files_unchanged, len(summary.failed)) == (1, 1), summary\n"
        "print(sorted({'torch', 'transformers', 'faiss', 'av', 'alembic', 'multiprocessing'} & set(sys.modules)))\n"
    )
    arguments = [str(Path(toy.__file__).parent), str(tmp_path / "library"), str(sounds)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
