"""Brute force over the same vectors judges the whole engine: terms, weights, exclusions and filters, the flat index."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import toy
from store_helpers import MEDIA, chunks, file_record, key, unit

from audiosearch import Library
from audiosearch.library import Models
from audiosearch.model.fingerprint import space_spec
from audiosearch.store.records import CommitBatch, FinishedRecording, RecordingInfo
from audiosearch.store.store import Store
from audiosearch.types import Field, Metadata

DIM, RECORDINGS, DEPTH = 32, 400, 50
CODECS = ("pcm_s16le", "flac", "mp3")
TAGS = ("rain", "wind", "birds")


class Named:
    """A model of texts alone: a text's vector is drawn by its letters."""

    dim = DIM
    sample_rate = toy.SAMPLE_RATE
    max_seconds = 30.0
    fingerprint = toy.MODEL_FINGERPRINT
    licence = "Apache-2.0"
    placement = "cpu"

    def embed_text(self, texts: Iterable[str], **_: object) -> np.ndarray:
        return np.concatenate([vector_of(text) for text in texts])


def vector_of(text: str) -> np.ndarray:
    return unit(int.from_bytes(key(text)[:4], "big"), 1, DIM)


@functools.cache
def facts(number: int) -> dict[str, Any]:
    """What is true of a recording."""
    draw = random.Random(number)
    count = draw.randint(1, 12)
    return {
        "codec": draw.choice(CODECS),
        "channels": draw.choice((1, 2)),
        "tag": draw.choice(TAGS),
        "seconds": 5.0 * count + 5.0,
        "vectors": unit(1000 + number, count, DIM),
        "path": f"folder{number % 7}/r{number}.wav",
    }


FILTERS = {
    "codec:flac": lambda f: f["codec"] == "flac",
    "-codec:flac channels:2": lambda f: f["codec"] != "flac" and f["channels"] == 2,
    "tag:rain, tag:birds": lambda f: f["tag"] in ("rain", "birds"),
    "duration:20-40s -tag:wind": lambda f: 20 <= f["seconds"] <= 40 and f["tag"] != "wind",
    "path:folder3": lambda f: f["path"].startswith("folder3/"),
    "path:folder3 tag:rain codec:mp3 channels:1": lambda f: (
        f["path"].startswith("folder3/") and (f["tag"], f["codec"], f["channels"]) == ("rain", "mp3", 1)
    ),
    "tag:snow": lambda f: False,
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    directory = tmp_path_factory.mktemp("judge") / "library"
    described = toy.description(dim=DIM)
    with Store.create(directory) as store:
        spec = space_spec(described, instruction=None, window_seconds=10.0, hop_seconds=5.0)
        space, root = store.add_space(spec), store.add_root("/sounds")
        for first in range(0, RECORDINGS, 50):
            batch = CommitBatch()
            for number in range(first, first + 50):
                one, name = facts(number), f"r{number}"
                media = MEDIA.__class__("", "wav", one["codec"], 48_000, one["channels"], one["seconds"])
                file = file_record(root, one["path"], name)
                described_as = Metadata(fields=(Field("keyword", one["tag"], "tag"),))
                batch = CommitBatch(
                    recordings=[*batch.recordings, RecordingInfo(key(name), media)],
                    chunks=[*batch.chunks, *chunks(name, list(one["vectors"]))],
                    finished=[*batch.finished, FinishedRecording(key(name), one["seconds"])],
                    files=[*batch.files, replace(file, metadata=described_as)],
                )
            store.commit(space.id, batch)
    models = Models(lambda name: toy.description(name, dim=DIM), lambda name, **_: Named())  # type: ignore[arg-type, return-value]
    with Library.open(directory, models=models) as opened:
        yield opened


def a_query(draw: random.Random) -> tuple[str, list[tuple[float, str]]]:
    """A query string and its terms as signed weights and words."""
    terms, parts = [], []
    for n in range(draw.randint(1, 4)):
        word, weight = f"sound {draw.randint(0, 99)}", draw.choice([1.0, 1.0, 0.5, 2.0])
        sign = -1 if n and draw.random() < 0.4 else 1
        parts.append(
            ("- " if sign < 0 else "+ " if n else "") + (f'{weight:g}*"{word}"' if weight != 1 else f'"{word}"')
        )
        terms.append((sign * weight, word))
    return " ".join(parts), terms


def scores_of(rows: np.ndarray, terms: list[tuple[float, str]], sample: np.ndarray) -> np.ndarray:
    """What a query's terms give rows [n, dim]; `sample` [s, dim] stands for the library."""
    wanted = sum(weight * vector_of(word)[0].astype(np.float64) for weight, word in terms if weight > 0)
    length = np.linalg.norm(wanted)
    wanted /= length
    leaving_out = [(-weight / length, vector_of(word)[0]) for weight, word in terms if weight < 0]
    if not leaving_out:
        return rows @ wanted
    middle, low = np.quantile(sample @ wanted, (0.5, 0.1587))
    evidence = -np.log(1 + np.exp(1.5 * (2 - (rows @ wanted - middle) / (middle - low)))) / 1.5
    for weight, term in leaving_out:
        its_middle, its_low = np.quantile(sample @ term, (0.5, 0.1587))
        heard = (rows @ term - its_middle) / (its_middle - its_low)
        scale = (its_middle - its_low) / (middle - low)
        evidence -= 5 * weight * scale * np.log(1 + np.exp(3 * (heard - 1.25))) / 3
    # The score of what is wanted that is the same evidence by itself.
    return middle + (middle - low) * (2 - np.log(np.exp(-1.5 * evidence) - 1) / 1.5)


def judged(terms: list[tuple[float, str]], condition: Any, sample: np.ndarray) -> list[tuple[float, str, float]]:
    """(score, path, start) of the best chunks, from the vectors as they are stored: in half precision, read back
    as unit rows."""
    rows = []
    for number in range(RECORDINGS):
        one = facts(number)
        if condition is None or condition(one):
            stored = one["vectors"].astype(np.float16).astype(np.float64)
            stored /= np.linalg.norm(stored, axis=1, keepdims=True)
            scores = scores_of(stored, terms, sample)
            rows += [(float(score), f"/sounds/{one['path']}", 5.0 * i) for i, score in enumerate(scores)]
    return sorted(rows, key=lambda row: -row[0])[:DEPTH]


def test_the_best_chunks_are_those_of_brute_force(library: Library):
    draw, leaving_out = random.Random(7), 0
    with Store.open(library.directory) as store:
        sample = store.some_vectors(store.spaces()[0].id, 1000).astype(np.float64)
    for number in range(200):
        text, terms = a_query(draw)
        leaving_out += any(weight < 0 for weight, _ in terms)
        name = draw.choice([None, *FILTERS])
        answer = library.query(text, filter=name, explain=True)
        assert answer.explanation is not None
        found = [(c.stored_score, c.path, c.start_seconds) for c in answer.explanation.candidates[:DEPTH]]
        expected = judged(terms, FILTERS[name] if name else None, sample)
        assert len(found) == len(expected), (number, text, name)
        for mine, theirs in zip(found, expected, strict=True):
            assert mine[0] == pytest.approx(theirs[0], abs=1e-6), (number, text, name)
        scores = [row[0] for row in expected]
        certain = [
            i for i in range(len(scores)) if all(abs(scores[i] - s) > 1e-6 for j, s in enumerate(scores) if j != i)
        ]
        assert all(found[i][1:] == expected[i][1:] for i in certain[:-1]), (number, text, name)
        if name == "tag:snow":
            assert answer.hits == () and "no sound in the library fits the filter" in answer.notes[0]
    assert leaving_out > 50
