"""The trainer: data in, loss against a float64 reference, bit-equal resume, a checkpoint the embedder opens."""

from __future__ import annotations

import csv
import itertools
import json
import math
import wave
from pathlib import Path

import numpy as np
import pytest
import yaml

from audiosearch.errors import UsageError

TINY_RECIPE = {
    "name": "tiny",
    "licence": "CC0-1.0",
    "seed": 3,
    "data": {"table": "manifest.csv", "phrases": "phrases.yaml", "vocab_size": 400, "word_limit": 20},
    "model": {
        "encoder_dim": 32,
        "encoder_depth": 1,
        "encoder_heads": 2,
        "stem_channels": [8, 8, 8, 8],
        "decoder_dim": 32,
        "decoder_depth": 1,
        "decoder_heads": 2,
        "decoder_kv_heads": 1,
        "decoder_intermediate": 48,
        "projection_dim": 384,
    },
    "text_stage": {
        "steps": 3,
        "batch_size": 8,
        "learning_rate": 0.003,
        "final_learning_rate": 0.0001,
        "warmup_steps": 1,
    },
    "audio_stage": {
        "steps": 6,
        "batch_size": 8,
        "learning_rate": 0.003,
        "final_learning_rate": 0.0001,
        "warmup_steps": 1,
    },
    "mix": {"mixture": 0.2, "questions": 0.3, "joint": 0.1, "category": 0.1, "crop_seconds": {0.5: 1.0, 1.0: 1.0}},
    "checkpoint_every_steps": 2,
    "log_every_steps": 1,
}
LABELS = {"low hum": 120.0, "high whine": 3_000.0, "middle tone": 800.0, "hiss": 0.0}


