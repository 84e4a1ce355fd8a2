"""That benchmarks/moments.py runs: it answers by the engine's own refinement, whose changes once broke it unseen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "benchmarks" / "moments.py"
DATA = Path(os.environ.get("AUDIOSEARCH_DATA") or ROOT.parent / "shared" / "data")
EVENTS = 8  # of one recording


def run(*options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.skipif(not (DATA / "manifest.csv").is_file(), reason="no labelled clips: AUDIOSEARCH_DATA names no folder")
def test_every_arm_answers_every_event_of_one_recording(tmp_path):
    out = tmp_path / "moments.json"
    few = ("--split", "train", "--recordings", 1, "--seconds", 180, "--top", 2)
    done = run(*few, "--data", DATA, "--json", out)
    assert done.returncode in (0, 1), done.stderr  # of so few events nothing can be said of the aims
    result = json.loads(out.read_text(encoding="utf-8"))
    names = {arm["name"] for arm in result["arms"]}
    assert {"refined: ends", "refined: ends and rank", result["best_grid"]} <= names
    assert len(result["arms"]) == 2 * len(names)  # in the event's recording, and in all
    for arm in result["arms"]:
        assert arm["queries"] == EVENTS and 0 <= arm["at_70"] <= arm["at_50"] <= arm["touched"] <= 1
    assert max(arm["at_50"] for arm in result["arms"]) > 0  # by chance hardly one event in twenty is met by half


def test_without_data_it_says_which_folder_it_looked_in(tmp_path):
    done = run("--data", tmp_path / "nowhere")
    assert done.returncode == 2
    assert "nowhere" in done.stderr and "AUDIOSEARCH_DATA" in done.stderr
