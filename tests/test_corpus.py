"""From a recipe's sources to checked rows, kept in the run's folder; packed features; batches mixed from them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import toy
from train_helpers import clip_rows, scratch_project, write_clips

from audiosearch.audio import read_span
from audiosearch.errors import UsageError
from audiosearch.trainer.corpus import check_sources, pairs_of, prepare_corpus
from audiosearch.trainer.manifest import ManifestRow, read_manifest, write_manifest
from audiosearch.trainer.recipe import DataRecipe, SourceRecipe, load_recipe


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def two_sources(tmp_path):
    """`a.jsonl` of eight rows, three of them bad, and `b.jsonl` of two; the recipe that names both."""
    write_clips(tmp_path, 8)
    toy.write_wav(tmp_path / "long.wav", toy.noise(0, 3.0))
    (tmp_path / "bad.wav").write_text("no sound")
    rows = [*clip_rows(range(5)), *({"audio": name, "text": "x"} for name in ("none.wav", "bad.wav", "long.wav"))]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in clip_rows((6, 7))))
    return DataRecipe(sources=[SourceRecipe("a.jsonl", share=3), SourceRecipe("b.jsonl", share=1)], max_seconds=1.0)


def test_rows_are_checked_counted_and_kept_with_their_source(two_sources, tmp_path, said):
    corpus = prepare_corpus(two_sources, tmp_path, tmp_path / "out", said.append)
    assert [row.audio for row in corpus.rows] == [str(tmp_path / f"{i}.wav") for i in (0, 1, 2, 3, 4, 6, 7)]
    assert corpus.seconds == pytest.approx([0.4, 0.6, 0.9, 0.4, 0.6, 0.4, 0.6])
    assert corpus.source.tolist() == [0] * 5 + [1] * 2
    assert corpus.shares == (0.75, 0.25) and corpus.n_dropped == 3
    assert said == [
        "a.jsonl: kept 5 of 8 rows; dropped 1 missing (none.wav), 1 unreadable (bad.wav), 1 too-long (long.wav)",
        "b.jsonl: kept all 2 rows",
    ]
    dropped = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    assert [(item["source"], item["audio"], item["reason"]) for item in dropped] == [
        ("a.jsonl", "none.wav", "missing"),
        ("a.jsonl", "bad.wav", "unreadable"),
        ("a.jsonl", "long.wav", "too-long"),
    ]
    assert read_manifest(tmp_path / "out" / "manifest.jsonl") == list(corpus.rows)


def test_a_second_run_takes_exactly_the_rows_of_the_first(two_sources, tmp_path, said):
    first = prepare_corpus(two_sources, tmp_path, tmp_path / "out", said.append)
    (tmp_path / "a.jsonl").unlink()
    (tmp_path / "0.wav").unlink()
    said.clear()
    second = prepare_corpus(replace(two_sources, decode_workers=9), tmp_path, tmp_path / "out", said.append)
    assert not said and second.rows == first.rows and second.shares == first.shares
    assert second.n_dropped == 3
    assert np.array_equal(second.seconds, first.seconds) and np.array_equal(second.source, first.source)


def test_a_recipe_that_reads_other_data_checks_anew(two_sources, tmp_path, said):
    prepare_corpus(two_sources, tmp_path, tmp_path / "out", said.append)
    longer = prepare_corpus(replace(two_sources, max_seconds=5.0), tmp_path, tmp_path / "out", said.append)
    assert len(longer.rows) == 8 and longer.n_dropped == 2
    one = prepare_corpus(replace(two_sources, sources=[SourceRecipe("b.jsonl")]), tmp_path, tmp_path / "out", print)
    assert [row.audio for row in one.rows] == [str(tmp_path / "6.wav"), str(tmp_path / "7.wav")]
    toy.write_wav(tmp_path / "none.wav", toy.noise(0, 0.5))
    assert len(prepare_corpus(two_sources, tmp_path, tmp_path / "out", said.append).rows) == 8
    (tmp_path / "none.wav").unlink()
    assert len(prepare_corpus(two_sources, tmp_path, tmp_path / "out", said.append).rows) == 8
    assert len(prepare_corpus(two_sources, tmp_path, tmp_path / "out", said.append, again=True).rows) == 7


def test_what_was_kept_of_a_check_that_was_cut_off_is_made_anew(two_sources, tmp_path, said):
    prepare_corpus(two_sources, tmp_path, tmp_path / "out", said.append)
    manifest = tmp_path / "out" / "manifest.jsonl"
    write_manifest(read_manifest(manifest)[:-1], manifest)  # not of the same check as the list of lengths
    assert len(prepare_corpus(two_sources, tmp_path, tmp_path / "out", said.append).rows) == 7


def test_a_source_without_a_row_left_is_named(two_sources, tmp_path, said):
    data = replace(two_sources, max_seconds=0.5)
    (tmp_path / "b.jsonl").write_text('{"audio": "long.wav", "text": "x"}\n')
    with pytest.raises(UsageError, match=r"b\.jsonl: no row of it can be trained on; kept 0 of 1 rows; .*long\.wav"):
        prepare_corpus(data, tmp_path, tmp_path / "out", said.append)
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
    with pytest.raises(UsageError, match=r"gone\.jsonl"):
        prepare_corpus(replace(data, sources=[SourceRecipe("gone.jsonl")]), tmp_path, tmp_path / "out", said.append)


def test_long_rows_stay_whole_where_they_are_cut_at_random(two_sources, tmp_path, said):
    corpus = prepare_corpus(replace(two_sources, cut_long=True), tmp_path, tmp_path / "out", said.append)
    assert corpus.rows[5].audio.endswith("long.wav")
    assert corpus.rows[5].end_seconds is None and corpus.seconds[5] == pytest.approx(3.0)


def test_sound_may_lie_elsewhere_than_its_table(two_sources, tmp_path, said):
    (tmp_path / "tables").mkdir()
    (tmp_path / "b.jsonl").rename(tmp_path / "tables" / "b.jsonl")
    data = replace(two_sources, sources=[SourceRecipe("tables/b.jsonl", audio=".")])
    ((_, checked),) = check_sources(data.sources, data, tmp_path, said.append)
    assert [row.audio for row in checked.rows] == [str(tmp_path / "6.wav"), str(tmp_path / "7.wav")]


def test_a_row_makes_a_pair_of_its_caption_and_one_of_its_question():
    rows = [
        ManifestRow("a", "words"),
        ManifestRow("b", question="q", answer="a"),
        ManifestRow("c", "words", question="q", answer="a"),
        ManifestRow("d", alternatives=("more",)),
    ]
    pairs = [(pair.row, pair.kind) for pair in pairs_of(rows)]
    assert pairs == [(0, "caption"), (1, "question"), (2, "caption"), (2, "question"), (3, "caption")]


# -- packs and mixing ------------------------------------------------------------------------------------------------


def test_pack_keeps_the_mel_and_lists_what_it_dropped(tmp_path):
    import torch

    from audiosearch.features import log_mel
    from audiosearch.trainer.pack import build_pack

    write_clips(tmp_path, 6)
    (tmp_path / "3.wav").write_bytes(b"")
    rows = [ManifestRow(f"{i}.wav", "x", start_seconds=0.1 * (i == 5)) for i in range(6)]
    pack = build_pack(rows, tmp_path, tmp_path / "cache", max_seconds=0.5)
    assert len(pack) == 5 and pack.dropped == ("3.wav: empty",)
    assert pack.rows[3].audio == "4.wav"
    for place, (number, start, end) in enumerate([(0, 0, 0.4), (1, 0, 0.5), (2, 0, 0.5), (4, 0, 0.5), (5, 0.1, 0.6)]):
        mel = log_mel(torch.from_numpy(read_span(str(tmp_path / f"{number}.wav"), start, end))).numpy().T
        assert np.abs(pack.decibels(place) - mel).max() <= 160 / 255 / 2 + 1e-4
    assert np.array_equal(pack.decibels(3, 5, 9), pack.decibels(3)[5:9])
    (tmp_path / "0.wav").unlink()  # packed is packed
    again = build_pack(rows, tmp_path, tmp_path / "cache", max_seconds=0.5)
    assert np.array_equal(again.mel, pack.mel)


@pytest.fixture
def mixed(tmp_path, monkeypatch):
    """Makes a stage's batches of a scratch project for one of several processes."""
    import torch

    from audiosearch.trainer.loop import set_up
    from audiosearch.trainer.watch import Watch

    project = scratch_project(tmp_path / "p", monkeypatch, stages__1__batch_size=10, stages__0__batch_size=10)
    recipe = load_recipe(project.folder / "recipe.yaml")
    watch = Watch(tmp_path, writes=False)
    setup = set_up(recipe, project.folder, tmp_path / "out", torch.device("cpu"), watch)
    return lambda stage, rank=0, world_size=1: setup.batches(recipe.stages[stage], stage, rank, world_size)


