"""Readers while an ingest writes: in other processes and threads, without opening anything again."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import toy

from audiosearch.ingest import writer
from audiosearch.library import Library, Models

PATIENCE = 120.0  # seconds; nothing here takes one, on a machine that is not busy
FILES = 10

# Opens the library once, queries it over and over, and says whenever another number of files is found.
READER = """
import sys
sys.path.insert(0, {tests!r})
import pathlib, time, toy
from audiosearch.library import Library, Models
seen = -1
with Library.open(sys.argv[1], models=Models(toy.description, lambda name, **_: toy.HandEmbedder())) as library:
    while not pathlib.Path(sys.argv[2]).exists():
        found = len({{hit.path for hit in library.query("noise", k=1000).hits}})
        if found != seen:
            print(found, flush=True)
        seen = found
        time.sleep(0.01)
"""


class Gate(toy.HandEmbedder):
    """Does not return from the long clip before it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.opened = threading.Event(), threading.Event()

    def embed_audio(self, clips: Any, **how: Any) -> Any:
        clips = list(clips)
        if any(len(clip) > 15 * toy.SAMPLE_RATE for clip in clips):
            self.reached.set()
            assert self.opened.wait(PATIENCE)
        return super().embed_audio(clips, **how)


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """One file that is there already, ten more of 10 s, and a longer one that the model gets stuck on."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    toy.write_wav(folder / "first.wav", toy.noise(99, 2.0))
    for n in range(FILES):
        toy.write_wav(folder / f"{n}.wav", toy.noise(n, 10.0))
    toy.write_wav(folder / "long.wav", toy.noise(98, 29.0))
    return folder


@pytest.fixture
def home(sounds: Path, tmp_path: Path) -> Path:
    models = Models(toy.description, lambda name, **_: toy.HandEmbedder())
    with Library.open(tmp_path / "library", create=True, models=models) as library:
        library.ingest([sounds / "first.wav"], workers=1)
    return tmp_path / "library"


@contextmanager
def reader_process(home: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    stop = tmp_path / "stop"
    argv = [sys.executable, "-c", READER.format(tests=str(Path(__file__).parent)), str(home), str(stop)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        try:
            yield process
        finally:
            stop.touch()
    assert process.returncode == 0


def until(process: subprocess.Popen[str], at_least: int) -> int:
    """Read what the process finds until it is that many files."""
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= at_least:
            return int(line)
    raise AssertionError("the reader ended")


def test_other_processes_and_threads_see_commits_as_they_come(home: Path, sounds: Path, tmp_path: Path, monkeypatch):
    """While the model is at work what was committed before is found, and no lock of the database is held."""
    monkeypatch.setattr(writer, "GROUP_SECONDS", 0.0)
    gate = Gate()
    in_thread: list[int] = []
    errors: list[BaseException] = []

    def query() -> None:
        try:
            with Library.open(home, models=Models(toy.description, lambda name, **_: toy.HandEmbedder())) as library:
                while not in_thread or in_thread[-1] < FILES + 2:
                    in_thread.append(len({hit.path for hit in library.query("noise", k=1000).hits}))
                    time.sleep(0.01)
        except BaseException as error:
            errors.append(error)

    def ingest() -> None:
        try:
            with Library.open(home, models=Models(toy.description, lambda name, **_: gate)) as library:
                library.ingest([sounds], workers=1)
        except BaseException as error:
            errors.append(error)
            gate.reached.set()

    threads = [threading.Thread(target=query), threading.Thread(target=ingest)]
    with reader_process(home, tmp_path) as process:
        assert until(process, 1) == 1
        for thread in threads:
            thread.start()
        assert gate.reached.wait(PATIENCE)
        try:
            assert errors == []
            seen = until(process, 2)
            assert seen < FILES + 2, "the long file is still in the model"
            with closing(sqlite3.connect(home / "library.db", timeout=PATIENCE)) as database:
                database.execute("BEGIN IMMEDIATE")  # another connection may write: none is in a transaction
                database.execute("ROLLBACK")
        finally:
            gate.opened.set()
        assert until(process, FILES + 2) == FILES + 2
        for thread in threads:
            thread.join(PATIENCE)
    assert errors == []
    assert in_thread[0] >= 1 and in_thread[-1] == FILES + 2
    assert sorted(in_thread) == in_thread, "what was found once is found again"
    assert len(set(in_thread)) > 2, "the thread saw states in between too"


def test_threads_of_one_library_query_it_beside_its_own_ingest(home: Path, sounds: Path):
    loaded: list[toy.HandEmbedder] = []

    def load(name: str, **_: Any) -> Any:
        loaded.append(Alone())
        return loaded[-1]

    class Alone(toy.HandEmbedder):
        """A model that notices a second caller."""

        busy = False

        def _alone(self, call: Any, *given: Any, **how: Any) -> Any:
            assert not self.busy, "two threads are in the model at once"
            self.busy = True
            time.sleep(0.005)
            try:
                return call(*given, **how)
            finally:
                self.busy = False

        def embed_audio(self, clips: Any, **how: Any) -> Any:
            return self._alone(super().embed_audio, clips, **how)

        def embed_text(self, texts: Any, **how: Any) -> Any:
            return self._alone(super().embed_text, texts, **how)

    errors: list[BaseException] = []
    done = threading.Event()
    with Library.open(home, models=Models(toy.description, load)) as library:

        def query() -> None:
            try:
                while not done.is_set():
                    assert library.query("noise", k=1000).hits
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=query) for _ in range(3)]
        for thread in threads:
            thread.start()
        summary = library.ingest([sounds], workers=1)
        done.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert (errors, summary.files_indexed, len(loaded)) == ([], FILES + 1, 1)
        assert len({hit.path for hit in library.query("noise", k=1000).hits}) == FILES + 2
