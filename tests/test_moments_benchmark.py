"""That benchmarks/moments.py runs: it answers by the engine's own refinement, whose changes once broke it unseen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "moments.py"
EVENTS = 8  # of one recording
NO_DATA = 2


def run(*options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_every_arm_answers_every_event_of_one_recording(tmp_path):
    out = tmp_path / "moments.json"
    few = ("--split", "train", "--recordings", 1, "--seconds", 180, "--top", 2)
    done = run(*few, "--json", out)
    if done.returncode == NO_DATA and done.stderr.startswith("skipped:"):
        pytest.skip(done.stderr)
    assert done.returncode in (0, 1), done.stderr  # of so few events nothing can be said of the aims
    result = json.loads(out.read_text(encoding="utf-8"))
    arms = {(arm["scope"], arm["name"]): arm for arm in result["arms"]}
    names = {name for _, name in arms}
    assert {"refined: ends", "refined: ends and rank", result["best_grid"]} <= names
    assert len(arms) == len(result["arms"]) == 2 * len(names)  # in the event's recording, and in all
    for arm in arms.values():
        assert arm["queries"] == EVENTS and 0 <= arm["at_70"] <= arm["at_50"] <= arm["touched"] <= 1
    refined = arms["its recording", "refined: ends and rank"]
    assert refined["at_50"] * EVENTS >= 2  # by chance one in a hundred: two or three of 143 windows of 2.5 s do


def test_without_data_it_says_which_folder_it_looked_in(tmp_path):
    done = run("--data", tmp_path / "nowhere")
    assert done.returncode == NO_DATA
    assert "nowhere" in done.stderr and "AUDIOSEARCH_DATA" in done.stderr
