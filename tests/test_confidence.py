"""What scores are worth: on libraries of random vectors, where it is known what is there and what is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import store_helpers

from audiosearch.index_cache import open_index
from audiosearch.indexes.base import nothing
from audiosearch.query import confidence
from audiosearch.query.confidence import AUDIO_QUERY, JOINT_QUERY, TEXT_QUERY, Background, build, fit_null, load
from audiosearch.store.records import CommitBatch
from audiosearch.store.store import Store

DIM = 32
ABSENT = Path(__file__).resolve().parent.parent / "benchmarks" / "absent.json"


def unit(seed: int, n: int, dim: int = DIM) -> np.ndarray:
    return store_helpers.unit(seed, n, dim)


def near(vectors: np.ndarray, cosine: float, seed: int = 9) -> np.ndarray:
    """A vector at that cosine from each of `vectors`."""
    aside = unit(seed, len(vectors), vectors.shape[1])
    aside -= np.sum(aside * vectors, axis=1, keepdims=True) * vectors
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    return (cosine * vectors + np.sqrt(1 - cosine**2) * aside).astype(np.float32)


class Vectors:
    """A library of vectors, searched exactly; its ids are 1 and on, of the recordings given."""

    def __init__(self, vectors: np.ndarray, recordings: np.ndarray | None = None) -> None:
        self.vectors = vectors
        self.recordings = np.arange(len(vectors)) if recordings is None else recordings

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        found, ids = nothing(queries, k)
        scores = queries @ self.vectors.T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        found[:, : order.shape[1]], ids[:, : order.shape[1]] = np.take_along_axis(scores, order, axis=1), order + 1
        return found, ids

    def recordings_of(self, ids: np.ndarray) -> np.ndarray:
        return (
            np.where(ids > 0, self.recordings[np.maximum(ids, 1) - 1], -1) if len(self.vectors) else -np.ones_like(ids)
        )

    def background(self, texts: np.ndarray, **options: object) -> Background:
        few = confidence.spread(len(self.vectors), confidence.SOUNDS)
        return build(
            "space-one",
            len(self.vectors),
            self.vectors,
            self.vectors[few],
            self.recordings[few],
            embed_text=lambda lines: texts,
            search=self.search,
            recordings_of=self.recordings_of,
            **options,  # type: ignore[arg-type]
        )


@pytest.fixture(scope="module")
def library() -> Vectors:
    return Vectors(unit(1, 1_000))


@pytest.fixture(scope="module")
def background(library: Vectors) -> Background:
    return library.background(unit(2, 300))


def rates(
    background: Background, library: Vectors, queries: np.ndarray, kind: confidence.Kind = TEXT_QUERY
) -> np.ndarray:
    """The false-alarm rate of each query's best hit."""
    tops = library.search(queries, 1)[0][:, 0]
    return np.array(
        [background.judge(query, [top], kind).false_alarm_rate[0] for query, top in zip(queries, tops, strict=True)]
    )


# -- what the numbers mean -----------------------------------------------------------------------------------------


def test_a_false_alarm_rate_is_how_often_queries_for_nothing_score_as_high(library: Vectors, background: Background):
    found = rates(background, library, unit(3, 2_000))
    for said in (0.5, 0.2, 0.1):
        assert abs((found <= said).mean() - said) < 0.06
    assert (found <= 0.01).mean() < 0.03
    assert (found <= 0.0001).mean() < 0.002


def test_what_is_there_is_found_with_confidence(library: Vectors, background: Background):
    found = rates(background, library, near(library.vectors[:200], 0.95))
    assert (found < 0.001).all()
    judged = background.judge(library.vectors[0], [1.0, 0.1])
    assert judged.confidence[0] == 1 - judged.false_alarm_rate[0] > 0.99
    assert judged.percentile[0] == 100.0
    assert judged.percentile[1] == 0.0
    assert judged.false_alarm_rate[1] > 0.99


def test_rates_fall_strictly_with_the_score_and_stay_within_bounds(background: Background):
    scores = np.linspace(-1, 1, 401)
    judged = background.judge(unit(4, 1)[0], list(scores))
    found = judged.false_alarm_rate
    assert ((found > 0) & (found <= 1)).all()
    assert (np.diff(found) <= 0).all()
    inside = scores > np.quantile(background.nulls[TEXT_QUERY].tops, 0.05) + 0.05
    assert (np.diff(found[inside]) < 0).all()
    assert ((judged.percentile >= 0) & (judged.percentile <= 100)).all()
    assert (np.diff(judged.percentile) >= 0).all()


def test_impostors_that_find_what_they_ask_for_do_not_count(library: Vectors):
    texts = unit(2, 300)
    texts[:40] = near(library.vectors[100:140], 0.9)
    background = library.background(texts)
    assert len(background.nulls[TEXT_QUERY].tops) <= 262
    assert (rates(background, library, near(library.vectors[200:300], 0.95)) < 0.01).all()


