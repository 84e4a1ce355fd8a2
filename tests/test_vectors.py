"""Shard files: what is appended is read, what is not committed is cut, what is no unit vector is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_helpers import unit

from audiosearch.errors import LibraryError
from audiosearch.store.vectors import Shards, crc32c, row_bytes, to_bytes


def test_rounding_keeps_the_direction():
    vectors = unit(1, 200, 512)
    stored = np.frombuffer(to_bytes(vectors), "<f2").reshape(200, 512)
    assert stored.nbytes == 200 * row_bytes(512)
    cosines = np.sum(stored.astype(np.float64) * vectors, 1) / np.linalg.norm(stored.astype(np.float64), axis=1)
    assert cosines.min() > 1 - 1e-6


@pytest.mark.parametrize("bad", [0.0, 1.02, 0.98, np.nan, np.inf])
def test_only_unit_rows_are_stored(bad: float):
    vectors = unit(1, 3)
    vectors[1] *= bad
    with pytest.raises(ValueError, match="vector 1 of 3"):
        to_bytes(vectors)


def test_crc32c_is_castagnoli():
    assert crc32c(b"123456789") == 0xE3069283  # the check value of its definition


@settings(max_examples=10, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6), seed=st.integers(0, 1000))
def test_appended_rows_are_read_in_any_order(tmp_path_factory: pytest.TempPathFactory, sizes: list[int], seed: int):
    shards = Shards(tmp_path_factory.mktemp("vectors") / "space", 8)
    vectors, at = unit(seed, sum(sizes), 8), 0
    where = []
    for number, size in enumerate(sizes):
        shard = 1 + number % 2  # two files, grown in turn
        first = sum(1 for each in where if each[0] == shard)
        shards.append(shard, first, to_bytes(vectors[at : at + size]))
        where += [(shard, first + i) for i in range(size)]
        at += size
        # Reading in between: a map that was made before the file grew must not be trusted for what came later.
        order = np.random.default_rng(seed + number).integers(0, len(where), 20)
        places = np.array(where)[order]
        np.testing.assert_allclose(shards.read(places[:, 0], places[:, 1]), vectors[order], atol=1e-3)


def test_rows_far_apart_twice_and_side_by_side(tmp_path: Path):
    shards, vectors = Shards(tmp_path / "space", 4_000), unit(1, 30, 4_000)  # 8 kB a row: some are read over a gap
    for shard in (1, 2, 3):
        shards.append(shard, 0, to_bytes(vectors[10 * shard - 10 : 10 * shard]))
    places = np.array([(3, 9), (1, 0), (1, 8), (1, 9), (2, 4), (1, 4), (2, 2), (1, 9), (2, 3), (1, 0), (3, 7), (1, 5)])
    wanted = vectors[10 * places[:, 0] - 10 + places[:, 1]]
    np.testing.assert_allclose(shards.read(places[:, 0], places[:, 1]), wanted, atol=1e-3)
    assert shards.read(np.empty(0, np.int64), np.empty(0, np.int64)).shape == (0, 4_000)


def test_cutting(tmp_path: Path):
    shards = Shards(tmp_path / "space", 8)
    for shard in (1, 2, 3):
        shards.append(shard, 0, to_bytes(unit(shard, 5, 8)))
    shards.cut({1: 5, 2: 3})
    assert [path.stat().st_size for path in sorted(shards.directory.iterdir())] == [80, 48]
    shards.append(2, 3, to_bytes(unit(9, 1, 8)))
    np.testing.assert_allclose(shards.read(np.array([2]), np.array([3])), unit(9, 1, 8), atol=1e-3)
    with pytest.raises(LibraryError, match=r"000001\.f16 has 80 of 96"):
        shards.cut({1: 6, 2: 4})
    with pytest.raises(LibraryError, match="committed bytes"):
        shards.append(1, 7, to_bytes(unit(9, 1, 8)))


def test_appending_over_what_a_crash_left(tmp_path: Path):
    shards = Shards(tmp_path / "space", 8)
    shards.append(1, 0, to_bytes(unit(1, 4, 8)))
    with shards.path(1).open("ab") as file:
        file.write(b"torn")
    shards.append(1, 4, to_bytes(unit(2, 2, 8)))
    np.testing.assert_allclose(shards.read(np.ones(2, np.int64), np.array([4, 5])), unit(2, 2, 8), atol=1e-3)
    assert shards.path(1).stat().st_size == 6 * row_bytes(8)