def content(batch):
    sides = {
        side: [(i.prompt, None if i.mel is None else i.mel.tobytes(), i.n_samples) for i in items]
        for side, items in batch.sides.items()
    }
    return sides, {name: column.tolist() for name, column in batch.keys.items()}


@pytest.mark.parametrize("stage", [0, 1])
def test_mixed_batches_depend_on_the_step_only_and_are_shared_out_whole(mixed, stage):
    source = mixed(stage)
    whole = content(source[5])
    assert whole != content(source[6]) and whole == content(mixed(stage)[5])
    for world_size in (2, 4):
        parts = [content(mixed(stage, rank, world_size)[5]) for rank in range(world_size)]
        for number in (0, 1):
            for name, column in whole[number].items():
                assert [item for part in parts for item in part[number][name]] == column
    assert {len(items) for items in whole[0].values()} == {10}


def test_mixed_sound_has_as_many_slots_as_the_encoder_makes_tokens(mixed):
    from audiosearch.model.projector import n_audio_tokens

    source = mixed(1)
    kinds = set()
    for step in range(4):
        batch = source[step]
        for item, label in zip(batch.sides["queries"], batch.keys["label"].tolist(), strict=True):
            assert item.mel is not None and len(item.mel) == 1 + item.n_samples // 160
            assert item.prompt.ids.count(source.prompts.audio_id) == n_audio_tokens(item.n_samples)
            kinds.add(label >= 0)
        labels, contents = batch.keys["label"], batch.keys["query"]
        alike = contents[:, None] == contents[None]
        assert (labels[:, None] == labels[None])[alike].all()
    assert kinds == {True, False}


