"""Retrieval metrics against values worked out by hand, and against a plain loop on random tables."""

import numpy as np
import pytest

from audiosearch import metrics

# Ranked by hand: query 0 -> items 2, 0, 3, 1 (relevant: 0 and 1); query 1 -> items 3, 2, 1, 0 (relevant: 3).
SCORES = [[0.5, 0.1, 0.9, 0.2], [0.1, 0.2, 0.3, 0.4]]
RELEVANT = [[True, True, False, False], [False, False, False, True]]


def test_order():
    ranked = metrics.ranked_relevance(SCORES, RELEVANT)
    assert ranked.tolist() == [[False, True, False, True], [True, False, False, False]]


def test_by_hand():
    ranked = metrics.ranked_relevance(SCORES, RELEVANT)
    assert metrics.precision_at(ranked, 1).tolist() == [0, 1]
    assert metrics.precision_at(ranked, 2).tolist() == [0.5, 0.5]
    assert metrics.precision_at(ranked, 8).tolist() == [2 / 8, 1 / 8]  # only four items: the other ranks are misses
    assert metrics.recall_at(ranked, 1).tolist() == [0, 1]
    assert metrics.recall_at(ranked, 2).tolist() == [0.5, 1]
    assert metrics.recall_at(ranked, 8).tolist() == [1, 1]
    assert metrics.average_precision(ranked).tolist() == [(1 / 2 + 2 / 4) / 2, 1]
    assert metrics.reciprocal_rank(ranked).tolist() == [1 / 2, 1]


def test_summary_is_the_mean_over_queries():
    found = metrics.retrieval(SCORES, RELEVANT)
    assert (found.queries, found.items) == (2, 4)
    assert found.precision_at_1 == 0.5
    assert found.precision_at_5 == pytest.approx((2 / 5 + 1 / 5) / 2)
    assert (found.recall_at_1, found.recall_at_5, found.recall_at_10) == (0.5, 1, 1)
    assert found.mean_average_precision == 0.75
    assert found.mean_reciprocal_rank == 0.75


def test_equal_scores_earn_nothing():
    """A collapsed model gives every item one score: the relevant one then ranks last."""
    ranked = metrics.ranked_relevance(np.zeros((1, 5)), [[True, False, False, False, False]])
    assert ranked.tolist() == [[False, False, False, False, True]]
    assert metrics.reciprocal_rank(ranked).tolist() == [0.2]


def test_missing_scores_rank_last():
    """An item without a vector has the score minus infinity."""
    ranked = metrics.ranked_relevance([[-np.inf, -1.0, 0.0]], [[True, False, True]])
    assert ranked.tolist() == [[True, False, True]]


def test_against_a_plain_loop():
    rng = np.random.default_rng(3)
    scores, relevant = rng.normal(size=(40, 30)), rng.random((40, 30)) < 0.2
    relevant[:, 7] = True
    ranked = metrics.ranked_relevance(scores, relevant)
    for row in range(40):
        order = sorted(range(30), key=lambda item: -scores[row, item])
        ranks = [rank for rank, item in enumerate(order, 1) if relevant[row, item]]
        precisions = [(n + 1) / rank for n, rank in enumerate(ranks)]
        assert metrics.average_precision(ranked)[row] == pytest.approx(sum(precisions) / len(precisions))
        assert metrics.reciprocal_rank(ranked)[row] == pytest.approx(1 / ranks[0])
        assert metrics.recall_at(ranked, 5)[row] == pytest.approx(sum(rank <= 5 for rank in ranks) / len(ranks))
        assert metrics.precision_at(ranked, 5)[row] == pytest.approx(sum(rank <= 5 for rank in ranks) / 5)


@pytest.mark.parametrize(
    ("scores", "relevant", "says"),
    [
        ([[1.0, np.nan]], [[True, False]], "query 0 is NaN"),
        ([[1.0, 2.0], [1.0, 2.0]], [[True, False], [False, False]], "query 1 has no relevant item"),
        ([[1.0, 2.0]], [[True, False, True]], "one shape"),
    ],
)
def test_what_has_no_metric_is_refused(scores: list[list[float]], relevant: list[list[bool]], says: str):
    with pytest.raises(ValueError, match=says):
        metrics.retrieval(scores, relevant)


def test_k_must_be_positive():
    ranked = metrics.ranked_relevance(SCORES, RELEVANT)
    with pytest.raises(ValueError, match="at least 1"):
        metrics.precision_at(ranked, 0)
    with pytest.raises(ValueError, match="at least 1"):
        metrics.recall_at(ranked, -1)
