"""Learning from labels: the query where nothing contradicts it, better the more is said, never thrown off by little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from store_helpers import spec, unit, whole

from audiosearch.query import feedback
from audiosearch.query.feedback import adjusted
from audiosearch.store.store import Store

DIM = 48


def normed(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def world(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(query, rows of a library, which of them are it): the query points to the concept only roughly, and beside it
    there is another that sounds like it."""
    rng = np.random.default_rng(seed)
    shared, concept, lookalike, off = normed(rng.standard_normal((4, DIM)))
    base = 0.6 * shared
    it = base + concept + 0.12 * rng.standard_normal((40, DIM))
    like = base + 0.7 * concept + lookalike + 0.12 * rng.standard_normal((40, DIM))
    rest = base + 0.2 * rng.standard_normal((400, DIM))
    query = concept + 0.5 * lookalike + 0.6 * off
    return normed(query), normed(np.concatenate([it, like, rest])), np.arange(480) < 40


def average_precision(vector: np.ndarray, rows: np.ndarray, relevant: np.ndarray) -> float:
    found = relevant[np.argsort(-(rows @ vector), kind="stable")]
    return float((np.cumsum(found) / np.arange(1, len(found) + 1))[found].mean())


def judged(query: np.ndarray, rows: np.ndarray, relevant: np.ndarray, n: int) -> tuple[float, float]:
    """Average precision beyond the first `n` hits, before and after they were labelled."""
    shown = np.argsort(-(rows @ query), kind="stable")[:n]
    after = adjusted(query, rows[shown[relevant[shown]]], rows[shown[~relevant[shown]]], rows[::3])
    rest = np.setdiff1d(np.arange(len(rows)), shown)
    return tuple(average_precision(each, rows[rest], relevant[rest]) for each in (query, after))  # type: ignore[return-value]


def test_without_labels_it_is_the_query():
    query = unit(1, 1, DIM)[0]
    none = np.empty((0, DIM))
    for background in (None, unit(2, 50, DIM)):
        found = adjusted(3 * query, none, none, background)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, query, atol=1e-6)


def test_more_labels_more_precision():
    """Over forty made-up libraries, mean average precision of what was not labelled."""
    found = {n: np.array([judged(*world(seed), n) for seed in range(40)]) for n in (1, 3, 5, 10)}
    gains = {n: float((values[:, 1] - values[:, 0]).mean()) for n, values in found.items()}
    assert gains[1] > -0.005  # one label may help little, and must not hurt
    assert 0.01 < gains[3] < gains[5] < gains[10]
    assert (found[10][:, 1] > found[10][:, 0]).mean() > 0.9


def test_many_labels_make_a_probe():
    """Half of a library labelled: the other half is told apart, however badly was asked."""
    query, rows, relevant = world(7)
    even = np.arange(len(rows)) % 2 == 0
    after = adjusted(-query, rows[even & relevant], rows[even & ~relevant], rows)
    assert average_precision(-query, rows[~even], relevant[~even]) < 0.1
    assert average_precision(after, rows[~even], relevant[~even]) > 0.7


def test_it_moves_to_what_is_and_away_from_what_is_not():
    query, yes, no = unit(3, 3, DIM)
    background = unit(4, 200, DIM)
    none = np.empty((0, DIM))
    towards = adjusted(query, yes[None], none, background)
    away = adjusted(query, none, no[None], background)
    assert towards @ yes > query @ yes
    assert away @ no < query @ no
    for moved in (towards, away):
        assert np.linalg.norm(moved) == pytest.approx(1.0, abs=1e-6)
        assert moved @ query > 0.9  # one word moves it a little
    twice = adjusted(query, yes[None], no[None], background)
    assert twice @ yes - twice @ no > query @ yes - query @ no


