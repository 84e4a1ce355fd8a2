"""That benchmarks/foreign.py trains without the collections it judges, and judges them."""

from __future__ import annotations

import csv
import importlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import toy
from train_helpers import LABELS, fake_teacher, lines

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
SMALL = {
    "scratch.categories": "''",
    "scratch.model": "{encoder_dim: 32, encoder_depth: 1, encoder_heads: 2, stem_channels: [8, 8, 8, 8], "
    "decoder_dim: 32, decoder_depth: 1, decoder_heads: 2, decoder_kv_heads: 1, decoder_intermediate: 48, "
    "projection_dim: 384}",
    "scratch.vocab_size": "400",
    "scratch.scene_texts": "30",
    "scratch.renditions": "0",
    "scratch.generated": "0",
    "log_every_steps": "1",
    "stages.0.batch_size": "8",
    "stages.1.batch_size": "8",
    "stages.2.batch_size": "8",
}


@pytest.fixture
def foreign() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("foreign")


def write_data(folder: Path, collections: tuple[str, ...]) -> None:
    """Tones and noises of our own and of each collection, in both splits."""
    rows = []
    for number, source in enumerate(("ours", *collections) * 8):
        label = list(LABELS)[number // 4 % 2]
        tone, name = LABELS[label], f"{number}.wav"
        seconds = 0.5 + number / 64
        toy.write_wav(
            folder / name, toy.tone(tone + number, seconds, level=0.6) if tone else toy.noise(number, seconds)
        )
        split = "valid" if number >= 16 else "train"
        row = {"split": split, "tier": "A", "file": name, "label": label, "class": label.split()[-1], "group": "other"}
        row |= {"caption": f"a {label}", "caption2": "", "fold": "", "licence": "CC0"}
        rows.append(row | {"family": name, "source_repo": source, "seconds": str(seconds), "attribution": "nobody"})
    with (folder / "manifest.csv").open("w", newline="") as table:
        writer = csv.DictWriter(table, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.slow
def test_a_model_is_trained_without_the_collections_and_judged_on_them(foreign, tmp_path, monkeypatch, capsys):
    from audiosearch.trainer import scratch

    monkeypatch.setattr(scratch, "sentence_vectors", fake_teacher)
    monkeypatch.setattr(scratch, "teacher_words", lambda: ["tone", "noise", "bird"] * 10)
    monkeypatch.setenv("AUDIOSEARCH_DATA", "")  # put back after the benchmark has set it
    data = tmp_path / "data"
    data.mkdir()
    write_data(data, foreign.COLLECTIONS)
    steps = ["--text-steps", "2", "--sound-steps", "2", "--steps", "3"]
    changes = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    out, report = tmp_path / "run", tmp_path / "figures.json"
    command = ["foreign.py", "--out", str(out), "--data", str(data), "--json", str(report), *steps, *changes]
    monkeypatch.setattr("sys.argv", command)
    assert foreign.main() in (0, 1), "of three steps nothing can be said of the floors"
    assert Counter(line["stage"] for line in lines(out)) == {"text": 2, "sound": 2, "held-out": 3}
    with (out / "model" / "CREDITS.csv").open(newline="") as credits:
        assert {row["collection"] for row in csv.DictReader(credits)} == {"ours"}
    figures = json.loads(report.read_text())["figures"]
    for rows, own in (("valid", 4), ("all", 8)):
        keys = {figure["key"]: figure for figure in figures[rows]}
        for collection in foreign.COLLECTIONS:
            figure = keys[f"held_out_{collection.replace('/', '_')}"]
            assert f", {own} of {16 if rows == 'valid' else 8} clips)" in figure["name"]
            assert 0 < figure["value"] <= 1
    assert "valid rows" in capsys.readouterr().out
    # Once more, with nothing left to train: judged again, with the same figures.
    assert foreign.main() in (0, 1)
    assert json.loads(report.read_text())["figures"] == figures


def test_without_data_it_says_where_it_looked(foreign, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["foreign.py", "--out", str(tmp_path / "run"), "--data", str(tmp_path)])
    assert foreign.main() == foreign.NO_DATA
    assert f"skipped: {tmp_path} has no manifest.csv" in capsys.readouterr().err
