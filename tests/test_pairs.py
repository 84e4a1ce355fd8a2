"""Which pairs make which batch, and what of them reaches the model."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import toy
from train_helpers import caption, write_clips

from audiosearch.errors import AudioSearchError
from audiosearch.model.projector import n_audio_tokens
from audiosearch.trainer.corpus import Corpus
from audiosearch.trainer.data import ManifestBatches, PairPlan, ahead
from audiosearch.trainer.manifest import ManifestRow
from audiosearch.trainer.recipe import DataRecipe, HardNegatives, SourceRecipe, StageRecipe

DATA = DataRecipe(sources=[SourceRecipe("none")], max_seconds=1.0, decode_workers=0)


def make_corpus(*counts: int, shares=(1.0,), weights=None, seconds=None) -> Corpus:
    """`counts[k]` caption rows of source k, without any sound."""
    total = sum(counts)
    weights = weights or [1.0] * total
    rows = tuple(ManifestRow(f"{i}.wav", caption(i), weight=weight) for i, weight in enumerate(weights))
    source = np.repeat(np.arange(len(counts)), counts)
    return Corpus(rows, np.ones(total) if seconds is None else np.asarray(seconds), source, tuple(shares), 0)


def make_plan(corpus: Corpus, size: int, steps: int, *, seed: int = 1, pool: int = 1, hard=None) -> PairPlan:
    stage = StageRecipe("s", steps=steps, batch_size=size)
    data = replace(DATA, length_pool_batches=pool, max_seconds=100.0)
    return PairPlan(corpus, data, stage, seed, hard or HardNegatives())


# -- the plan --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, 64])
def test_every_batch_and_every_run_of_batches_has_each_source_by_its_share(size):
    shares = (0.35, 0.15, 0.35, 0.15)
    corpus = make_corpus(50, 30, 200, 11, shares=shares)
    plan = make_plan(corpus, size, 400)
    counts = np.array([np.bincount(corpus.source[plan.batch(step)], minlength=4) for step in range(400)])
    assert (counts.sum(axis=1) == size).all()
    assert np.abs(counts - size * np.array(shares)).max() < 1
    drift = counts.cumsum(axis=0) - size * np.outer(np.arange(1, 401), shares)
    assert np.abs(drift).max() < 3, "the long run must not drift away from the shares"


def test_a_source_of_a_tiny_share_still_gets_its_turn():
    plan = make_plan(make_corpus(100, 5, shares=(0.99, 0.01)), 8, 1_000)
    drawn = sum(int((plan.batch(step) >= 100).sum()) for step in range(1_000))
    assert drawn == pytest.approx(80, abs=2)


def test_every_row_comes_once_an_epoch_and_each_epoch_in_another_order():
    plan = make_plan(make_corpus(24), 8, 9)
    batches = [plan.batch(step) for step in range(9)]
    epochs = [np.concatenate(batches[i : i + 3]) for i in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(24)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_a_batch_over_the_end_of_an_epoch_goes_on_with_the_next():
    plan = make_plan(make_corpus(10), 4, 25)
    drawn = np.concatenate([plan.batch(step) for step in range(25)])
    assert (np.bincount(drawn) == 10).all()


def test_weights_are_how_often_a_row_is_drawn():
    weights = [1.0] * 12 + [3.0] * 4  # of 16 draws an epoch: 12 x 2/3, 4 x 2
    plan = make_plan(make_corpus(16, weights=weights), 8, 60)
    counts = np.bincount(np.concatenate([plan.batch(step) for step in range(60)]), minlength=16)
    assert (counts[12:] == 60).all()
    assert counts[:12].sum() == 240 and counts[:12].min() > 10 and counts[:12].max() < 30


def test_a_batch_depends_on_seed_and_step_only():
    corpus = make_corpus(50, 30, shares=(0.5, 0.5))
    forward = [make_plan(corpus, 8, 40).batch(step) for step in range(40)]
    plan = make_plan(corpus, 8, 40)
    backward = [plan.batch(step) for step in reversed(range(40))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward, strict=True))
    other = make_plan(corpus, 8, 40, seed=2)
    assert not np.array_equal(other.batch(0), forward[0])
    # A longer run begins with the same batches.
    assert np.array_equal(make_plan(corpus, 8, 80).batch(39), forward[39])


def test_the_length_pool_keeps_the_pairs_and_lowers_the_padding():
    seconds = np.random.default_rng(0).lognormal(1, 1, 96).clip(0.2, 30)
    corpus = make_corpus(96, seconds=seconds)
    plain, pooled = make_plan(corpus, 8, 22), make_plan(corpus, 8, 22, pool=4)
    for first in (0, 4, 16):
        one = Counter(np.concatenate([plain.batch(first + i) for i in range(4)]).tolist())
        assert one == Counter(np.concatenate([pooled.batch(first + i) for i in range(4)]).tolist())
    assert len(pooled.batch(21)) == 8  # the last pool is not whole

    def padded(plan: PairPlan) -> float:
        lengths = [seconds[plan.batch(step)] for step in range(20)]
        return sum(8 * row.max() for row in lengths) / sum(row.sum() for row in lengths)

    assert padded(pooled) < 1 + (padded(plain) - 1) / 2
    # Short and long batches come in no order, and what is in a batch in none either.
    means = [seconds[pooled.batch(step)].mean() for step in range(20)]
    assert len({int(np.argsort(np.argsort(means[i : i + 4]))[0]) for i in range(0, 20, 4)}) > 1
    assert any((np.diff(seconds[pooled.batch(step)]) < 0).any() for step in range(20))


def test_mined_neighbours_take_the_last_slots_of_a_batch():
    corpus = make_corpus(40)
    plain = make_plan(corpus, 8, 10)
    hard = make_plan(corpus, 8, 10, hard=HardNegatives(share=0.4))
    assert np.array_equal(hard.batch(3), plain.batch(3))  # nothing has been mined yet
    hard.neighbours = np.stack([(np.arange(40) + 1) % 40, (np.arange(40) + 2) % 40], axis=1).astype(np.int32)
    for step in range(10):
        ours, before = hard.batch(step), plain.batch(step)
        assert np.array_equal(ours[:5], before[:5])
        allowed = set((before[:5] + 1) % 40) | set((before[:5] + 2) % 40)
        assert set(ours[5:]) <= allowed
        assert np.array_equal(ours, hard.batch(step))
    hard.neighbours = np.full((40, 2), -1, dtype=np.int32)
    assert np.array_equal(hard.batch(3), plain.batch(3))  # a pair without neighbours keeps its company


# -- what the model gets ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prompts(tiny_checkpoint):
    from audiosearch.model.weights import load

    return load(tiny_checkpoint)[1]


@pytest.fixture
def batches(tmp_path, prompts):
    """Makes ManifestBatches of rows over a few clips in `tmp_path`."""
    write_clips(tmp_path, 12)

    def make(rows=None, *, size=8, data=DATA, rank=0, world_size=1) -> ManifestBatches:
        rows = rows or [ManifestRow(f"{i}.wav", caption(i), question="what?", answer=f"it is {i}") for i in range(12)]
        rows = tuple(replace(row, audio=str(tmp_path / row.audio)) for row in rows)
        n = len(rows)
        corpus = Corpus(rows, np.full(n, 0.5), np.zeros(n, np.int64), (1.0,), 0)
        plan = PairPlan(corpus, data, StageRecipe("s", steps=20, batch_size=size), 1, HardNegatives())
        return ManifestBatches(plan, corpus, prompts, data, rank=rank, world_size=world_size)

    return make


def content(batch):
    """A batch as something that can be compared."""
    sides = {
        side: [(i.prompt, None if i.mel is None else i.mel.tobytes(), i.n_samples) for i in items]
        for side, items in batch.sides.items()
    }
    return sides, {name: column.tolist() for name, column in batch.keys.items()}


@pytest.mark.parametrize("world_size", [2, 4, 3])
def test_the_processes_shares_are_the_batch_of_one(batches, world_size):
    whole = content(batches(size=9)[3])
    parts = [content(batches(size=9, rank=rank, world_size=world_size)[3]) for rank in range(world_size)]
    for number in (0, 1):
        for name, column in whole[number].items():
            assert [item for part in parts for item in part[number][name]] == column


def test_a_pair_is_its_sound_and_what_is_said_of_it(batches, prompts):
    source = batches(size=24)
    batch = source[0]
    chosen = [source.plan.pairs[number] for number in source.plan.batch(0)]
    assert Counter(pair.kind for pair in chosen) == {"caption": 12, "question": 12}
    for pair, query, document in zip(chosen, batch.sides["queries"], batch.sides["documents"], strict=True):
        asked = pair.kind == "question"
        slots = query.prompt.ids.count(prompts.audio_id)
        task = "query" if asked else "document"
        assert query.prompt == prompts.encode(text="what?" if asked else None, audio_tokens=slots, task=task)
        words = f"it is {pair.row}" if asked else caption(pair.row)
        assert document.prompt == prompts.encode(text=words, audio_tokens=0)
        assert document.mel is None
        assert query.mel is not None and query.mel.shape == (1 + query.n_samples // 160, 64)
        assert slots == n_audio_tokens(query.n_samples, prompts.config.subsample_factor) > 0


def test_keys_tell_equal_contents_by_sound_clip_and_text(batches, tmp_path):
    (tmp_path / "copy.wav").write_bytes((tmp_path / "0.wav").read_bytes())
    rows = [
        ManifestRow("0.wav", "One thing."),
        ManifestRow("copy.wav", "another"),
        ManifestRow("1.wav", "one  THING"),
        ManifestRow("0.wav", "a third", start_seconds=0.1),
        ManifestRow("0.wav", question="what?", answer="that"),
        ManifestRow("0.wav", question="who?", answer="nobody"),
    ]
    source = batches(rows, size=6)
    keys = {name: column.tolist() for name, column in source.load(np.arange(6), step=0).keys.items()}
    groups = {name: [column.index(value) for value in column] for name, column in keys.items()}
    assert groups["query"] == [0, 0, 2, 3, 4, 5]  # the same samples and the same question
    assert groups["document"] == [0, 1, 0, 3, 4, 5]  # the same words
    assert groups["clip"] == [0, 1, 2, 3, 4, 5]
    # A clip that is cut at random is another sound each time, and still itself.
    toy.write_wav(tmp_path / "long.wav", toy.noise(1, 3.0))
    source = batches([ManifestRow("long.wav", "noise")] * 2, size=2)
    batch = source.load(np.array([0, 1]), step=0)
    assert batch.keys["query"][0] != batch.keys["query"][1] and batch.keys["clip"][0] == batch.keys["clip"][1]
    assert [item.n_samples for item in batch.sides["queries"]] == [16_000, 16_000]
    again = source.load(np.array([0, 1]), step=0)
    assert content(again) == content(batch) != content(source.load(np.array([0, 1]), step=1))


def test_a_clip_that_cannot_be_read_any_more_is_replaced_aloud(batches, tmp_path):
    source = batches(size=12)
    whole = source[0]
    gone = source.plan.pairs[int(source.plan.batch(0)[5])].row
    (tmp_path / f"{gone}.wav").write_bytes(b"no sound")
    batch = source[0]
    assert len(batch.sides["queries"]) == len(batch.sides["documents"]) == 12
    assert batch.warnings and all(f"{gone}.wav" in warning for warning in batch.warnings)
    hit = [i for i, number in enumerate(source.plan.batch(0)) if source.plan.pairs[int(number)].row == gone]
    before, after = content(whole)[0], content(batch)[0]
    for slot in range(12):
        assert (before["queries"][slot] == after["queries"][slot]) == (slot not in hit)
    assert content(source[0]) == content(batch)  # the substitute is as fixed as everything else
    for file in tmp_path.glob("*.wav"):
        file.unlink()
    with pytest.raises(AudioSearchError, match=r"20 clips in a row could not be read, the last: .*is the disk there\?"):
        source[0]


def test_batches_made_ahead_are_those_made_in_place(batches):
    source = batches(size=6)
    expected = [content(source[step]) for step in range(2, 6)]
    for workers in (0, 2):
        found = list(ahead(source, 2, 6, workers))
        assert [step for step, _ in found] == [2, 3, 4, 5]
        assert [content(batch) for _, batch in found] == expected
    assert list(ahead(source, 4, 4, 0)) == []


@pytest.mark.parametrize("size", [None, 5, 1])
def test_micro_batches_cover_every_item_once(batches, prompts, size):
    from audiosearch.trainer.batch import micro_batches

    batch = batches(size=10)[0]
    made = micro_batches(batch, size, prompts.pad_id, shared_prefix=True)
    kinds = Counter(
        (side, item.prompt.ids[: item.prompt.prefix_length], item.mel is None)
        for side, items in batch.sides.items()
        for item in items
    )
    assert len(made) == sum(-(-count // (size or count)) for count in kinds.values())  # no part mixes two kinds
    for side in ("queries", "documents"):
        rows = [row for part in made if part.side == side for row in part.rows.tolist()]
        assert sorted(rows) == list(range(10))
        for part in made:
            if part.side == side:
                ids = [batch.sides[side][row].prompt.ids for row in part.rows.tolist()]
                start = () if part.prefix is None else tuple(part.prefix.tolist())
                for row, (whole, length) in enumerate(zip(ids, part.inputs.lengths.tolist(), strict=True)):
                    assert start + tuple(part.inputs.ids[row, :length].tolist()) == whole
                    assert set(part.inputs.ids[row, length:].tolist()) <= {prompts.pad_id}


def test_however_a_batch_is_split_the_embeddings_are_the_same(batches, tiny_checkpoint):
    import torch

    from audiosearch.model.weights import load
    from audiosearch.trainer.batch import micro_batches

    model, prompts = load(tiny_checkpoint)
    batch = batches(size=10)[0]

    def embed(size, shared_prefix):
        out = {side: torch.zeros(10, 24) for side in batch.sides}
        for part in micro_batches(batch, size, prompts.pad_id, shared_prefix=shared_prefix):
            prefix = None if part.prefix is None else model.decoder.prefix(part.prefix)
            out[part.side][part.rows] = model(part.inputs, prefix)
        return torch.cat([out["queries"], out["documents"]])

    with torch.no_grad():
        alone = embed(1, False)
        for size, shared_prefix in ((1, True), (4, True), (4, False), (None, True), (None, False)):
            assert (embed(size, shared_prefix) - alone).abs().max() < 1e-5
    assert (alone.norm(dim=1) - 1).abs().max() < 1e-5