def test_what_the_whole_library_shares_moves_nothing():
    """Rows of a library lie in a narrow cone; a label there says nothing about its axis."""
    shared = np.eye(DIM)[0]
    background = normed(10 * shared + unit(5, 300, DIM))
    query = normed(np.eye(DIM)[1] + np.eye(DIM)[2])
    yes = normed(10 * shared + np.eye(DIM)[1])
    found = adjusted(query, yes[None], np.empty((0, DIM)), background)
    assert abs(found @ shared) < 0.05
    assert found @ np.eye(DIM)[1] > query @ np.eye(DIM)[1]


def test_the_minimum_is_found():
    """Against plain gradient descent on the formula that the module gives, in w and b."""
    query, rows, relevant = world(11)
    yes, no, background = rows[relevant][:4], rows[~relevant][:5], rows[::4]
    centre = background.mean(axis=0)
    examples = normed(np.concatenate([yes, no, background]) - centre)
    signs = np.array([1.0] * 4 + [-1.0] * (5 + len(background)))
    weights = np.array([1.0] * 9 + [feedback.BACKGROUND_WEIGHT * 4 / len(background)] * len(background))
    anchor = float((examples[:9] @ query).mean())
    w, b = query.copy(), anchor
    for _ in range(8_000):
        wrong = 1 / (1 + np.exp(signs * feedback.SHARPNESS * (examples @ w - b)))
        slope = -weights * signs * wrong
        w -= 0.01 * (examples.T @ slope + feedback.PRIOR * (w - query))
        b -= 0.01 * (-slope.sum() + feedback.ANCHOR * (b - anchor))
    np.testing.assert_allclose(adjusted(query, yes, no, background), normed(w), atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_odd_labels_are_borne(scale: float):
    query = unit(6, 1, DIM)[0]
    background = unit(7, 100, DIM)
    same = np.repeat(query[None], 20, axis=0)
    for yes, no in [(same, same), (same, same[:0]), (same[:0], same), (-same, same), (same[:1], -same)]:
        for rows in (background, background[:1], background[:0], None):
            found = adjusted(scale * query, yes, no, rows)
            assert np.isfinite(found).all()
            assert np.linalg.norm(found) == pytest.approx(1.0, abs=1e-5)
            again = adjusted(query, yes, no, rows)
            np.testing.assert_allclose(found, again, atol=1e-5)  # the query's length says nothing


def test_of_very_many_the_newest_count(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(feedback, "MOST", 3)
    query, background = unit(8, 1, DIM)[0], unit(9, 60, DIM)
    yes, no = unit(10, 9, DIM), unit(11, 9, DIM)
    np.testing.assert_array_equal(adjusted(query, yes, no, background), adjusted(query, yes[-3:], no[-3:], background))


def test_a_sample_of_the_library(tmp_path: Path):
    """From all over a space, of those that can be found, the same each time."""
    with Store.create(tmp_path / "library") as store:
        space, other = store.add_space(spec()), store.add_space(spec("another", dim=8))
        root = store.add_root("/data")
        assert store.some_vectors(space.id, 5).shape == (0, 24)
        for number in range(20):
            store.commit(space.id, whole(root, f"r{number}", list(unit(number, 5))))
        store.commit(other.id, whole(root, "r0", list(unit(0, 5, 8))))
        first = store.some_vectors(space.id, 12)
        assert first.shape == (12, 24)
        np.testing.assert_array_equal(first, store.some_vectors(space.id, 12))
        all_rows = np.concatenate([unit(number, 5) for number in range(20)])
        places = np.argmax(first @ all_rows.T, axis=1)
        np.testing.assert_allclose(np.max(first @ all_rows.T, axis=1), 1, atol=1e-3)
        assert len(set(places)) == 12
        assert places[0] < 25
        assert places[-1] > 70
        assert store.some_vectors(other.id, 100).shape == (5, 8)
        store.remove_files(space.id, [(root, b"r0.wav")])
        assert store.some_vectors(other.id, 100).shape == (0, 8)
