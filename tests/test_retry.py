"""The ledger: what is read again when, `retry`, and `status --failed`."""

import json
import os
from pathlib import Path

import hostile_media
import pytest
import toy

from audiosearch.cli import run
from audiosearch.errors import MediaError, UsageError
from audiosearch.ingest.ledger import fails_for_good
from audiosearch.library import Library, Models
from audiosearch.store.records import FileState

HAND = Models(toy.description, lambda name, **_: toy.HandEmbedder())


@pytest.fixture(autouse=True)
def _hand_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in [name for name in os.environ if name.startswith("AUDIOSEARCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AUDIOSEARCH_LIBRARY", str(tmp_path / "library"))
    monkeypatch.setattr("audiosearch.library._installed_models", lambda: HAND)


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """One good file, one without bytes, one of text, and one that is longer than the limit the tests set."""
    folder = tmp_path / "sounds"
    (folder / "below").mkdir(parents=True)
    toy.write_wav(folder / "good.wav", toy.tone(440, 2))
    toy.write_wav(folder / "long.wav", toy.tone(880, 30))
    (folder / "below" / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("no sound\n" * 100)
    return folder


SHORT = {"file_max_hours": 0.005}  # 18 s


def causes(library: Library) -> dict[str, tuple[str, int]]:
    return {Path(f.path).name: (f.cause, f.attempts) for f in library.failures()}


def test_after_a_limit_was_raised_retry_reads_what_an_ingest_passes_over(sounds: Path):
    with Library.open(create=True, **SHORT) as library:
        first = library.ingest([sounds])
        assert first.files_indexed == 1
        assert causes(library) == {
            "long.wav": ("too-large", 1),
            "empty.wav": ("empty", 1),
            "text.wav": ("not-audio", 1),
        }
    with Library.open() as library:
        assert library.ingest([sounds]).files_indexed == 0
        assert causes(library)["long.wav"] == ("too-large", 1)
        summary = library.retry(cause="too-large")
        assert (summary.files_seen, summary.files_indexed, summary.failed) == (1, 1, ())
        assert causes(library) == {"empty.wav": ("empty", 1), "text.wav": ("not-audio", 1)}
        assert library.status().failed_by_cause == {"empty": 1, "not-audio": 1}


def test_retry_takes_paths_and_says_what_is_gone(sounds: Path):
    with Library.open(create=True) as library:
        library.ingest([sounds])
        assert library.retry([sounds / "below"]).files_seen == 1
        assert causes(library) == {"empty.wav": ("empty", 2), "text.wav": ("not-audio", 1)}
        nothing = library.retry([sounds / "good.wav"])
        assert nothing.files_seen == 0
        assert nothing.warnings == (f"no failed file is at or below {sounds / 'good.wav'}",)
        (sounds / "text.wav").unlink()
        toy.write_wav(sounds / "below" / "empty.wav", toy.tone(300, 1))
        summary = library.retry()
        assert (summary.files_seen, summary.files_indexed) == (1, 1)
        assert len(summary.warnings) == 1 and "text.wav: gone" in summary.warnings[0]
        assert set(causes(library)) == {"text.wav"}
        with pytest.raises(UsageError, match="'loud'; there are empty, not-audio"):
            library.retry(cause="loud")


@pytest.mark.parametrize(
    ("cause", "attempts", "again"),
    [
        ("unreadable", 50, True),
        ("vanished", 50, True),
        ("crashed", 2, True),
        ("crashed", 3, False),
        ("too-slow", 2, True),
        ("too-slow", 3, False),
        ("corrupt", 1, False),
        ("too-large", 1, False),
    ],
)
def test_which_failures_an_ingest_tries_again(cause: str, attempts: int, again: bool):
    assert MediaError.is_tried_again(cause, attempts) is again
    assert fails_for_good(FileState(1, 2, 3, False, cause, attempts)) is not again


def test_the_commands(sounds: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AUDIOSEARCH_FILE_MAX_HOURS", "0.005")
    assert run(["ingest", str(sounds)]) == 3
    monkeypatch.delenv("AUDIOSEARCH_FILE_MAX_HOURS")
    capsys.readouterr()

    assert run(["status", "--cause", "too-large", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["failed_by_cause"] == {"empty": 1, "not-audio": 1, "too-large": 1}
    (failed,) = answer["failures"]
    assert (Path(failed["path"]).name, failed["cause"], failed["will_retry"]) == ("long.wav", "too-large", False)
    assert "file_max_hours = 0.005" in failed["detail"] and "retry --cause too-large" in failed["detail"]

    assert run(["status", "--failed"]) == 0
    out, err = capsys.readouterr()
    assert "(3 failed: 1 empty, 1 not-audio, 1 too-large)" in out
    assert "audiosearch retry" in err

    assert run(["retry", "--cause", "too-large", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files_indexed"] == 1
    assert run(["retry"]) == 3
    assert "empty.wav: empty" in capsys.readouterr().err
    assert run(["retry", "--cause", "loud"]) == 2


# ── a run over many files ──


@pytest.mark.slow
def test_one_corrupt_file_among_a_thousand_is_one_line(tmp_path: Path):
    folder = tmp_path / "sounds"
    folder.mkdir()
    for n in range(1000):
        toy.write_wav(folder / f"{n:04}.wav", toy.tone(100 + 7 * n, 0.1))
    corrupt = folder / "0617.wav"
    corrupt.write_bytes(corrupt.read_bytes()[:30])
    with Library.open(create=True) as library:
        summary = library.ingest([folder])
        assert (summary.files_seen, summary.files_indexed) == (1000, 999)
        assert [Path(f.path).name for f in library.failures()] == ["0617.wav"]
        assert summary.failed == library.failures()
        again = library.ingest([folder])
        assert (again.files_unchanged, again.files_indexed, len(again.failed)) == (999, 0, 1)


def test_mutated_files_are_indexed_or_in_the_ledger(tmp_path: Path):
    seeds, folder = tmp_path / "seeds", tmp_path / "mutants"
    seeds.mkdir()
    folder.mkdir()
    good, missing = hostile_media.make_seeds(seeds, seconds=0.4)
    assert len(good) >= 30, missing
    files = hostile_media.mutants(good, folder, 4 * len(good), seed=11)
    with Library.open(create=True, file_stall_seconds=30, file_memory_mb=400) as library:
        summary = library.ingest([folder])
        failures = library.failures()
        assert summary.files_seen == len(files)
        assert library.status().files + len(failures) == len(files)
    assert summary.files_indexed > len(files) / 3 and len(failures) > len(files) / 10  # or it would show nothing
    # A decoder may die of a signal; an exception that nobody foresaw is our mistake.
    assert [f for f in failures if f.cause == "crashed" and " by SIG" not in f.detail] == []
