"""The demo end to end with a tiny model, its commands repeated as typed, and the sounds it makes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import tempfile
from pathlib import Path

import numpy as np
import pytest

from audiosearch import audio
from audiosearch.cli import demo as demo_command
from audiosearch.cli import demo_sounds, run
from audiosearch.cli import demo_synthesis as synthesis
from audiosearch.config import DEFAULT_MODEL
from audiosearch.errors import ModelError
from audiosearch.types import Answer, Hit

FEW = ("animals/dog.wav", "water/dripping.wav", "scenes/evening walk.flac")


def command_line(*argv: str) -> tuple[int, str]:
    """Exit code and stdout of one command."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = run(argv)
    return code, out.getvalue()


@pytest.fixture(scope="module")
def kept(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A whole demo, kept: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "kept here"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIOSEARCH_RERANK_SECONDS", "100")
        patch.delenv("AUDIOSEARCH_LIBRARY", raising=False)
        code, out = command_line("demo", "--model", str(tiny_checkpoint), "--device", "cpu", "--keep", str(folder))
    assert code == 0
    return folder, out


def test_files_and_their_lengths(kept: tuple[Path, str]):
    folder, out = kept
    files = sorted(path.relative_to(folder / "sounds").as_posix() for path in folder.glob("sounds/*/*"))
    assert files == sorted(demo_sounds.SOUNDS)
    assert 20 <= len(files) <= 40
    assert f"{len(files)} files seen, {len(files)} indexed, 0 unchanged, 0 failed" in out
    assert "0 silent" in out
    for name in files:
        found = audio.read_span(str(folder / "sounds" / name))
        assert 1.0 <= found.size / audio.SAMPLE_RATE <= 60.1, name
        assert 0.3 < np.abs(found).max() <= 1.0, name


def test_printed_commands_can_be_typed(kept: tuple[Path, str], monkeypatch: pytest.MonkeyPatch):
    """Each query line gives, run in the demo's folder, the lines that follow it."""
    folder, out = kept
    blocks = [block.splitlines() for block in out.split("\n\n") if block.startswith("# ")]
    assert len(blocks) == len(demo_command.SEARCHES)
    setup = [line.removeprefix("$ ") for line in out.splitlines() if line.startswith("$ ")][:2]
    assert shlex.split(setup[0]) == ["cd", str(folder)]
    assert shlex.split(setup[1]) == ["export", f"AUDIOSEARCH_LIBRARY={folder / 'library'}"]
    monkeypatch.chdir(folder)
    monkeypatch.setenv("AUDIOSEARCH_LIBRARY", str(folder / "library"))
    monkeypatch.setenv("AUDIOSEARCH_RERANK_SECONDS", "100")
    kinds = set()
    for _, prompt, *hits in blocks:
        program, *argv = shlex.split(prompt.removeprefix("$ "))
        assert program == "audiosearch"
        assert len(hits) == demo_command.HITS
        kinds |= {word for word in argv if word.startswith("--")}
        code, printed = command_line(*argv)
        assert code == 0
        assert printed.splitlines() == hits
    assert kinds == {"--audio", "--instruct", "--names"}


def test_says_why_an_instruction_changes_the_answer(kept: tuple[Path, str]):
    _, out = kept
    plain, instructed = (block.splitlines()[2] for block in out.split("\n\n") if "query 'someone walking'" in block)
    best = [Path(line.split("  ")[-1]).name for line in (plain, instructed)]
    (why,) = (block for block in out.split("\n\n") if block.startswith("Why: "))
    if best[0] != best[1]:
        assert f"changed from {best[0]} to {best[1]}" in why.replace("\n", " ")
    else:
        assert f"is still {best[0]}" in why.replace("\n", " ")
    assert "'what is in the background?'" in why and "sounds that fit 'someone walking' best were heard again" in why


def test_says_why_changed_or_not():
    def answer(name: str, reread: int = 0) -> Answer:
        hit = Hit("id", f"/sounds/{name}", "/sounds", 1, 0.0, 2.0, 0.5)
        return Answer("footsteps", (hit,), "space", reread=reread)

    search = demo_command.SEARCHES[-1]
    assert "changed from a.wav to b.wav" in demo_command._why(search, answer("a.wav"), answer("b.wav", 7))
    assert "the 7 sounds" in demo_command._why(search, answer("a.wav"), answer("b.wav", 7))
    assert "still a.wav" in demo_command._why(search, answer("a.wav"), answer("a.wav", 7))


def test_says_what_to_try_next(kept: tuple[Path, str]):
    folder, out = kept
    last = out.split("What to try next:\n")[1].splitlines()
    assert shlex.split(last[0])[:3] == ["audiosearch", "--library", str(folder / "library")]
    assert all(line.startswith("  audiosearch ") for line in last)


def test_json_and_nothing_left(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(demo_sounds, "SOUNDS", {name: demo_sounds.SOUNDS[name] for name in FEW})
    monkeypatch.setenv("AUDIOSEARCH_LIBRARY", str(tmp_path / "mine"))  # the user's own library is left alone
    code, out = command_line("--model", str(tiny_checkpoint), "demo", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["version"] == 1 and found["kept"] is False
    assert found["ingest"]["files_indexed"] == len(FEW)
    assert [each["command"].split()[:2] for each in found["searches"]] == [["audiosearch", "query"]] * len(
        demo_command.SEARCHES
    )
    for search in found["searches"]:
        assert len(search["answer"]["hits"]) >= 1
        assert ("why" in search) == ("--instruct" in search["command"])
    assert os.listdir(tmp_path) == []  # noqa: PTH208


@pytest.mark.parametrize("place", ["not empty", "a file"])
def test_keep_never_mixes_with_what_is_there(place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "not empty").mkdir()
    (tmp_path / "not empty" / "x").touch()
    (tmp_path / "a file").touch()
    assert run(["demo", "--keep", str(tmp_path / place)]) == 2
    assert place in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a file", "not empty", "x"]


def test_refuses_a_library(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["--library", str(tmp_path), "demo"]) == 2
    assert "--keep" in capsys.readouterr().err


def test_expected_files_exist():
    """What a search should find, and its example, are among the files."""
    files = {f"sounds/{name}" for name in demo_sounds.SOUNDS} | {f"examples/{name}" for name in demo_sounds.EXAMPLES}
    for search in demo_command.SEARCHES:
        assert f"sounds/{search.expected}" in files
        if search.audio is not None:
            assert search.audio.partition("@")[0] in files


def test_with_the_bundled_model_most_searches_find_what_they_should_and_a_question_changes_one(
    monkeypatch: pytest.MonkeyPatch,
):
    from audiosearch.model.fingerprint import describe_model

    try:
        describe_model(DEFAULT_MODEL)
    except ModelError as error:
        pytest.skip(f"no bundled model: {error}")
    monkeypatch.setenv("AUDIOSEARCH_RERANK_SECONDS", "100")
    code, out = command_line("demo", "--json", "--quiet")
    assert code == 0
    searches = json.loads(out)["searches"]
    found = {
        search["command"]: any(hit["path"].endswith(search["expected"]) for hit in search["answer"]["hits"])
        for search in searches
    }
    missed = [command for command, is_found in found.items() if not is_found]
    assert len(missed) <= 2, missed
    plain, instructed = (
        search["answer"]["hits"][0]["path"] for search in searches if "someone walking" in search["command"]
    )
    assert plain.endswith("home/footsteps.wav") and instructed.endswith("waves with footsteps behind.wav")


# -- the sounds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["weather/rain.wav", "animals/dog.wav", "signals/siren.wav"])
def test_the_same_sound_every_time(name: str):
    make = demo_sounds.SOUNDS[name]
    first, again, other = (make(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_events_of_the_walk_stand_out_of_the_wind():
    walk = demo_sounds.evening_walk(np.random.default_rng(0))
    assert walk.size == demo_sounds.WALK_SECONDS * synthesis.RATE

    def power(start: float, end: float) -> float:
        return float(np.mean(walk[synthesis.samples(start) : synthesis.samples(end)] ** 2))

    gaps = [power(event.start_seconds - 1.5, event.start_seconds) for event in demo_sounds.WALK_EVENTS]
    for event in demo_sounds.WALK_EVENTS:
        assert power(event.start_seconds, event.end_seconds) > 5 * max(gaps), event.name


def test_ringing_is_a_damped_sine():
    seconds, frequency, decay = 0.5, 700.0, 0.1
    t = synthesis.times(seconds)
    expected = 0.8 * np.sin(2 * np.pi * frequency * t) * np.exp(-t / decay)
    found = synthesis.ringing(seconds, [(frequency, 0.8, decay)])
    assert np.abs(found - expected)[synthesis.samples(0.001) :].max() < 1e-9


def test_noise_stays_in_its_band():
    sound = synthesis.noise(np.random.default_rng(0), 2.0, 1_000, 2_000)
    spectrum = np.abs(np.fft.rfft(sound)) ** 2
    frequencies = np.fft.rfftfreq(sound.size, 1 / synthesis.RATE)
    inside = spectrum[(frequencies > 600) & (frequencies < 3_500)].sum() / spectrum.sum()
    assert inside > 0.95
    assert np.sqrt(np.mean(sound**2)) == pytest.approx(1.0)


def test_tone_leaves_out_what_the_rate_cannot_hold():
    """A partial above half the rate would come back as another, lower tone."""
    found = synthesis.tone(5_000.0, 0.5, [(1, 1.0), (3, 1.0)])
    assert np.allclose(found, synthesis.tone(5_000.0, 0.5))


def test_limited_keeps_quiet_parts_and_rounds_peaks():
    signal = np.sin(np.linspace(0, 500, 50_000))
    signal[1_000] = 40.0
    found = synthesis.limited(signal)
    assert np.abs(found).max() <= 0.9
    assert np.argmax(found) == 1_000
    others = np.delete(found, 1_000)
    assert np.allclose(others / np.abs(others).max(), np.delete(signal, 1_000) / 1.0, atol=1e-3)
