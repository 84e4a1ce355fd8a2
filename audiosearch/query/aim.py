"""What a query's scores are: nearness to what is asked for, worth less where something left out is heard too.

    "rain" + 2*ref.wav - "music"      wanted    E(rain) + 2 E(ref), scaled to length 1
                                      unwanted  E(music)

With nothing left out, a score is the inner product with `wanted`. Subtracting what is left out as well would reward a
sound for being unlike it beyond not having it, and a strong enough wanted sound would outweigh it. So both become
evidence that levels off. For inner products z with each term, in deviations above their median over the library, and
weights w:

    - soft(SURE_WANTED - z, SHARP_WANTED) - STRENGTH * sum of w soft(z - SURE_UNWANTED, SHARP_UNWANTED),
    soft(x, s) = log(1 + exp(s x)) / s

Each is the logarithm of a logistic probability, that the wanted is there and that the unwanted is not. The deviation is
that of the lower half, which has neither, however small the library. The outcome is told as the score of `wanted` that
would be worth as much if nothing were left out. The constants were chosen on mixtures of `train` clips
(`benchmarks/exclusion.py --tune`), and the strength raised from 4 for those of `valid` (docs/log.md, 2026-11-24).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from audiosearch.errors import UsageError
from audiosearch.types import Vectors

SAMPLE = 1_000  # vectors of the library that stand for it
SURE_WANTED, SURE_UNWANTED = 2.0, 1.25  # deviations at which something is as likely there as not
SHARP_WANTED, SHARP_UNWANTED = 1.5, 3.0  # how fast it becomes sure around there
STRENGTH = 5.0  # of a weight of 1
_LOWER = 0.1587  # of a normal distribution lies further below the median than its standard deviation
_LEAST_DEVIATION = 1e-3
_CANCELLED = 1e-3  # a sum of unit vectors this short points nowhere in particular

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Aim:
    """A unit vector `wanted` [dim], unit rows `unwanted` [m, dim] and their `weights` [m].

    `levels` are median and deviation over the library of the inner products with each of them [2, 1 + m], `wanted`
    first. Without them, what is left out is subtracted.
    """

    wanted: NDArray[np.float32]
    unwanted: Vectors
    weights: _Floats
    levels: _Floats | None = None

    @classmethod
    def of(cls, rows: Vectors, weights: _Floats) -> Aim:
        """At unit rows [n, dim] with weights [n], negative ones for what is left out.

        Raises UsageError if they cancel each other out.
        """
        plus = weights > 0
        if np.count_nonzero(plus) == 1:
            (row,), length = rows[plus], float(weights[plus][0])
        else:
            total = weights[plus] @ rows[plus].astype(np.float64)
            length = float(np.linalg.norm(total))
            if length < _CANCELLED * weights[plus].sum():
                raise UsageError("the terms of the query cancel each other out: nothing is left to search for")
            row = (total / length).astype(np.float32)
        aim = cls(row, rows[~plus], -weights[~plus] / length)
        _ = aim.vector  # of "rain" - "rain" there is none
        return aim

    @property
    def leaves_out(self) -> bool:
        """Whether there is anything unwanted."""
        return len(self.unwanted) > 0

    @property
    def vector(self) -> NDArray[np.float32]:
        """A unit vector [dim] for where no library stands behind the scores: the wanted less the unwanted.

        Raises UsageError if nothing is left.
        """
        if not self.leaves_out:
            return self.wanted
        total = self.wanted - self.weights @ self.unwanted.astype(np.float64)
        length = float(np.linalg.norm(total))
        if length < _CANCELLED * (1.0 + self.weights.sum()):
            raise UsageError("the terms of the query cancel each other out: nothing is left to search for")
        return (total / length).astype(np.float32)

    def among(self, sample: Vectors) -> Aim:
        """The same, with the levels that a `sample` [n, dim] of the library has."""
        if not self.leaves_out or not len(sample):
            return self
        scores = np.stack([_products(sample, term) for term in (self.wanted, *self.unwanted)])
        middle, low = np.quantile(scores, (0.5, _LOWER), axis=1)
        return replace(self, levels=np.stack([middle, np.maximum(middle - low, _LEAST_DEVIATION)]))

    def scores(self, rows: Vectors) -> NDArray[np.float32]:
        """The score [n] of each of unit rows [n, dim], whatever others are with it."""
        if not self.leaves_out or self.levels is None:
            return _products(rows, self.vector).astype(np.float32)
        (middle, *middles), (deviation, *deviations) = self.levels
        worth = -_softplus(SURE_WANTED - (_products(rows, self.wanted) - middle) / deviation, SHARP_WANTED)
        for term, weight, its_middle, its_deviation in zip(
            self.unwanted, self.weights, middles, deviations, strict=True
        ):
            heard = (_products(rows, term) - its_middle) / its_deviation
            worth -= STRENGTH * weight * (its_deviation / deviation) * _softplus(heard - SURE_UNWANTED, SHARP_UNWANTED)
        return (middle + deviation * (SURE_WANTED - _inverse_softplus(-worth, SHARP_WANTED))).astype(np.float32)


def _products(rows: Vectors, vector: NDArray[np.float32]) -> _Floats:
    """Inner products [n], each independent of the others, as in `indexes.base.rescore`."""
    return np.sum(rows.astype(np.float64) * vector.astype(np.float64), axis=1)


def _softplus(x: _Floats, sharpness: float) -> _Floats:
    return np.logaddexp(0.0, sharpness * x) / sharpness


def _inverse_softplus(y: _Floats, sharpness: float) -> _Floats:
    scaled = sharpness * np.maximum(y, 1e-12)
    return (scaled + np.log(-np.expm1(-scaled))) / sharpness