def test_queries_that_are_near_to_everything_are_not_believed_more():
    """Sounds share a direction that some texts have much of: their scores are higher, whatever they say."""
    common = unit(5, 1, 64)[0]
    sounds = near(np.repeat(common[None], 800, axis=0), 0.5, 6)

    def texts(n: int, seed: int) -> np.ndarray:
        rows = unit(seed, n, 64)
        rows += np.linspace(0, 0.8, n)[:, None] * common
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    library = Vectors(sounds)
    background = library.background(texts(300, 7))
    assert background.nulls[TEXT_QUERY].slope > 0.4
    asked = texts(400, 8)
    found, tops = rates(background, library, asked), library.search(asked, 1)[0][:, 0]
    assert tops[300:].mean() > np.quantile(tops[:100], 0.9)  # the score alone believes them
    assert abs(np.median(found[300:]) - np.median(found[:100])) < 0.25


def test_a_spread_of_nothing_has_no_slope():
    assert fit_null(np.array([0.1, 0.2, 0.3]), np.zeros(3, np.float32)).slope == 0.0


# -- kinds ---------------------------------------------------------------------------------------------------------


def test_a_sound_is_no_impostor_in_its_own_recording():
    centres = unit(10, 150)
    library = Vectors(np.concatenate([near(centres, 0.97, seed) for seed in (11, 12, 13)]), np.tile(np.arange(150), 3))
    background = library.background(unit(2, 300))
    assert background.nulls[AUDIO_QUERY].tops.max() < 0.85
    again = near(centres[:50], 0.97, 14)
    assert (rates(background, library, again, AUDIO_QUERY) < 0.01).all()


def test_a_sum_is_compared_with_sums(library: Vectors, background: Background):
    kind = ((1.0, "text"), (0.5, "text"), (-1.0, "text"))
    known = background.knowing(kind, library.search, library.recordings_of)
    assert known.knowing(kind, library.search, library.recordings_of) is known
    assert kind not in background.nulls
    asked = unit(20, 1_000) + 0.5 * unit(21, 1_000) - unit(22, 1_000)
    asked = (asked / np.linalg.norm(asked, axis=1, keepdims=True)).astype(np.float32)
    assert 0.04 < (rates(known, library, asked, kind) <= 0.1).mean() < 0.16
    with pytest.raises(KeyError):
        background.judge(unit(1, 1)[0], [0.5], kind)


def test_sums_with_sounds_leave_the_sounds_recordings_out(library: Vectors, background: Background):
    queries, own = background.impostors(((1.0, "text"), (0.5, "audio"), (-1.0, "text")))
    assert np.allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)
    assert own.shape == (len(queries), 3)
    assert (own[:, [0, 2]] == -1).all()
    assert (own[:, 1] >= 0).all()
    joint = [background.knowing(JOINT_QUERY, library.search, library.recordings_of) for _ in range(2)]
    assert (joint[0].nulls[JOINT_QUERY].tops == joint[1].nulls[JOINT_QUERY].tops).all()
    assert list(joint[0].nulls) == [TEXT_QUERY, AUDIO_QUERY, JOINT_QUERY]


def test_the_best_other_recording_is_granted_to_be_of_the_kind():
    """Three of each kind, several chunks a recording: what counts is the best beyond own and best other recording."""
    vectors = np.array([[1, 0, 0], [0.99, 0.1411, 0], [0.98, 0, 0.199], [0.9, 0.4359, 0], [0.6, 0.8, 0]], np.float32)
    library = Vectors(vectors, np.array([0, 1, 1, 2, 3]))
    found = confidence.best_of_others(vectors[:1], np.array([[0]]), library.search, library.recordings_of)
    assert found == pytest.approx([0.9])
    two = Vectors(vectors[:3], np.array([0, 1, 1]))
    alone = confidence.best_of_others(vectors[:1], np.array([[0]]), two.search, two.recordings_of)
    assert alone == pytest.approx([0.99])
    one = Vectors(vectors[:3], np.array([0, 0, 0]))
    assert confidence.best_of_others(vectors[:1], np.array([[0]]), one.search, one.recordings_of) == [-np.inf]
    long = Vectors(np.repeat(vectors[1:2], 40, axis=0), np.ones(40, np.int64))
    bound = confidence.best_of_others(vectors[:1], np.array([[0]]), long.search, long.recordings_of)
    assert bound == pytest.approx([0.99])


def test_candidates_under_an_instruction_are_a_library_of_their_own(background: Background):
    rows = unit(30, 60)
    over = background.over(rows)
    assert over.count == 60
    assert list(over.nulls) == [TEXT_QUERY]
    assert over.judge(rows[3], [1.0]).confidence[0] > 0.99
    absent = unit(31, 500)
    found = np.array([over.judge(query, [(rows @ query).max()]).false_alarm_rate[0] for query in absent])
    assert 0.05 < (found <= 0.1).mean() < 0.16


