"""What a query's scores are where something is left out."""

from __future__ import annotations

import numpy as np
import pytest
from store_helpers import unit

from audiosearch.errors import UsageError
from audiosearch.query.aim import Aim

DIM = 16
WANTED, UNWANTED = np.eye(DIM, dtype=np.float32)[:2]
LIBRARY = unit(5, 500, DIM)
AIM = Aim.of(np.stack([WANTED, UNWANTED]), np.array([1.0, -1.0])).among(LIBRARY)


def row(wanted: float, unwanted: float) -> np.ndarray:
    """A unit row with these inner products."""
    rest = np.sqrt(1 - wanted**2 - unwanted**2)
    return np.array([wanted, unwanted, rest, *[0.0] * (DIM - 3)], np.float32)[None]


def test_with_nothing_left_out_scores_are_inner_products():
    rows = unit(1, 3, DIM)
    aim = Aim.of(rows[:2], np.array([1.0, 2.0])).among(LIBRARY)
    total = rows[0] + 2 * rows[1]
    assert not aim.leaves_out
    np.testing.assert_allclose(aim.scores(LIBRARY), LIBRARY @ (total / np.linalg.norm(total)), atol=1e-6)
    np.testing.assert_array_equal(aim.vector, aim.wanted)
    one = Aim.of(rows[:1], np.array([0.5]))
    np.testing.assert_array_equal(one.wanted, rows[0])


def test_what_has_the_wanted_alone_is_above_what_has_both_and_what_has_neither():
    alone, both, neither = (float(AIM.scores(row(*each))[0]) for each in ((0.6, 0.1), (0.9, 0.4), (0.3, -0.6)))
    assert alone > both and alone > neither
    subtracted = [float((row(*each) @ (WANTED - UNWANTED))[0]) for each in ((0.6, 0.1), (0.9, 0.4), (0.3, -0.6))]
    assert np.argmax(subtracted) == 2  # why it is not done by subtraction


def test_scores_stay_on_the_scale_of_what_is_wanted():
    plain = LIBRARY @ WANTED
    scores = AIM.scores(LIBRARY)
    assert np.all(scores < plain) and np.all(np.isfinite(scores))
    # Of what is as unlike the unwanted as can be next to nothing is taken, however good it is.
    far = float(AIM.scores(row(0.3, -0.9))[0])
    assert far == pytest.approx(0.3, abs=0.01)
    for axis in (0, 1):
        values = [row(*(np.roll((x, 0.2), axis))) for x in np.linspace(-0.9, 0.9, 50)]
        changes = np.diff([float(AIM.scores(each)[0]) for each in values])
        assert np.all(changes > 0) if axis == 0 else np.all(changes < 0)


def test_weights_are_relative_and_count():
    rows = np.stack([WANTED, UNWANTED])
    twice = Aim.of(rows, np.array([2.0, -2.0])).among(LIBRARY)
    np.testing.assert_allclose(twice.scores(LIBRARY), AIM.scores(LIBRARY), atol=1e-6)
    more = Aim.of(rows, np.array([1.0, -2.0])).among(LIBRARY)
    assert np.all(more.scores(LIBRARY) < AIM.scores(LIBRARY))


def test_a_score_does_not_depend_on_what_is_scored_with_it():
    alone = np.concatenate([AIM.scores(LIBRARY[i : i + 1]) for i in range(50)])
    np.testing.assert_array_equal(alone, AIM.scores(LIBRARY)[:50])


def test_without_a_library_behind_it_what_is_left_out_is_subtracted():
    aim = Aim.of(np.stack([WANTED, UNWANTED]), np.array([1.0, -0.5]))
    expected = WANTED - 0.5 * UNWANTED
    np.testing.assert_allclose(aim.vector, expected / np.linalg.norm(expected), atol=1e-7)
    np.testing.assert_allclose(aim.scores(LIBRARY), LIBRARY @ aim.vector, atol=1e-6)
    np.testing.assert_array_equal(aim.among(LIBRARY[:0]).scores(LIBRARY), aim.scores(LIBRARY))


def test_a_library_of_one_sound_has_no_deviation():
    scores = Aim.of(np.stack([WANTED, UNWANTED]), np.array([1.0, -1.0])).among(LIBRARY[:1]).scores(LIBRARY)
    assert np.all(np.isfinite(scores))


def test_terms_that_cancel_out_are_refused():
    with pytest.raises(UsageError, match="cancel"):
        Aim.of(np.stack([WANTED, -WANTED]), np.array([1.0, 1.0]))
    with pytest.raises(UsageError, match="cancel"):
        Aim.of(np.stack([WANTED, WANTED]), np.array([1.0, -1.0]))