def test_batches_hold_their_shares_and_a_scene_s_slots_are_each_other_s_negatives(mixed):
    from audiosearch.trainer.objectives import same_content

    source = mixed(1)
    mix = source.mix
    slots = dict.fromkeys(source.sizes, 0)
    for step in range(400):
        seconds, kinds = source.plan(step)
        assert seconds in mix.crop_seconds and sum(source.sizes[kind] for kind in kinds) == 10
        for kind in kinds:
            slots[kind] += source.sizes[kind] / 4_000
    assert slots["squares"] == pytest.approx(mix.questions * mix.sound_answers, abs=0.03)
    assert slots["asked"] == pytest.approx(mix.questions * (1 - mix.sound_answers), abs=0.03)
    assert slots["scene"] == pytest.approx(mix.scenes, abs=0.03)
    assert slots["joint"] == pytest.approx(mix.joint, abs=0.03)
    pairs = heard_as_answer = 0
    for step in range(8):
        batch = source[step]
        same = same_content(batch.keys)
        mels = [item.mel for item in batch.sides["queries"]]
        for i in range(10):
            document = batch.sides["documents"][i]
            assert document.prompt.ids.count(source.prompts.audio_id) == 0 or document.mel is not None
            heard_as_answer += document.mel is not None
            for j in range(i):
                if mels[i] is mels[j]:  # one sound under two questions
                    assert batch.keys["scene"][i] == batch.keys["scene"][j] and not same[i, j]
                    assert batch.sides["queries"][i].prompt != batch.sides["queries"][j].prompt
                    pairs += 1
    assert pairs > 5 and heard_as_answer > 0


def test_a_scene_is_to_find_every_sound_that_is_in_it(mixed):
    from audiosearch.trainer.synthesis.facts import SceneFacts

    source = mixed(1)
    bank = source.groups.bank
    several = 0
    for number in range(30):
        for slot in source.groups.scene(np.random.default_rng(number), 1.0) or []:
            labels = [bank.labels[row] for row in slot.bank_rows]
            assert labels == list(dict.fromkeys(labels)) and 1 <= len(labels) <= 3
            if len(labels) > 1 and slot.content == "":
                several += 1
    assert several > 5
    one = source.groups.rows[0]
    other = next(row for row in source.groups.rows if row.label != one.label)
    for rows in ((one, other), (other, one), (one, one)):
        found = [bank.labels[row] for row in bank.of_scene(SceneFacts("layered", rows))]
        assert found == list(dict.fromkeys(row.label for row in rows))


def test_both_sounds_of_an_example_have_their_labels(mixed):
    source = mixed(1)
    groups = source.groups
    for number in range(20):
        slot = groups.example(np.random.default_rng(number), 1.0)
        alike = {row for row, like in zip(groups.label_of, groups.clips.contents, strict=True) if like == slot.content}
        keys = source._batch(0, [(0, 0, slot)]).keys
        assert {int(keys["label"][0]), int(keys["document_label"][0])} <= alike


def test_the_answers_of_a_sound_share_its_target_equally():
    import torch

    from audiosearch.trainer.objectives import LABEL_KEYS, ScratchObjective, Teacher

    soft = torch.tensor([[0.8, 0.1, 0.1], [0.0, 1.0, 0.0], [0.2, 0.2, 0.6]])
    objective = ScratchObjective(pairs=None, teacher=Teacher(torch.eye(3), torch.eye(3), soft), recipe=None)
    labels = torch.tensor([[0, 1, -1], [2, -1, -1], [0, 1, 2]])
    assert len(LABEL_KEYS) == labels.shape[1]
    wanted = torch.stack([(soft[0] + soft[1]) / 2, soft[2], soft.mean(dim=0)])
    assert torch.allclose(objective._targets(labels), wanted)


def test_an_answer_that_the_teacher_knows_has_its_row(mixed):
    source = mixed(1)
    known = {
        prompt: row
        for text, row in source.text_row.items()
        for prompt in [source.prompts.encode(text=text, audio_tokens=0)]
    }
    found = 0
    for step in range(5):
        batch = source[step]
        for item, row in zip(batch.sides["documents"], batch.keys["text_row"].tolist(), strict=True):
            assert row == (-1 if item.mel is not None else known.get(item.prompt, -1))
            found += row >= 0
    assert found > 10


def test_text_batches_are_half_descriptions_of_sounds(mixed):
    source = mixed(0)
    for step in range(3):
        rows = source[step].keys["text_row"]
        assert (rows[:5] < source.n_sounds).all() and (rows[5:] >= source.n_sounds).all()
        prompts = [source.prompts.encode(text=source.texts[row], audio_tokens=0) for row in rows]
        assert [item.prompt for item in source[step].sides["queries"]] == prompts
