"""Learning from labels: a query vector moved by what was said of a few hits. The model is not called.

    minimise over w, b    1/S sum_i c_i log(1 + exp(-y_i S (x_i . w - b))) + PRIOR/2 |w - q|^2 + ANCHOR/2 (b - b_0)^2

A logistic regression on stored vectors (a linear probe) whose prior is the query itself: without labels, or with labels
that the query has right already, it stays the query, and the more labels contradict it the more it moves. y is +1 for
what was said to be it and -1 for what was not. Beside what was said to be it, a sample of the library counts a little
as -1, for most of a library is not what is looked for; rows are taken from its mean, so that what all sounds of a
library share moves nothing. The threshold b begins amid the labels' own scores, b_0.

Of the weights only the direction is used, so scores stay inner products of unit vectors. w - q lies in the span of the
rows: Newton's method is on one number a row, whatever the dimension (kernel logistic regression).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHARPNESS = 10.0  # S: how fast being right ends to matter, in units of the inner product
PRIOR = 3.0
ANCHOR = 0.3
BACKGROUND_WEIGHT = 6.0  # of the whole sample, for each row that was said to be it
MOST = 128  # of each side; the newest count

_STEPS = 30
_HALVINGS = 20
_DONE = 1e-9

_Rows = NDArray[np.floating]


def adjusted(query: _Rows, yes: _Rows, no: _Rows, background: _Rows | None = None) -> NDArray[np.float32]:
    """The unit vector [dim] to search with instead of `query` [dim], given unit rows of what was said to be it, [n,
    dim], and not to be it, [m, dim], both oldest first; `background` [b, dim] are rows of the library as they come."""
    prior = np.asarray(query, np.float64)
    prior = prior / np.linalg.norm(prior)
    said = [np.asarray(rows, np.float64).reshape(-1, len(prior))[-MOST:] for rows in (yes, no)]
    rest = np.empty((0, len(prior))) if background is None else np.asarray(background, np.float64)
    if not len(said[0]) + len(said[1]):
        return prior.astype(np.float32)
    centre = rest.mean(axis=0) if len(rest) else np.zeros(len(prior))
    if not len(said[0]):
        rest = rest[:0]
    rows = np.concatenate([*said, rest]) - centre
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    signs = np.repeat([1.0, -1.0, -1.0], [len(said[0]), len(said[1]), len(rest)])
    share = BACKGROUND_WEIGHT * len(said[0]) / max(len(rest), 1)
    weights = np.repeat([1.0, 1.0, share], [len(said[0]), len(said[1]), len(rest)])
    anchor = float(np.sort(rows[: len(said[0]) + len(said[1])] @ prior).mean())
    moved = prior + rows.T @ _coefficients(rows @ rows.T, rows @ prior, signs, weights, anchor)
    length = float(np.linalg.norm(moved))
    return (moved / length if length > 1e-6 else prior).astype(np.float32)


def _coefficients(kernel: _Rows, scores: _Rows, signs: _Rows, weights: _Rows, anchor: float) -> NDArray[np.float64]:
    """Of w - q in the rows, [n]: `kernel` [n, n] are their inner products, `scores` [n] those with the query."""
    n = len(scores)
    unknown = np.append(np.zeros(n), anchor)

    def residual(unknown: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The gradient in each row's score and in b, 0 at the minimum; and the curvature in each row's score."""
        margin = np.clip(signs * SHARPNESS * (scores + kernel @ unknown[:n] - unknown[n]), -500, 500)
        wrong = 1.0 / (1.0 + np.exp(margin))
        slope = -weights * signs * wrong
        left = np.append(PRIOR * unknown[:n] + slope, ANCHOR * (unknown[n] - anchor) - slope.sum())
        return left, weights * SHARPNESS * wrong * (1.0 - wrong)

    left, curvature = residual(unknown)
    for _ in range(_STEPS):
        size = float(np.linalg.norm(left))
        if size < _DONE:
            break
        jacobian = np.empty((n + 1, n + 1))
        jacobian[:n, :n] = curvature[:, None] * kernel + PRIOR * np.eye(n)
        jacobian[:n, n] = -curvature
        jacobian[n, :n] = -curvature @ kernel
        jacobian[n, n] = curvature.sum() + ANCHOR
        step = np.linalg.solve(jacobian, left)
        for halving in range(_HALVINGS):
            tried = unknown - step * 0.5**halving
            found = residual(tried)
            if float(np.linalg.norm(found[0])) < size:
                break
        unknown, (left, curvature) = tried, found
    return unknown[:n]