def test_a_library_without_sounds_believes_nothing():
    background = Vectors(np.empty((0, DIM), np.float32)).background(unit(2, 300))
    assert background.judge(unit(3, 1)[0], [0.9]).confidence[0] == 0.0


# -- the cache -----------------------------------------------------------------------------------------------------


def test_the_same_library_has_the_same_background(library: Vectors, background: Background):
    again = library.background(unit(2, 300))
    query, scores = unit(40, 1)[0], [0.2, 0.5, 0.8]
    for kind in (TEXT_QUERY, AUDIO_QUERY):
        assert (again.judge(query, scores, kind).confidence == background.judge(query, scores, kind).confidence).all()


def test_saved_and_loaded_it_judges_alike(tmp_path: Path, background: Background):
    assert load(tmp_path, "space-one") is None
    assert background.save(tmp_path / "indexes")
    found = load(tmp_path / "indexes", "space-one")
    assert found is not None
    query, scores = unit(40, 1)[0], [0.2, 0.5, 0.8]
    for kind in background.nulls:
        assert (found.judge(query, scores, kind).percentile == background.judge(query, scores, kind).percentile).all()
    assert [path.name for path in (tmp_path / "indexes").iterdir()] == [confidence.FILE]
    assert load(tmp_path / "indexes", "space-two") is None


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_damaged_file_is_as_none(tmp_path: Path, background: Background, keep: float):
    background.save(tmp_path)
    whole = (tmp_path / confidence.FILE).read_bytes()
    (tmp_path / confidence.FILE).write_bytes(whole[: int(keep * len(whole)) if keep < 1 else keep])
    assert load(tmp_path, "space-one") is None


def test_where_nothing_can_be_written_nothing_is(tmp_path: Path, background: Background):
    (tmp_path / "file").write_text("in the way")
    assert not background.save(tmp_path / "file")


def test_it_is_stale_when_the_library_has_doubled(background: Background):
    assert not background.is_stale(1_000)
    assert not background.is_stale(1_999)
    assert background.is_stale(2_000)
    assert background.is_stale(500)
    assert replace(background, bank="another").is_stale(1_000)


def test_of_a_store_it_is_built_once_and_the_model_called_once(tmp_path: Path):
    asked: list[int] = []

    def embed_text(lines: list[str]) -> np.ndarray:
        asked.append(len(lines))
        return unit(2, len(lines), store_helpers.DIM)

    folder = tmp_path / "background"
    with Store.create(tmp_path / "library") as store:
        space = store.add_space(store_helpers.spec())
        root = store.add_root("/data")

        def add(first: int, last: int) -> None:
            each = [
                store_helpers.whole(root, f"r{i}", list(unit(100 + i, 3, store_helpers.DIM)))
                for i in range(first, last)
            ]
            parts = ("recordings", "chunks", "finished", "files")
            batch = CommitBatch(**{part: [row for one in each for row in getattr(one, part)] for part in parts})
            store.commit(space.id, batch)

        add(0, 20)
        with store.snapshot():
            index = open_index(store, space)
            index.refresh()
            made = confidence.of_space(store, index, folder, embed_text, save=True)
            kept = confidence.of_space(store, index, folder, embed_text, save=True)
        assert made.count == kept.count == 60
        assert asked == [len(confidence.bank())]
        assert (made.sound_recordings > 0).all()
        assert len(set(made.sound_recordings.tolist())) == 20
        add(20, 60)
        with store.snapshot():
            index.refresh()
            grown = confidence.of_space(store, index, folder, embed_text, save=False)
            assert grown.count == 180
            assert load(folder, space.spec.fingerprint).count == 60  # type: ignore[union-attr]
            confidence.of_space(store, index, folder, embed_text, save=True)
        assert load(folder, space.spec.fingerprint).count == 180  # type: ignore[union-attr]
        assert asked == [len(confidence.bank())]


# -- the bank ------------------------------------------------------------------------------------------------------


def test_the_bank_is_apart_from_what_it_is_judged_by():
    texts = confidence.bank()
    assert 300 <= len(texts) == len(set(texts))
    assert not any(text.startswith("#") or text != text.strip() for text in texts)
    if not ABSENT.is_file():
        pytest.skip("no benchmarks beside the tests")
    small = {"a", "an", "and", "at", "for", "in", "into", "of", "on", "the", "to", "with", "being", "by", "up", "off"}
    judged = {
        word for query in json.loads(ABSENT.read_text(encoding="utf-8")) for word in query.lower().split()
    } - small
    assert [text for text in texts if judged & set(text.lower().split())] == []
