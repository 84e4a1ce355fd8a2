"""A folder as found on real disks: everything good in it is indexed, the rest is named with its cause."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import toy

from audiosearch.store.store import Store

NOT_UTF8 = b"caf\xe9 \xff.wav"


def write_mp3(path: Path, samples: np.ndarray) -> None:
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream("libmp3lame", rate=toy.SAMPLE_RATE, layout="mono")
        for start in range(0, len(samples), 1152):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1152], format="fltp", layout="mono")
            frame.sample_rate = toy.SAMPLE_RATE
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def without_root_powers() -> None:
    """Take from a child of root the right to pass by mode bits, so that a mode of 000 means what it says."""
    if os.geteuid() == 0:
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            if ctypes.CDLL(None, use_errno=True).prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
                raise OSError(ctypes.get_errno(), "prctl")


COMMAND = """
import sys
sys.path.append(sys.argv[1])
import toy
import audiosearch.library as library
from audiosearch.cli import run
library._installed_models = lambda: library.Models(toy.description, lambda name, **_: toy.HandEmbedder())
sys.exit(run(["--library", sys.argv[2], "ingest", "--json", sys.argv[3]]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bad") / "sounds"
    folder.mkdir()
    toy.write_wav(folder / "good.wav", toy.tone(440, 3))
    toy.write_wav(os.fsencode(folder) + b"/" + NOT_UTF8, toy.tone(100, 2))
    write_mp3(folder / "whole.mp3", toy.noise(1, 20.0))
    whole = (folder / "whole.mp3").read_bytes()
    (folder / "cut.mp3").write_bytes(whole[: len(whole) // 2 + 101])
    (folder / "whole.mp3").unlink()
    (folder / "x.wav").mkdir()
    toy.write_wav(folder / "x.wav" / "inside.wav", toy.tone(900, 2))
    (folder / "x.wav" / "loop").symlink_to(folder)
    (folder / "self.wav").symlink_to(folder / "self.wav")
    (folder / "zero.wav").write_bytes(b"")
    (folder / "text.wav").write_text("Take 3 was the good one, see the notes.\n" * 30)
    (folder / "random.mp3").write_bytes(np.random.default_rng(7).bytes(50_000))
    toy.write_wav(folder / "locked.wav", toy.tone(250, 2))
    (folder / "locked.wav").chmod(0)
    return folder


def ingest(folder: Path) -> tuple[int, dict, str]:
    """Exit code, summary and stderr of the command, as a user whom mode bits stop and with the model of toy.py."""
    arguments = [str(Path(toy.__file__).parent), str(folder.parent / "library"), str(folder)]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], capture_output=True, text=True, preexec_fn=without_root_powers
    )
    assert done.stdout, done.stderr
    summary = json.loads(done.stdout)
    summary["failed"] = {Path(failed["path"]).name: failed for failed in summary["failed"]}
    return done.returncode, summary, done.stderr


@pytest.fixture(scope="module")
def first(folder) -> tuple[int, dict, str]:
    return ingest(folder)


@pytest.fixture(scope="module")
def outcome(first) -> dict:
    return first[1]


@pytest.fixture(scope="module")
def stored(folder, outcome) -> dict[str, float]:
    """Relative path -> how far its chunks reach, in seconds."""
    with Store.open(str(folder.parent / "library")) as store:
        space = store.default_space()
        assert space is not None
        reach: dict[str, float] = {}
        for chunk in store.resolve(store.changes_since(space.id, 0).added_ids):
            for _, path in chunk.paths:
                reach[path] = max(reach.get(path, 0.0), chunk.end_seconds)
        return reach


def test_everything_good_is_indexed(outcome, stored):
    assert set(stored) == {"good.wav", os.fsdecode(NOT_UTF8), "cut.mp3", "x.wav/inside.wav"}
    assert outcome["files_indexed"] == 4


def test_a_name_in_no_encoding_comes_back_as_it_is_on_disk(stored):
    assert os.fsencode(next(path for path in stored if path.startswith("caf"))) == NOT_UTF8


def test_a_cut_mp3_is_indexed_up_to_the_cut_with_a_warning(outcome, stored):
    assert stored["cut.mp3"] == pytest.approx(10.0, abs=0.3)
    assert [warning for warning in outcome["warnings"] if "cut.mp3" in warning]


def test_a_directory_named_like_a_file_and_a_loop_are_passed_over(outcome, stored):
    assert "x.wav" not in stored and "x.wav" not in outcome["failed"]
    assert not any("loop" in path for path in stored)
    assert outcome["files_seen"] == 8


@pytest.mark.parametrize(
    ("name", "cause"),
    [("zero.wav", "empty"), ("text.wav", "not-audio"), ("random.mp3", "not-audio"), ("locked.wav", "unreadable")],
)
def test_a_bad_file_is_listed_with_its_cause(outcome, name, cause):
    assert outcome["failed"][name]["cause"] == cause
    assert outcome["failed"][name]["detail"]


def test_nothing_else_failed(outcome):
    assert set(outcome["failed"]) == {"zero.wav", "text.wav", "random.mp3", "locked.wav"}


def test_the_ledger_keeps_what_the_summary_said(folder, outcome):
    with Store.open(str(folder.parent / "library")) as store:
        ledger = {Path(failed.path).name: failed.cause for failed in store.failures()}
        assert store.status().failed == 4
    assert ledger == {name: failed["cause"] for name, failed in outcome["failed"].items()}


def test_the_exit_code_is_three_and_every_failure_is_a_line(first):
    code, summary, stderr = first
    assert code == 3
    assert "Traceback" not in stderr
    lines = [line for line in stderr.splitlines() if line.startswith("failed: ")]
    assert len(lines) == 4
    for name, failed in summary["failed"].items():
        assert any(name in line and failed["cause"] in line for line in lines), (name, lines)


def test_the_next_run_tries_only_what_may_have_passed(folder, outcome):
    code, again, _ = ingest(folder)
    assert code == 3
    assert (again["files_unchanged"], again["files_indexed"], again["chunks_embedded"]) == (4, 0, 0)
    attempts = {name: failed["attempts"] for name, failed in again["failed"].items()}
    assert attempts == {"zero.wav": 1, "text.wav": 1, "random.mp3": 1, "locked.wav": 2}
