"""The query engine over a catalogue held in memory: the rules for spaces, instructions, budgets and depth.

Brute force over the same vectors is the judge. Whole libraries are searched in test_library.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import toy

from audiosearch.errors import LibraryEmpty, MediaError, SpaceMismatch, UsageError
from audiosearch.model.fingerprint import space_spec
from audiosearch.query import candidates, engine
from audiosearch.query.moments import ScoredChunk
from audiosearch.query.rerank import rerank
from audiosearch.types import Marker, Metadata, ModelDescription, Samples, Space

WINDOW = {"window_seconds": 10.0, "hop_seconds": 5.0}


def a_space(id_: int, *, instruction: str | None = None, default: bool = False, **changes: object) -> Space:
    window = {key: changes.pop(key, value) for key, value in WINDOW.items()}
    return Space(id_, space_spec(toy.description(**changes), instruction=instruction, **window), default)


class Catalogue:
    """Store and index in one, over recordings of 10 s windows: {path: [sound of each window]}."""

    directory = "/library"

    def __init__(self, recordings: dict[str, list[Samples]], spaces: Sequence[Space]) -> None:
        self.recordings = recordings
        self._spaces = list(spaces)
        self.embedder = toy.HandEmbedder()
        self.reads: list[tuple[str, float]] = []
        self.searches: list[tuple[int, int]] = []  # (space, depth)
        self.rows = [(path, i) for path, sounds in recordings.items() for i in range(len(sounds))]

    def vectors(self, space: Space) -> np.ndarray:
        sounds = [self.recordings[path][i] for path, i in self.rows]
        if space.spec.is_aspect:
            return toy.HandEmbedder().embed_audio(sounds, instruction=space.spec.document_instruction, task="query")
        return toy.HandEmbedder().embed_audio(sounds)

    # What the engine asks of a store

    def spaces(self) -> list[Space]:
        return self._spaces

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        yield

    def status(self) -> Any:
        held = len(self.recordings)
        return SimpleNamespace(recordings=held, spaces=[SimpleNamespace(recordings=held) for _ in self._spaces])

    def metadata(self, places: Collection[tuple[str, str]]) -> dict[tuple[str, str], Metadata]:
        markers = (Marker(2.0, label="inside"), Marker(100.0, 101.0, "beyond"), Marker(0.0, 1e4, "all of it"))
        return {place: Metadata(recorded_at="2023-07-14", markers=markers) for place in places}

    def resolve(self, ids: Sequence[int]) -> list[Any]:
        paths = list(self.recordings)
        return [
            SimpleNamespace(
                vector_id=id_,
                recording_id=1 + paths.index(path),
                packet_hash=path.encode().ljust(16, b"."),
                start_seconds=5.0 * i,
                end_seconds=5.0 * i + 10.0,
                paths=(("/sounds", path),),
            )
            for id_, (path, i) in ((id_, self.rows[id_ - 1]) for id_ in ids)
        ]

    # What it asks of an index and of the rest

    def index(self, space: Space) -> Any:
        def search(queries: np.ndarray, k: int, allowed: Any = None) -> tuple[np.ndarray, np.ndarray]:
            assert allowed is None
            self.searches.append((space.id, k))
            scores = queries @ self.vectors(space).T
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            ids = np.full((len(queries), k), -1, np.int64)
            ids[:, : order.shape[1]] = order + 1
            found = np.full((len(queries), k), -np.inf, np.float32)
            found[:, : order.shape[1]] = np.take_along_axis(scores, order, axis=1)
            return found, ids

        return SimpleNamespace(refresh=lambda: None, search=search)

    def read_span(self, path: str, start: float, end: float | None, *, sample_rate: int = 16_000) -> Samples:
        assert sample_rate == toy.SAMPLE_RATE
        self.reads.append((path, start))
        name = Path(path).name
        if name not in self.recordings:
            raise MediaError(path, "vanished", "there is no such file")
        return self.recordings[name][round(start / 5)]

    def sources(self, **changes: Any) -> engine.Sources:
        def describe(name: str) -> ModelDescription:
            return toy.description(name)

        fields: dict[str, Any] = {
            "store": self,
            "index": self.index,
            "embedder": lambda space: self.embedder,
            "describe": describe,
            "read_span": self.read_span,
            "allowed": SimpleNamespace(state=lambda: None, named=lambda *_: []),
            "refer": None,
            "remember": lambda shown: None,
            "background": lambda *_: None,
            "model": None,
            "rerank": 50,
            "rerank_seconds": 30.0,
        }
        return engine.Sources(**{**fields, **changes})


def mixture(*frequencies: float) -> Samples:
    return sum((toy.tone(frequency, 1.0, level=0.2) for frequency in frequencies), np.zeros(16000, np.float32))


@pytest.fixture
def varied() -> dict[str, list[Samples]]:
    rng = np.random.default_rng(5)
    return {
        f"{name}.wav": [mixture(*rng.uniform(60, 7000, size=3)) for _ in range(rng.integers(1, 12))]
        for name in "abcdefghijkl"
    }


def ask(catalogue: Catalogue, *args: Any, sources: dict[str, Any] | None = None, **query: Any) -> Any:
    return engine.answer(engine.Query(*args, **query), catalogue.sources(**(sources or {})))


def test_scores_are_those_of_brute_force(varied):
    space = a_space(1, default=True)
    catalogue = Catalogue(varied, [space])
    for text in ("low hum", "whistle", "voice", "noise"):
        found = ask(catalogue, text, k=5)
        scores = catalogue.vectors(space) @ catalogue.embedder.embed_text([text])[0]
        assert found.hits[0].score == pytest.approx(scores.max(), abs=1e-6)
        path, i = catalogue.rows[int(scores.argmax())]
        assert found.hits[0].path == f"/sounds/{path}"
        assert found.hits[0].start_seconds <= 5 * i < found.hits[0].end_seconds
        assert [hit.score for hit in found.hits] == sorted((hit.score for hit in found.hits), reverse=True)
        assert (found.query, found.space, found.instruction_route) == (text, space.spec.fingerprint, None)


def test_k_distinct_hits_come_out_if_they_exist(monkeypatch):
    """Many windows of one recording score best: the others are found behind them."""
    monkeypatch.setattr(candidates, "DEPTH", 3)
    monkeypatch.setattr(engine, "DEPTH", 3)
    recordings = {"long.wav": [toy.tone(100, 1.0)] * 60}
    recordings |= {f"other{i}.wav": [mixture(100, 2000 + 300 * i)] for i in range(6)}
    catalogue = Catalogue(recordings, [a_space(1, default=True)])
    found = ask(catalogue, "hum", k=6, sources={"rerank": 3})
    assert len(found.hits) == 6
    assert found.hits[0].path == "/sounds/long.wav"
    assert (found.hits[0].start_seconds, found.hits[0].end_seconds) == (0, 305)
    assert len({hit.path for hit in found.hits}) == 6
    assert len({hit.id for hit in found.hits}) == 6
    everything = ask(catalogue, "hum", k=100)
    assert len(everything.hits) == 7  # and it ends where there is no more


def test_the_answer_does_not_depend_on_k(varied):
    catalogue = Catalogue(varied, [a_space(1, default=True)])
    ten, three = ask(catalogue, "voice", k=10).hits, ask(catalogue, "voice", k=3).hits
    assert ten[:3] == three


def test_an_example_sound_finds_itself_and_joint_input_is_one_vector(varied):
    catalogue = Catalogue(varied, [a_space(1, default=True)])
    found = ask(catalogue, audio="/elsewhere/c.wav", k=1)
    assert found.hits[0].path == "/sounds/c.wav"
    assert found.hits[0].score == pytest.approx(1.0, abs=1e-6)
    joint = ask(catalogue, "hiss", audio="/elsewhere/c.wav", k=3)
    vector = toy.HandEmbedder().embed_audio_text([(varied["c.wav"][0], "hiss")])[0]
    best = (catalogue.vectors(catalogue.spaces()[0]) @ vector).max()
    assert joint.hits[0].score == pytest.approx(best, abs=1e-6)
    assert joint.query == "hiss + /elsewhere/c.wav"


def test_a_hit_has_its_files_metadata_and_the_markers_within_its_span():
    catalogue = Catalogue({"short.wav": [mixture(100)], "other.wav": [mixture(3000)]}, [a_space(1, default=True)])
    found = ask(catalogue, "low hum", k=1)
    assert found.hits[0].metadata is not None
    assert found.hits[0].metadata.recorded_at == "2023-07-14"
    assert [each.label for each in found.hits[0].metadata.markers] == ["inside", "all of it"]


def test_an_example_longer_than_the_model_takes_is_cut_and_said_so():
    long = np.concatenate([toy.tone(100, 30.0), toy.tone(5000, 40.0)])
    reads: list[tuple[float, float | None]] = []

    def read_span(path: str, start: float, end: float | None, *, sample_rate: int) -> Samples:
        reads.append((start, end))
        return long[round(start * 16000) : None if end is None else round(end * 16000)]

    catalogue = Catalogue({"low.wav": [toy.tone(100, 1.0)], "high.wav": [toy.tone(5000, 1.0)]}, [a_space(1)])
    cut = ask(catalogue, audio="x.wav", k=1, sources={"read_span": read_span})
    assert cut.hits[0].path == "/sounds/low.wav"
    assert "first 30 s" in cut.notes[0]
    assert reads[0][1] <= 31  # not all of a ten-hour example
    span = ask(catalogue, audio="x.wav", start_seconds=31, end_seconds=60, k=1, sources={"read_span": read_span})
    assert span.hits[0].path == "/sounds/high.wav"
    assert span.notes == ()
    assert span.query == "x.wav@31-60"


# Instructions

# Two mixtures of low and high: without an instruction `low` and `high` prefer the one with more of it.
LAYERED = {
    "low and beep.wav": [toy.tone(100, 1.0) + 0.8 * toy.tone(1500, 1.0)],
    "low.wav": [toy.tone(100, 1.0) + 0.9 * toy.tone(6000, 1.0)],
    "beep.wav": [toy.tone(1500, 1.0) + 0.3 * toy.tone(6000, 1.0)],
}


def brute_force(catalogue: Catalogue, instruction: str, target: np.ndarray) -> list[tuple[str, float]]:
    sounds = [catalogue.recordings[path][i] for path, i in catalogue.rows]
    scores = toy.HandEmbedder().embed_audio(sounds, instruction=instruction, task="query") @ target
    return sorted(
        ((f"/sounds/{path}", s) for (path, _), s in zip(catalogue.rows, scores, strict=True)), key=lambda x: -x[1]
    )


@pytest.mark.parametrize("kind", ["text", "audio", "both"])
@pytest.mark.parametrize("aspect", [False, True])
def test_an_instruction_reaches_the_stored_side(kind: str, aspect: bool):
    instruction = "high whistle"
    default, other = a_space(1, default=True), a_space(2, instruction=instruction)
    catalogue = Catalogue(LAYERED, [default, other] if aspect else [default])
    hand, example = toy.HandEmbedder(), LAYERED["low.wav"][0]
    terms: dict[str, Any] = {
        "text": {"text": "beep"},
        "audio": {"audio": "low.wav"},
        "both": {"text": "beep", "audio": "low.wav"},
    }[kind]
    target = {
        "text": lambda: hand.embed_text(["beep"])[0],
        "audio": lambda: hand.embed_audio([example], instruction=instruction, task="query")[0],
        "both": lambda: hand.embed_audio_text([(example, "beep")], instruction=instruction)[0],
    }[kind]()
    found = ask(catalogue, instruction=instruction, **terms)
    expected = brute_force(catalogue, instruction, target)
    assert [hit.path for hit in found.hits] == [path for path, _ in expected]
    assert [hit.score for hit in found.hits] == pytest.approx([score for _, score in expected], abs=1e-6)
    if aspect:
        assert (found.instruction_route, found.reread, found.space) == ("aspect-space", 0, other.spec.fingerprint)
        assert catalogue.searches[0][0] == 2
    else:
        assert (found.instruction_route, found.reread, found.not_reread) == ("re-embedded", 3, 0)
    plain = [hit.score for hit in ask(catalogue, **terms).hits]
    assert plain != pytest.approx([hit.score for hit in found.hits], abs=1e-3), "the instruction changes the scores"


def test_what_is_offline_keeps_its_score_and_the_answer_says_so():
    catalogue = Catalogue(LAYERED, [a_space(1, default=True)])
    plain = {hit.path: hit.score for hit in ask(catalogue, "beep").hits}

    def offline(path: str, start: float, end: float | None, *, sample_rate: int) -> Samples:
        if path.endswith("/beep.wav"):
            raise MediaError(path, "vanished", "not mounted")
        return catalogue.read_span(path, start, end, sample_rate=sample_rate)

    found = ask(catalogue, "beep", instruction="low", sources={"read_span": offline})
    assert (found.reread, found.not_reread) == (2, 1)
    assert found.hits[-1].path == "/sounds/beep.wav", "judged before not judged"
    assert found.hits[-1].score == plain["/sounds/beep.wav"]
    assert "1 of 3 candidates" in found.notes[0]
    assert "1 could not be read" in found.notes[0]


def test_only_the_best_candidates_are_read_again(varied):
    catalogue = Catalogue(varied, [a_space(1, default=True)])
    found = ask(catalogue, "voice", instruction="low", k=2, sources={"rerank": 8})
    assert found.reread == len(catalogue.reads) == 8
    assert found.not_reread == 0
    none = ask(catalogue, "voice", instruction="low", k=2, sources={"rerank": 0})
    assert none.reread == 0
    assert none.not_reread > 0
    assert [hit.id for hit in none.hits] == [hit.id for hit in ask(catalogue, "voice", k=2).hits]


def test_weak_candidates_fill_the_answer_up_unjudged():
    recordings = {"long.wav": [toy.tone(100, 1.0)] * 30, "other.wav": [mixture(100, 3000)]}
    catalogue = Catalogue(recordings, [a_space(1, default=True)])
    found = ask(catalogue, "hum", instruction="low", k=2, sources={"rerank": 5})
    assert (found.reread, found.not_reread) == (5, 26)
    assert found.hits[0].path == "/sounds/long.wav"
    assert len(found.hits) == 2
    assert found.notes


def test_an_aspect_of_a_part_says_what_was_not_searched():
    catalogue = Catalogue(LAYERED, [a_space(1, default=True), a_space(2, instruction="low")])
    partial = SimpleNamespace(recordings=3, spaces=[SimpleNamespace(recordings=3), SimpleNamespace(recordings=1)])
    catalogue.status = lambda: partial  # type: ignore[method-assign]
    assert "2 of 3 recordings" in ask(catalogue, "beep", instruction="low").notes[0]


# Re-ranking and its budget


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def some_chunks(n: int) -> list[ScoredChunk]:
    return [ScoredChunk(i, i, b"h", 0.0, 10.0, 0.9 - i / 1000, (("/r", f"{i:03d}.wav"),)) for i in range(n)]


def rerank_at(seconds_each: float, budget: float, n: int = 64) -> Any:
    clock = Clock()
    sizes: list[int] = []

    def embed(sounds: list[Samples]) -> np.ndarray:
        sizes.append(len(sounds))
        clock.now += seconds_each * len(sounds)
        return np.array([[sound[0]] for sound in sounds])

    def read_span(path: str, start: float, end: float | None) -> Samples:
        return np.array(
            [int(Path(path).stem) / 100], np.float32
        )  # the last candidate is the best under the instruction

    done = rerank(
        some_chunks(n), np.ones(1, np.float32), embed, read_span, limit=50, budget_seconds=budget, clock=clock
    )
    return done, sizes, clock.now


def test_batches_grow_while_time_is_left():
    done, sizes, _ = rerank_at(0.001, 2.0)
    assert sizes == [2, 4, 8, 16, 20]
    assert (done.reread, done.left_out, done.unreadable) == (50, 14, 0)
    judged = [chunk.recording_id for chunk in done.chunks if chunk.judged]
    assert judged == list(range(49, -1, -1))
    assert [chunk.recording_id for chunk in done.chunks if not chunk.judged] == list(range(50, 64))


@pytest.mark.parametrize("seconds_each", [0.05, 0.2, 0.4, 0.9])
def test_the_budget_holds_once_the_speed_is_known(seconds_each: float):
    done, _, took = rerank_at(seconds_each, 2.0)
    assert took <= 2.0 + 1e-6
    assert done.reread == round(took / seconds_each)
    assert done.reread + done.left_out == 64
    assert done.reread >= 0.8 * 2.0 / seconds_each - 1, "nor is time left unused"


def test_a_slow_model_gets_one_batch_and_no_budget_gets_none():
    assert rerank_at(60.0, 2.0)[0].reread == 2
    assert rerank_at(0.001, 0.0)[0].reread == 0


def test_another_file_of_the_recording_serves_when_the_first_is_gone():
    chunk = ScoredChunk(1, 1, b"h", 0.0, 10.0, 0.5, (("/gone", "a.wav"), ("/there", "a.wav")))

    def read_span(path: str, start: float, end: float | None) -> Samples:
        if path.startswith("/gone"):
            raise UsageError("the recording is shorter now")
        return np.ones(1, np.float32)

    done = rerank(
        [chunk], np.ones(1, np.float32), lambda sounds: np.array([[0.7]]), read_span, limit=5, budget_seconds=1.0
    )
    assert (done.reread, done.unreadable) == (1, 0)
    assert done.chunks[0].score == pytest.approx(0.7)


# Which space


def test_which_space_is_searched():
    old = a_space(1, default=True, fingerprint="what it was before an upgrade")
    first, second = a_space(2), a_space(3, window_seconds=4.0)
    aspect = a_space(4, instruction="low")

    def chosen(spaces: list[Space], instruction: str | None = None, **sources: Any) -> int:
        parts = Catalogue(LAYERED, spaces).sources(**sources)
        return engine.choose_space(parts.store, parts.describe, parts.model, instruction).id

    assert chosen([first, a_space(3, default=True, window_seconds=4.0), aspect]) == 3
    assert chosen([first, aspect], "low") == 4
    assert chosen([first, aspect], "high") == 2
    assert chosen([aspect], "low") == 4
    assert chosen([old, first]) == 2, "ingested again after an upgrade"
    assert chosen([old, first, second]) == 3
    with pytest.raises(SpaceMismatch, match="changed since"):
        chosen([old])
    with pytest.raises(LibraryEmpty, match="only aspects"):
        chosen([aspect])
    with pytest.raises(LibraryEmpty, match="run `audiosearch ingest PATH`"):
        chosen([])
    elsewhere = {"describe": lambda name: toy.description(name, fingerprint="another"), "model": "another"}
    with pytest.raises(SpaceMismatch, match=r"nothing was ingested with the model another, only with hand"):
        chosen([first], **elsewhere)


def test_an_index_without_vectors():
    with pytest.raises(LibraryEmpty, match="nothing has been ingested yet"):
        ask(Catalogue({}, [a_space(1, default=True)]), "hum")
    assert ask(Catalogue({"silent.wav": []}, [a_space(1, default=True)]), "hum").hits == ()


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"text": " "},
        {"text": "", "audio": "a.wav"},
        {"text": "hum", "k": 0},
        {"text": "hum", "instruction": " "},
        {"text": "hum", "start_seconds": 1.0},
        {"audio": "a.wav", "start_seconds": 5.0, "end_seconds": 5.0},
        {"audio": "a.wav", "start_seconds": -1.0},
    ],
)
def test_a_query_that_cannot_be_meant(query: dict[str, Any]):
    with pytest.raises(UsageError):
        engine.Query(**query)
