"""The command line: what it prints where, and its exit codes. The library behind it uses the model of toy.py."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import toy

import audiosearch
from audiosearch.cli import doctor, run
from audiosearch.cli.common import byte_size, clock, printable
from audiosearch.cli.progress import ProgressView, describe, seconds_left
from audiosearch.cli.query import parse_example
from audiosearch.config import load_settings
from audiosearch.errors import UsageError
from audiosearch.library import Models
from audiosearch.types import IngestProgress

# A program whose `audiosearch` has the hand-computed model, for what needs a process of its own.
PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
import os, pathlib, time, toy, audiosearch.library as library
class Embedder(toy.HandEmbedder):
    def embed_audio(self, clips, **how):
        if "SLOWLY" in os.environ:
            pathlib.Path(os.environ["SLOWLY"]).touch()
            time.sleep(2)
        return super().embed_audio(clips, **how)
library._installed_models = lambda: library.Models(toy.description, lambda name, **_: Embedder())
from audiosearch.cli import run
if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
"""


HAND = Models(toy.description, lambda name, **_: toy.HandEmbedder())


@pytest.fixture(autouse=True)
def _hand_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in [name for name in os.environ if name.startswith("AUDIOSEARCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AUDIOSEARCH_LIBRARY", str(tmp_path / "library"))
    monkeypatch.setattr("audiosearch.library._installed_models", lambda: HAND)


def make_sounds(folder: Path) -> Path:
    folder.mkdir()
    toy.write_wav(folder / "hum.wav", toy.tone(100, 3.0))
    toy.write_wav(folder / "beep@2-3.wav", toy.tone(1500, 3.0))
    toy.write_wav(folder / "long.wav", toy.np.concatenate([toy.tone(100, 40.0), toy.tone(4000, 40.0)]))
    return folder


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    return make_sounds(tmp_path / "sounds")


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Sounds and a library of them, ingested one time for all tests."""
    home = tmp_path_factory.mktemp("cli")
    folder = make_sounds(home / "sounds")
    with audiosearch.Library.open(home / "library", create=True, models=HAND) as library:
        assert library.ingest([folder], workers=1).files_indexed == 3
    return folder, home / "library"


@pytest.fixture
def ingested(made_once: tuple[Path, Path], tmp_path: Path) -> Path:
    """The folder of sounds, not to be changed; a copy of the library of them is the one that is used."""
    shutil.copytree(made_once[1], tmp_path / "library")
    return made_once[0]


def one_line(text: str) -> bool:
    return text.startswith("audiosearch: ") and text.count("\n") == 1 and "Traceback" not in text


def test_version(capfd):
    assert run(["--version"]) == 0
    assert capfd.readouterr().out == f"audiosearch, version {audiosearch.__version__}\n"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["quary"], "quary"),
        (["query", "hum", "-k", "0"], "-k"),
        (["query", "hum", "-k", "many"], "-k"),
        (["query", "hum", "--nonsense"], "--nonsense"),
        (["query", "two", "texts"], "texts"),
        (["ingest"], "PATH"),
        (["ingest", "/no/such/folder"], "/no/such/folder"),
        (["ingest", ".", "--hop", "0"], "--hop"),
        (["train"], "RECIPE"),
        (["train", "no-such-recipe"], "no-such-recipe"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_2(argv: list[str], says: str, capfd):
    assert run(argv) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert one_line(err)
    assert says in err


def test_a_missing_library_says_what_to_do(capfd, tmp_path: Path):
    for argv in (["query", "hum"], ["status"]):
        assert run(argv) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert one_line(err)
        assert str(tmp_path / "library") in err
        assert "audiosearch ingest" in err
    assert not (tmp_path / "library").exists(), "asking makes nothing"


def test_an_empty_library_says_what_to_do(capfd):
    audiosearch.Library.open(create=True).close()
    assert run(["query", "hum"]) == 2
    err = capfd.readouterr().err
    assert one_line(err)
    assert "nothing has been ingested yet: run `audiosearch ingest PATH`" in err


def test_a_model_that_does_not_load_says_so(capfd, ingested: Path, monkeypatch, tmp_path: Path):
    monkeypatch.undo()
    monkeypatch.setenv("AUDIOSEARCH_LIBRARY", str(tmp_path / "library"))
    (tmp_path / "model").mkdir()
    for argv in (["query", "hum", "--model", str(tmp_path / "model")], ["ingest", ".", "--model", "no/such/model"]):
        assert run(argv) == 2
        assert one_line(capfd.readouterr().err)


def test_a_wrong_config_file_is_one_line(capfd, ingested: Path, tmp_path: Path):
    (tmp_path / "library" / "config.toml").write_text("modle = 1\n")
    assert run(["status"]) == 2
    err = capfd.readouterr().err
    assert one_line(err)
    assert "modle" in err


def test_query_prints_rank_score_span_and_path(ingested: Path, capfd):
    assert run(["query", "beep", "-k", "2"]) == 0
    assert capfd.readouterr().out.splitlines()[0].endswith("beep@2-3.wav  (name: beep)")
    assert run(["query", "beep", "-k", "2", "--names", "off"]) == 0
    out, err = capfd.readouterr()
    rank, score, sure, span, short, path = out.splitlines()[0].split(maxsplit=5)
    assert (rank, span, path) == ("1", "00:00.0-00:03.0", str(ingested / "beep@2-3.wav"))
    assert 0.5 < float(score) <= 1 and 50 < int(sure.rstrip("%")) <= 100
    assert len(out.splitlines()) == 2
    assert run(["similar", short]) == 0, "an id leads back to its hit"
    assert str(ingested / "beep@2-3.wav") not in capfd.readouterr().out
    assert "\033" not in out
    assert err == ""


def test_query_json_is_the_documented_schema(ingested: Path, capfd):
    assert run(["query", "hum", "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["version"] == 1
    assert answer["query"] == "hum"
    first = answer["hits"][0]
    assert set(first) >= {
        "id", "path", "root", "recording_id", "start_seconds", "end_seconds", "score", "confidence",
        "metadata",
    }  # fmt: skip
    assert first["path"] == str(ingested / "hum.wav")
    assert first["root"] == str(ingested)
    assert first["confidence"] == 1 - first["false_alarm_rate"]
    assert set(first["metadata"]) == {
        "fields", "markers", "recorded_at", "recorded_at_source", "time_reference_samples",
    }  # fmt: skip
    assert (first["start_seconds"], first["end_seconds"]) == (0.0, 3.0)


def test_info_says_what_is_known_of_a_file(ingested: Path, capfd):
    assert run(["info", str(ingested / "hum.wav")]) == 0
    printed = capfd.readouterr().out
    assert printed.startswith(str(ingested / "hum.wav")) and "pcm_s16le in wav, 16,000 Hz, 1 channel" in printed
    assert run(["info", str(ingested / "hum.wav"), str(ingested / "long.wav"), "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert [each["duration_seconds"] for each in answer["files"]] == [3.0, 80.0]
    assert answer["files"][0]["metadata"]["fields"] == {} and len(answer["files"][0]["spaces"]) == 1
    assert run(["info", str(ingested / "absent.wav")]) == 2
    assert one_line(capfd.readouterr().err)


def test_query_by_example_span_and_name_with_at_sign(ingested: Path, capfd):
    assert run(["query", "--audio", f"{ingested / 'long.wav'}@50-58", "-k", "1"]) == 0
    assert "long.wav" in capfd.readouterr().out
    assert run(["query", "--audio", str(ingested / "beep@2-3.wav"), "-k", "1"]) == 0
    assert "beep@2-3.wav" in capfd.readouterr().out
    assert run(["query", "--audio", str(ingested / "absent.wav"), "-k", "1"]) == 2
    assert one_line(capfd.readouterr().err)
    assert run(["query", "--audio", f"{ingested / 'hum.wav'}@50-58"]) == 2
    assert one_line(capfd.readouterr().err)


def test_nothing_asked_is_an_error(ingested: Path, capfd):
    assert run(["query"]) == 2
    assert one_line(capfd.readouterr().err)


def test_no_hits_is_exit_1(capfd, tmp_path: Path):
    folder = tmp_path / "quiet"
    folder.mkdir()
    toy.write_wav(folder / "silence.wav", toy.np.zeros(16000, toy.np.float32))
    assert run(["ingest", str(folder), "--workers", "1"]) == 0
    capfd.readouterr()
    assert run(["query", "hum", "--json"]) == 1
    out, err = capfd.readouterr()
    assert json.loads(out)["hits"] == []
    assert err == "no match\n"


def test_notes_go_to_stderr_unless_quiet(ingested: Path, capfd):
    argv = ["query", "hum", "--audio", str(ingested / "long.wav")]
    assert run(argv) == 0
    out, err = capfd.readouterr()
    assert err.startswith("note: ")
    assert not out.startswith("note")
    assert run(["-q", *argv]) == 0
    assert capfd.readouterr().err == ""


def test_ingest_summary_failures_and_exit_code(sounds: Path, capfd):
    (sounds / "text.wav").write_text("not sound at all")
    assert run(["ingest", str(sounds), "--workers", "1"]) == 3
    out, err = capfd.readouterr()
    assert "4 files seen, 3 indexed, 0 unchanged, 1 failed" in out
    assert f"failed: {sounds / 'text.wav'}: not-audio: " in err
    assert run(["ingest", str(sounds), "--workers", "1", "--json", "--quiet"]) == 3
    out, err = capfd.readouterr()
    summary = json.loads(out)
    assert (summary["version"], summary["files_unchanged"], summary["files_indexed"]) == (1, 3, 0)
    assert summary["failed"][0]["cause"] == "not-audio"
    assert "text.wav" in err, "why the exit code is not 0 is said even when quiet"


def test_status(sounds: Path, capfd):
    (sounds / "empty.wav").write_bytes(b"")
    assert run(["ingest", str(sounds), "--workers", "1", "-q"]) == 3
    capfd.readouterr()
    assert run(["status", "--json", "--failed"]) == 0
    state = json.loads(capfd.readouterr().out)
    assert (state["version"], state["recordings"], state["failed"]) == (1, 3, 1)
    assert state["spaces"][0]["model"] == "alm2vec-mini"
    assert state["failures"][0]["path"] == str(sounds / "empty.wav")
    assert state["failures"][0]["cause"] == "empty"
    assert run(["status", "--failed"]) == 0
    out = capfd.readouterr().out
    assert "recordings  3, 86 s of sound" in out
    assert f"failed      {sounds / 'empty.wav'}: empty: " in out


def test_library_option_before_or_after_the_command(ingested: Path, capfd, monkeypatch, tmp_path: Path):
    monkeypatch.delenv("AUDIOSEARCH_LIBRARY")
    here = str(tmp_path / "library")
    for argv in (["--library", here, "status", "--json"], ["status", "--json", "--library", here]):
        assert run(argv) == 0
        assert json.loads(capfd.readouterr().out)["directory"] == here
    assert run(["--library", "/nowhere", "status", "--library", here]) == 0


def test_doctor_names_every_check_and_a_next_step(capfd, tmp_path: Path, monkeypatch):
    assert run(["doctor", "--json"]) in (0, 2)
    checks = {check["name"]: check for check in json.loads(capfd.readouterr().out)["checks"]}
    assert set(checks) == {
        "python", "packages", "faiss", "media", "device", "model", "library", "disk", "sqlite",
    }  # fmt: skip
    assert checks["media"]["state"] == "ok"
    assert "libavcodec" in checks["media"]["detail"]
    assert checks["library"]["state"] == "warn"
    assert "audiosearch ingest" in checks["library"]["next_step"]
    assert checks["sqlite"]["state"] == "ok"
    assert checks["device"]["detail"].count(":")
    settings = load_settings(tmp_path, model=str(tmp_path / "no-model"), device="abacus")
    for name in ("model", "device"):
        found = doctor.guarded(name, doctor.CHECKS[name], settings)
        assert (found.name, found.state) == (name, "fail")
        assert found.detail
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=5))
    assert doctor.check_disk(settings).state == "warn"


# Processes of their own


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(tests=str(Path(__file__).parent)))
    return [sys.executable, str(script)]


def test_a_name_that_is_not_utf8_is_printed_as_it_is(tmp_path: Path, program: list[str], capfd):
    (tmp_path / "names").mkdir()
    raw = os.fsencode(tmp_path / "names") + b"/caf\xe9.wav"
    toy.write_wav(raw, toy.tone(300, 3.0))
    assert run(["ingest", str(tmp_path / "names"), "--workers", "1", "-q"]) == 0
    done = subprocess.run([*program, "query", "--audio", raw, "-k", "1"], capture_output=True, check=True)
    assert done.stdout.rstrip(b"\n").endswith(raw)
    capfd.readouterr()
    assert run(["query", "voice", "--json"]) == 0
    assert os.fsencode(json.loads(capfd.readouterr().out)["hits"][0]["path"]) == raw


def test_a_reader_that_goes_away_is_no_error(ingested: Path, program: list[str]):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*program, "query", "hum"], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert done.returncode == 141
    assert done.stderr == b""


def test_ctrl_c_keeps_what_was_done_and_exits_130(tmp_path: Path, program: list[str]):
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(8):
        toy.write_wav(folder / f"{i}.wav", toy.noise(i, 60.0))
    marker = tmp_path / "embedding"
    process = subprocess.Popen(
        [*program, "ingest", str(folder), "--workers", "1", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "SLOWLY": str(marker)},
    )
    deadline = time.monotonic() + 60
    while not marker.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err.decode()
    assert b"Traceback" not in err
    assert json.loads(out)["interrupted"]
    assert run(["ingest", str(folder), "--workers", "1", "-q"]) == 0, "and the next run finishes the rest"


# Small parts


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ref.wav", ("ref.wav", None, None)),
        ("ref.wav@12.5-18", ("ref.wav", 12.5, 18.0)),
        ("ref.wav@1:05-1:09.25", ("ref.wav", 65.0, 69.25)),
        ("ref.wav@1:00:00-1:00:10", ("ref.wav", 3600.0, 3610.0)),
        ("ref.wav@12.5-", ("ref.wav", 12.5, None)),
        ("me@home/ref.wav", ("me@home/ref.wav", None, None)),
        ("me@home/a@b.wav@1-2", ("me@home/a@b.wav", 1.0, 2.0)),
        ("a@1-2@3-4", ("a@1-2", 3.0, 4.0)),
        ("take@5", ("take@5", None, None)),
    ],
)
def test_example_and_span(value: str, expected: tuple[str, float | None, float | None]):
    assert parse_example(value) == expected


def test_a_file_of_the_whole_name_wins(tmp_path: Path):
    tricky = tmp_path / "take@1-2"
    tricky.touch()
    assert parse_example(str(tricky)) == (str(tricky), None, None)
    with pytest.raises(UsageError):
        parse_example(f"{tricky}@2-2")


def test_clock_sizes_and_names():
    assert [clock(s) for s in (0, 9.96, 59.96, 65.5, 3599.96, 4325.5)] == [
        "00:00.0", "00:10.0", "01:00.0", "01:05.5", "1:00:00.0", "1:12:05.5",
    ]  # fmt: skip
    assert [byte_size(n) for n in (12, 1500, 2.5e9, 3e13)] == ["12 B", "1.5 kB", "2.5 GB", "30.0 TB"]
    assert printable("a\nb\x1b[1m\udce9é") == "a\\nb\\x1b[1m\udce9é"


def a_state(**changes: Any) -> IngestProgress:
    fields: dict[str, Any] = {
        "files_done": 10,
        "files_total": 40,
        "audio_seconds": 3600.0,
        "audio_seconds_total": 36000.0,
        "chunks_embedded": 700,
        "elapsed_seconds": 60.0,
        "current": "x.wav",
    }
    return IngestProgress(**{**fields, **changes})


def test_progress_in_words():
    assert describe(a_state()) == "60.0 min of sound, 60 x real time, ETA 0:09:00"
    assert seconds_left(a_state(audio_seconds_total=None)) == pytest.approx(180)
    assert seconds_left(a_state(files_done=0, audio_seconds=0.0)) is None
    assert describe(a_state(files_done=0, audio_seconds=0.0, elapsed_seconds=0.0)) == "0 s of sound"


def test_progress_off_a_terminal_is_a_line_now_and_then(capfd):
    now = [0.0]
    with ProgressView(quiet=False, clock=lambda: now[0]) as view:
        for second in range(100):
            now[0] = float(second)
            view(a_state(files_done=second, files_total=100))
    assert capfd.readouterr().err.count(" files, ") == 3
    with ProgressView(quiet=True, clock=lambda: now[0]) as view:
        now[0] += 1000
        view(a_state())
    assert capfd.readouterr().err == ""