def fake_teacher(texts, cache):
    """Sentence vectors without a sentence encoder: words hashed to fixed directions."""
    out = np.zeros((len(texts), 384), dtype=np.float32)
    for row, text in zip(out, texts, strict=True):
        for word in text.split() or [""]:
            row += np.random.default_rng(list(word.encode()) or [0]).normal(size=384)
    return out / np.linalg.norm(out, axis=1, keepdims=True)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A recipe, its table, phrase book and sixteen clips; the teacher replaced by `fake_teacher`."""
    from audiosearch.trainer import loop

    monkeypatch.setattr(loop, "sentence_vectors", fake_teacher)
    monkeypatch.setattr(loop, "teacher_words", lambda: ["tone", "noise", "bird"] * 10)
    folder = tmp_path / "project"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(16):
        label = list(LABELS)[number % 4]
        time = np.arange(16_000 * (1 + number % 3) // 2) / 16_000
        sound = np.sin(2 * np.pi * LABELS[label] * time) if LABELS[label] else rng.normal(size=len(time)) * 0.3
        with wave.open(str(folder / f"{number}.wav"), "wb") as out:
            out.setparams((1, 2, 16_000, 0, "NONE", ""))
            out.writeframes((sound * 20_000).clip(-32_767, 32_767).astype("<i2").tobytes())
        rows.append(
            {"split": "train", "tier": "A", "file": f"{number}.wav", "label": label, "class": label.split()[-1]}
            | {"group": "music", "caption": f"a {label}", "caption2": "", "fold": "", "licence": "CC0"}
        )
    with (folder / "manifest.csv").open("w", newline="") as table:
        writer = csv.DictWriter(table, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "phrases.yaml").write_text(yaml.safe_dump({"labels": {"hiss": ["white noise"]}, "classes": {}}))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(TINY_RECIPE))
    return folder


# -- loss ------------------------------------------------------------------------------------------------------------


def reference_loss(queries: np.ndarray, documents: np.ndarray, tau: float, dropped: np.ndarray) -> float:
    """Eqs. 1-3 written out in float64, one pair at a time."""
    total = 0.0
    for a, b, skip in ((queries, documents, dropped), (documents, queries, dropped.T)):
        for i in range(len(a)):
            terms = [math.exp(float(a[i] @ b[j]) / tau) for j in range(len(b)) if j == i or not skip[i, j]]
            total -= math.log(math.exp(float(a[i] @ b[i]) / tau) / sum(terms)) / len(a)
    return total


def unit(rng, n, dim):
    vectors = rng.normal(size=(n, dim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_contrastive_loss_equals_the_reference_with_masks():
    import torch

    from audiosearch.trainer.losses import contrastive

    rng = np.random.default_rng(1)
    queries, documents = unit(rng, 12, 6), unit(rng, 12, 6)
    same = np.zeros((12, 12), dtype=bool)
    same[2, 5] = same[5, 2] = True
    result = contrastive(
        torch.from_numpy(queries),
        torch.from_numpy(documents),
        torch.tensor(0.05, dtype=torch.float64),
        same=torch.from_numpy(same),
    )
    assert result.loss.item() == pytest.approx(reference_loss(queries, documents, 0.05, same), rel=1e-9)
    assert result.masked_share == pytest.approx(2 / 132)
    unmasked = contrastive(
        torch.from_numpy(queries), torch.from_numpy(documents), torch.tensor(0.05, dtype=torch.float64)
    )
    assert unmasked.loss.item() != pytest.approx(result.loss.item(), rel=1e-6)


def test_a_negative_above_the_margin_is_left_out_in_its_own_direction_only():
    import torch

    from audiosearch.trainer.losses import contrastive

    documents = torch.eye(3, dtype=torch.float64)
    queries = torch.tensor([[0.2, 0.98, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    result = contrastive(queries, documents, torch.tensor(1.0, dtype=torch.float64), false_negative_margin=0.1)
    cosine = queries.numpy()
    rows = [-math.log(math.exp(0.2) / (math.exp(0.2) + math.exp(0.0)))]
    rows += [-math.log(math.exp(1) / np.exp(cosine[i]).sum()) for i in (1, 2)]
    columns = [-math.log(math.exp(cosine[j, j]) / np.exp(cosine[:, j]).sum()) for j in range(3)]
    assert result.loss.item() == pytest.approx(np.mean(rows) + np.mean(columns), rel=1e-9)


def test_temperature_is_learnt_and_never_below_its_floor():
    import torch

    from audiosearch.trainer.losses import Temperature

    temperature = Temperature(0.07, floor=0.01)
    assert temperature().item() == pytest.approx(0.07)
    (1 / temperature()).backward()
    assert temperature.log_tau.grad is not None and temperature.log_tau.grad.abs() > 0
    with torch.no_grad():
        temperature.log_tau.fill_(-20)
    assert temperature().item() == pytest.approx(0.01)


def test_schedule_warms_up_linearly_and_ends_at_the_final_rate():
    from audiosearch.trainer.schedule import warmup_cosine

    rates = [warmup_cosine(step, steps=100, warmup_steps=10, peak=1.0, final=0.1) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[55] == pytest.approx(0.55) and rates[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


# -- recipes and data ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stpes": 3}, "unknown key stpes"),
        ({"audio_stage": {"steps": 3}}, "missing key audio_stage.batch_size"),
        ({"seed": "seven"}, "seed is 'seven'"),
        ({"text_stage": 4}, "text_stage. must be a mapping"),
        ({"loss": {"initial_tau": True}}, "loss.initial_tau is True"),
    ],
)
def test_a_bad_recipe_names_the_key(tmp_path, change, words):
    from audiosearch.trainer.recipe import load_recipe

    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**TINY_RECIPE, **change}))
    with pytest.raises(UsageError, match=words):
        load_recipe(path)


def test_bundled_recipes_load():
    from audiosearch.trainer.recipe import bundled_recipes, find_recipe, load_recipe

    assert "mini" in bundled_recipes()
    for name in bundled_recipes():
        assert load_recipe(find_recipe(name)).name


def test_missing_environment_variable_is_named(tmp_path, monkeypatch):
    from audiosearch.trainer.recipe import resolve

    monkeypatch.delenv("NO_SUCH_PLACE", raising=False)
    with pytest.raises(UsageError, match="NO_SUCH_PLACE"):
        resolve("$NO_SUCH_PLACE/x.csv", tmp_path)


def test_manifest_round_trip_and_errors(tmp_path):
    from audiosearch.trainer.manifest import ManifestRow, read_manifest, write_manifest

    rows = [ManifestRow("a.wav", "a dog", label="dog", alternatives=("woof",)), ManifestRow("b.wav", "ein Schaf – mäh")]
    path = tmp_path / "m.jsonl"
    assert write_manifest(rows, path) == 2
    assert read_manifest(path) == rows
    path.write_text(path.read_text() + '{"audio": "c.wav", "texte": 1}\n')
    with pytest.raises(UsageError, match=r"m\.jsonl:3"):
        read_manifest(path)
    path.write_text(json.dumps({"audio": "c.wav", "text": " "}))
    with pytest.raises(UsageError, match="empty"):
        read_manifest(path)


def test_pack_keeps_the_mel_and_lists_what_it_dropped(project):
    import torch

    from audiosearch.audio import read_span
    from audiosearch.features import log_mel
    from audiosearch.trainer.converters import labelled_clips
    from audiosearch.trainer.pack import build_pack

    (project / "3.wav").write_bytes(b"")
    rows = labelled_clips(project / "manifest.csv")
    pack = build_pack(rows, project, project / "cache")
    assert len(pack) == 15 and pack.dropped == ("3.wav: empty",)
    assert pack.rows[3].audio == "4.wav"
    mel = log_mel(torch.from_numpy(read_span(str(project / "4.wav")))).numpy().T
    assert np.abs(pack.decibels(3) - mel).max() <= 160 / 255 / 2 + 1e-4
    assert np.array_equal(pack.decibels(3, 5, 9), pack.decibels(3)[5:9])
    again = build_pack(rows, project, project / "cache")
    assert np.array_equal(again.mel, pack.mel)


def test_batches_depend_on_seed_and_step_only(project, tmp_path):
    from audiosearch.trainer import loop
    from audiosearch.trainer.recipe import load_recipe

    recipe = load_recipe(project / "recipe.yaml")
    first = loop.Run(loop.prepare(recipe, project, tmp_path / "a"), tmp_path / "a").sampler
    second = loop.Run(loop.prepare(recipe, project, tmp_path / "b"), tmp_path / "b").sampler
    second.batch(0, 8)
    ours, theirs = first.batch(5, 16), second.batch(5, 16)
    assert ours.texts == theirs.texts
    assert (ours.audio.mel == theirs.audio.mel).all() and (ours.audio.ids == theirs.audio.ids).all()
    assert ours.texts != first.batch(6, 16).texts
    # Every audio row has as many placeholders as the encoder will make tokens for it.
    from audiosearch.model.projector import n_audio_tokens

    slots = (ours.audio.ids == first.prompts.audio_id).sum(dim=1).tolist()
    assert slots == [n_audio_tokens(n) for n in ours.audio.n_samples.tolist()]


# -- the whole loop --------------------------------------------------------------------------------------------------


def final_state(out: Path):
    import torch

    return torch.load(out / "state.pt", weights_only=True)


def test_resumed_run_is_bit_equal_and_the_export_opens(project, tmp_path, monkeypatch):
    import torch

    from audiosearch.embed import load_embedder
    from audiosearch.trainer.loop import Run, train

    torch.manual_seed(123)
    whole = train(str(project / "recipe.yaml"), str(tmp_path / "whole"))
    torch.manual_seed(456)
    average = Run._average
    for kill_at in (3, 2, 5):  # in the text stage past a checkpoint, early in the audio stage, later in it
        countdown = iter(range(kill_at, 0, -1))

        def dying(self, countdown=countdown):
            if next(countdown) == 1:
                raise KeyboardInterrupt
            average(self)

        monkeypatch.setattr(Run, "_average", dying)
        with pytest.raises(KeyboardInterrupt):
            train(str(project / "recipe.yaml"), str(tmp_path / "parts"))
    monkeypatch.setattr(Run, "_average", average)
    train(str(project / "recipe.yaml"), str(tmp_path / "parts"))
    one, two = final_state(tmp_path / "whole"), final_state(tmp_path / "parts")
    assert one["step"] == two["step"] == 6
    for part in ("model", "average", "temperature"):
        assert one[part].keys() == two[part].keys()
        for name, value in one[part].items():
            assert torch.equal(value, two[part][name]), name

    def numbers(history):
        return [
            {k: v for k, v in line.items() if k != "samples_per_second"} for line in history if line["stage"] == "audio"
        ]

    assert numbers(one["history"])[-1] == numbers(two["history"])[-1]
    embedder = load_embedder(str(whole))
    assert embedder.dim == 384 and embedder.licence == "CC0-1.0"
    vectors = embedder.embed_text(["a hiss", "a low hum"])
    assert vectors.shape == (2, 384) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    card = (whole / "README.md").read_text()
    assert "16 clips" in card and "| CC0 | 16 |" in card
    assert (whole / "CREDITS.csv").read_text().count("\n") == 2


def test_training_lowers_the_loss(project, tmp_path):
    from audiosearch.trainer.loop import train

    recipe = yaml.safe_load((project / "recipe.yaml").read_text())
    recipe["audio_stage"] |= {"steps": 40, "learning_rate": 0.01}
    recipe["mix"] |= {"mixture": 0.0, "questions": 0.0, "joint": 0.0, "category": 0.0}
    (project / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    train(str(project / "recipe.yaml"), str(tmp_path / "run"))
    lines = [line for line in final_state(tmp_path / "run")["history"] if line["stage"] == "audio"]
    early = np.mean([line["label_bank"] for line in lines[:5]])
    late = np.mean([line["label_bank"] for line in lines[-5:]])
    assert late < early - 0.3


def test_a_run_of_another_recipe_or_without_resume_is_refused(project, tmp_path):
    from audiosearch.trainer.loop import train

    train(str(project / "recipe.yaml"), str(tmp_path / "run"), max_steps=1)
    with pytest.raises(UsageError, match="--resume"):
        train(str(project / "recipe.yaml"), str(tmp_path / "run"), resume=False)
    (project / "recipe.yaml").write_text(yaml.safe_dump({**TINY_RECIPE, "seed": 4}))
    with pytest.raises(UsageError, match="changed: seed"):
        train(str(project / "recipe.yaml"), str(tmp_path / "run"))


def test_missing_table_says_what_to_set(project, tmp_path):
    from audiosearch.trainer.loop import train

    (project / "manifest.csv").unlink()
    with pytest.raises(UsageError, match="AUDIOSEARCH_DATA"):
        train(str(project / "recipe.yaml"), str(tmp_path / "run"))


def test_the_phrase_book_is_no_recipe_and_a_dry_run_checks(tmp_path, capsys):
    from audiosearch.cli import run

    assert run(["train", "mini", "--dry-run"]) == 0
    assert "alm2vec-mini" in capsys.readouterr().out
    assert run(["train", "phrases", "--dry-run"]) == 2
    assert "the bundled ones are mini" in capsys.readouterr().err
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({**TINY_RECIPE, "stpes": 3}))
    assert run(["train", str(tmp_path / "bad.yaml"), "--dry-run"]) == 2
    assert "unknown key stpes" in capsys.readouterr().err
