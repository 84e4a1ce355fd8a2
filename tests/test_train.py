"""The loop: a run that was killed ends as one that was not, and what cannot be trained is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_tiny_checkpoint
from train_helpers import Project, base_project, clip_rows, last_state, lines, same, scratch_project

from audiosearch.cli import run as command
from audiosearch.errors import ModelError, UsageError
from audiosearch.trainer.compute import Compute
from audiosearch.trainer.loop import Run, train


class Killed(BaseException):
    """What a kill is to the loop: nothing that it could catch."""


def kill(monkeypatch: pytest.MonkeyPatch, method: str, call: int) -> None:
    """Let a run die when it calls `method`, of Run or of Compute, for the `call`-th time."""
    owner = Run if hasattr(Run, method) else Compute
    original, calls = getattr(owner, method), iter(range(1, 1_000))

    def dying(self: Any, *arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            raise Killed
        return original(self, *arguments, **options)

    monkeypatch.setattr(owner, method, dying)


# -- resume ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, tiny_checkpoint: Path) -> Project:
    """Twelve pairs in two sources, four held out, every part of the loop in use."""
    project = base_project(
        tmp_path / "project",
        16,
        checkpoint=tiny_checkpoint,
        data__sources=[{"table": "a.jsonl", "share": 2}, {"table": "b.jsonl", "share": 1}],
        data__held_out=[{"table": "held-out.jsonl"}],
        hard_negatives={"share": 0.25, "every_steps": 2, "neighbours": 2, "skip": 0},
        stages__0__steps=7,
    )
    for name, numbers in (("a.jsonl", range(8)), ("b.jsonl", range(8, 12)), ("held-out.jsonl", range(12, 16))):
        project.write_rows(clip_rows(numbers), name)
    return project


def test_a_run_killed_anywhere_ends_as_the_whole_one(project, tmp_path, monkeypatch, capsys):
    torch.manual_seed(123)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(project.recipe, str(whole))
    assert "hard negatives for 12 pairs" in capsys.readouterr().err
    # Before the first checkpoint; between step and checkpoint; before a measurement; in the middle of a gradient.
    for number, (method, call) in enumerate([("_average", 1), ("_average", 4), ("_keep", 2), ("encode", 7)]):
        torch.manual_seed(number)
        with monkeypatch.context() as patch:
            kill(patch, method, call)
            with pytest.raises(Killed):
                train(project.recipe, str(parts), resume=number > 0)
    train(project.recipe, str(parts), resume=True)
    one, two = last_state(whole), last_state(parts)
    assert one["step"] == 7 and one["optimizer"]["state"] and one["neighbours"] is not None
    assert {"weights", "temperature", "optimizer", "history"} <= one.keys()
    same(one, two)
    assert [line["step"] for line in one["history"]] == [1, 2, 3, 3, 4, 5, 6, 6, 7, 7]
    same(lines(whole), lines(parts))
    assert [line["step"] for line in lines(whole)] == [1, 2, 3, 3, 4, 5, 6, 6, 7, 7]
    for file in ("adapter/adapter_model.safetensors", "checkpoints/best.json"):
        assert (whole / file).read_bytes() == (parts / file).read_bytes()
    # Done is done: nothing is trained any more.
    with monkeypatch.context() as patch:
        kill(patch, "gradient", 1)
        train(project.recipe, str(parts), resume=True)
    same(one, last_state(parts))


def test_without_its_optimiser_a_resumed_run_would_end_elsewhere(project, tmp_path, monkeypatch):
    """What the test above would not show if two steps were all alike."""
    load = Run.load

    def forgetful(self: Run, state: dict[str, Any]) -> None:
        load(self, state)
        self._pending = None

    for name in ("whole", "without"):
        out = tmp_path / name
        with monkeypatch.context() as patch:
            kill(patch, "_average", 5)
            with pytest.raises(Killed):
                train(project.recipe, str(out))
        with monkeypatch.context() as patch:
            if name == "without":
                patch.setattr(Run, "load", forgetful)
            train(project.recipe, str(out), resume=True)
    weights = [last_state(tmp_path / name)["weights"] for name in ("whole", "without")]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_scratch_run_killed_anywhere_ends_as_the_whole_one(tmp_path, monkeypatch):
    project = scratch_project(tmp_path / "project", monkeypatch)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    torch.manual_seed(123)
    train(project.recipe, str(whole))
    # In the text stage past its checkpoint; at its very end; early in the audio stage; later in it.
    for number, (method, call) in enumerate([("_average", 3), ("_keep", 1), ("_average", 2), ("_average", 3)]):
        torch.manual_seed(number)
        with monkeypatch.context() as patch:
            kill(patch, method, call)
            with pytest.raises(Killed):
                train(project.recipe, str(parts), resume=number > 0)
    train(project.recipe, str(parts), resume=True)
    one, two = last_state(whole), last_state(parts)
    assert (one["stage"], one["step"]) == (1, 5) and one["average"].keys() == one["weights"].keys()
    same(one, two)
    same(lines(whole), lines(parts))
    assert [(line["stage"], line["step"]) for line in lines(whole)] == [
        *[("text", step) for step in (1, 2, 3)],
        *[("audio", step) for step in (1, 2, 3, 4, 5)],
    ]
    assert (whole / "model" / "model.safetensors").read_bytes() == (parts / "model" / "model.safetensors").read_bytes()


def test_a_scratch_run_lowers_its_loss(tmp_path, monkeypatch):
    mix = {"scenes": 0.0, "questions": 0.0, "examples": 0.0, "joint": 0.0, "crop_seconds": {0.5: 1.0}}
    project = scratch_project(
        tmp_path / "project",
        monkeypatch,
        stages__1__steps=40,
        stages__1__learning_rate=0.003,
        stages__1__decoder_rate=1.0,
        stages__1__micro_batch_size=None,
        scratch__mix=mix,
        checkpoint_every_steps=100,
    )
    train(project.recipe, str(tmp_path / "run"))
    found = [line["label_bank"] for line in lines(tmp_path / "run") if line["stage"] == "audio"]
    assert sum(found[-5:]) / 5 < sum(found[:5]) / 5 - 0.3


def test_a_stage_may_leave_the_sound_side_as_it_is(tmp_path, monkeypatch):
    """At a rate of 0 encoder and projector do not move, and the decoder learns as it would have."""
    project = scratch_project(tmp_path / "project", monkeypatch, stages__1__sound_rate=0.0, keep_checkpoints=20)
    train(project.recipe, str(tmp_path / "run"))
    kept = sorted((tmp_path / "run" / "checkpoints").glob("*.pt"))
    states = {(s["stage_name"], s["step"]): s["weights"] for s in (torch.load(path) for path in kept)}
    before, after = states["text", 3], states["audio", 5]
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert any(name.startswith("decoder.") for name in moved)
    assert not any(name.startswith("audio_") for name in moved)


# -- refused ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Project:
    """Two steps over eight pairs, on a base of its own."""
    return base_project(tmp_path / "small", 8, stages__0__steps=2, checkpoint_every_steps=1)


def test_a_run_that_is_there_is_resumed_only_when_asked(small, tmp_path):
    out = tmp_path / "run"
    train(small.recipe, str(out))
    before = last_state(out)
    with pytest.raises(UsageError, match="a run is already there; add --resume to continue it"):
        train(small.recipe, str(out))
    with pytest.raises(UsageError, match=r"another recipe \(changed: seed, stages\)"):
        train(small.recipe, str(out), resume=True, overrides=["seed=4", "stages.0.steps=9"])
    same(before, last_state(out))
    train(small.recipe, str(tmp_path / "new"), resume=True)  # nothing to resume is no mistake
    same(before, last_state(tmp_path / "new"))


def test_another_base_under_the_same_name_is_refused(small, tmp_path, monkeypatch):
    out = tmp_path / "run"
    train(small.recipe, str(out))
    make_tiny_checkpoint(small.folder / "other", seed=1)
    (small.folder / "base").rename(small.folder / "old")
    (small.folder / "other").rename(small.folder / "base")
    with pytest.raises(UsageError, match=r"begun on another base \(fingerprint .*, now .*\): give the old one"):
        train(small.recipe, str(out), resume=True)
    (small.folder / "base").rename(small.folder / "other")
    (small.folder / "old").rename(small.folder / "base")
    train(small.recipe, str(out), resume=True)


def test_a_base_that_is_none_or_not_the_recipe_s_is_refused(small, tmp_path):
    def problem(*overrides: str) -> str:
        with pytest.raises((UsageError, ModelError)) as caught:
            train(small.recipe, str(tmp_path / "x"), overrides=overrides)
        assert not (tmp_path / "x" / "checkpoints").exists()
        return str(caught.value)

    assert "no-such-model" in problem("base=no-such-model")
    assert "lora.expected_parameters is 5, and the adapters on this base have 1,920" in problem(
        "lora.expected_parameters=5"
    )
    assert "no linear layer of the model is called qq_proj" in problem("lora.targets=[qq_proj]")
    assert "projection_dim is 7 and the base's own projection has 24 rows" in problem("projection_dim=7")
    train(small.recipe, str(tmp_path / "run"))
    assert "is a LoRA checkpoint; give the merged one" in problem(f"base={tmp_path / 'run' / 'adapter'}")


def test_a_batch_that_the_processes_cannot_share_is_refused(small, tmp_path, monkeypatch):
    stage = Run.stage

    def of_three(self: Run, number: int, recipe: Any) -> None:
        self.world_size = 3
        stage(self, number, recipe)

    monkeypatch.setattr(Run, "stage", of_three)
    with pytest.raises(UsageError, match=r"stages\.0\.batch_size is 8: not a multiple of 3 processes"):
        train(small.recipe, str(tmp_path / "run"))


def test_a_folder_that_another_process_trains_in_is_refused(small, tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()
    code = f"from filelock import FileLock\nwith FileLock({str(out / '.lock')!r}):\n print('held', flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert command(["train", small.recipe, "--out", str(out)]) == 2
        assert f"{out}: another run is using this folder" in capsys.readouterr().err
    finally:
        holder.communicate("\n")
    assert command(["train", small.recipe, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out / 'adapter'}\n"


def test_missing_data_is_said_before_anything_is_made(small, tmp_path, monkeypatch):
    for file in small.folder.glob("*.wav"):
        file.unlink()
    with pytest.raises(UsageError, match=r"manifest\.jsonl: no row of it can be trained on; kept 0 of 8 .* 8 missing"):
        train(small.recipe, str(tmp_path / "run"))
    scratch = scratch_project(tmp_path / "scratch", monkeypatch)
    (scratch.folder / "manifest.csv").unlink()
    with pytest.raises(UsageError, match="AUDIOSEARCH_DATA"):
        train(scratch.recipe, str(tmp_path / "run"))
