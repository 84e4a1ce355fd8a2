"""The native embedder: rows in order, independent of their batch, the shared prefix equal to the plain path."""

import copy
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from toy import noise, tone

from audiosearch.embed import AudioTextEmbedder, load_embedder
from audiosearch.embed import alm2vec as module
from audiosearch.embed.alm2vec import Alm2VecEmbedder
from audiosearch.embed.batching import Placement
from audiosearch.errors import ModelError, UsageError
from audiosearch.model.assembly import ModelInputs
from audiosearch.model.fingerprint import describe_model
from audiosearch.model.weights import load

RATE = 16_000
LENGTHS = (0.05, 0.19, 0.2, 0.5, 0.99, 1.0, 2.37, 5.0, 9.99, 10.08, 10.1, 15.0, 20.161, 29.97, 30.0)  # seconds


@pytest.fixture(scope="module", params=["conv", "patch"])
def parts(request):
    """A seeded two-layer model and its prompt encoder."""
    directory = request.getfixturevalue("tiny_checkpoint" if request.param == "conv" else "tiny_patch_checkpoint")
    return load(directory)


@pytest.fixture
def make(parts):
    def build(**options) -> Alm2VecEmbedder:
        placement = Placement("cpu", "float32", "a test")
        return Alm2VecEmbedder(*parts, placement, name="tiny", fingerprint="f", licence="none", **options)

    return build


@pytest.fixture
def embedder(make):
    return make()


def clips(lengths=LENGTHS):
    return [
        noise(i, seconds, level=0.1 + 0.05 * i) + tone(200.0 * (i + 1), seconds) for i, seconds in enumerate(lengths)
    ]


def cosine(a, b):
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def test_is_an_embedder(embedder):
    assert isinstance(embedder, AudioTextEmbedder)
    assert (embedder.dim, embedder.sample_rate, embedder.max_seconds) == (24, RATE, 30.0)
    assert embedder.placement == "cpu, float32: a test"


def test_load_embedder_is_what_was_described(tiny_checkpoint):
    description = describe_model(str(tiny_checkpoint))
    embedder = load_embedder(str(tiny_checkpoint), device="cpu")
    for field in ("fingerprint", "dim", "sample_rate", "max_seconds", "licence", "name"):
        assert getattr(embedder, field) == getattr(description, field)
    assert embedder.placement == "cpu, float32: as asked"
    sound = tone(440.0, 1.0)
    half = load_embedder(str(tiny_checkpoint), device="cpu", dtype="bfloat16")
    assert half.placement == "cpu, bfloat16: as asked"
    assert 0.97 < cosine(half.embed_audio([sound])[0], embedder.embed_audio([sound])[0]) < 1 - 1e-9


def test_what_does_not_load_is_refused(tmp_path):
    with pytest.raises(ModelError):
        load_embedder(str(tmp_path))


def test_importing_the_package_imports_no_torch():
    code = "import sys, audiosearch.embed; sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


def test_every_length_in_one_call_equals_a_batch_of_one(make):
    sounds = clips()
    rows = make(token_budget=100_000).embed_audio(sounds)
    alone = np.concatenate([make().embed_audio([sound]) for sound in sounds])
    assert rows.shape == (len(sounds), 24) and rows.dtype == np.float32
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).max() < 1e-5
    assert cosine(rows, alone).min() >= 1 - 1e-5
    assert np.median(rows @ rows.T) < 0.98, "the clips are too alike for the comparison to show anything"


def test_rows_come_in_the_order_of_a_generator(make):
    sounds = clips((0.3, 2.0, 0.5, 1.5, 0.3, 3.0, 0.7))
    rows = make(token_budget=120).embed_audio(sound for sound in sounds)
    for row, sound in zip(rows, sounds, strict=True):
        assert cosine(row, make().embed_audio([sound])[0]) >= 1 - 1e-5


def test_text_audio_and_both(embedder):
    sound, text = clips((1.0,))[0], "a dog barks"
    audio = embedder.embed_audio([sound], task="query")
    words = embedder.embed_text([text, "rain", ""])
    joint = embedder.embed_audio_text([(sound, text), (sound, "rain")])
    assert words.shape == (3, 24) and joint.shape == (2, 24)
    assert max(cosine(audio[0], joint[0]), cosine(words[0], joint[0]), cosine(joint[0], joint[1])) < 1 - 1e-3
    # A question beside the sound is what an instruction is.
    assert cosine(joint[0], embedder.embed_audio([sound], instruction=text, task="document")[0]) >= 1 - 1e-5


def test_instruction_and_task_change_the_row(embedder):
    sound = clips((1.0,))
    document, query = embedder.embed_audio(sound), embedder.embed_audio(sound, task="query")
    steered = [embedder.embed_audio(sound, instruction=words) for words in ("the bird?", "the engine?")]
    rows = np.concatenate([document, query, *steered])
    assert (rows @ rows.T - 2 * np.eye(4)).max() < 1 - 1e-3
    texts = [embedder.embed_text(["rain"], instruction=words)[0] for words in (None, "the bird?")]
    assert cosine(*texts) < 1 - 1e-3


def test_the_shared_prefix_equals_the_plain_path_over_successive_batches(make):
    shared, plain = make(), make(shared_prefix=False)
    pairs = [(sound, f"question {i}?") for i, sound in enumerate(clips((0.5, 2.0, 1.0, 0.2, 4.0, 11.0, 0.7)))]
    cached = None
    for size in (3, 7, 2):
        got, expected = shared.embed_audio_text(pairs[:size]), plain.embed_audio_text(pairs[:size])
        assert cosine(got, expected).min() >= 1 - 1e-6
        assert np.abs(got - expected).max() <= 1e-5
        (prefix,) = shared._prefixes.values()
        assert cached is None or prefix is cached, "computed once, kept across batches"
        cached = prefix
        # What earlier batches appended to their copies is not in the next one's.
        assert {keys.shape for keys, _ in prefix.expanded(2)} == {(2, 2, prefix.length, 12)}
    assert not plain._prefixes


def test_a_single_item_uses_a_prefix_but_computes_none(embedder):
    embedder.embed_text(["rain"])
    assert not embedder._prefixes
    embedder.embed_text(["rain", "wind"])
    assert len(embedder._prefixes) == 1


def test_few_prefixes_are_kept(embedder):
    for i in range(module.CACHED_PREFIXES + 3):
        embedder.embed_text(["rain", "wind"], instruction=f"listen {i}")
    assert len(embedder._prefixes) == module.CACHED_PREFIXES


def test_no_items(embedder):
    for rows in (embedder.embed_audio([]), embedder.embed_text(iter(())), embedder.embed_audio_text([])):
        assert rows.shape == (0, 24) and rows.dtype == np.float32


def test_a_generator_is_read_in_bounded_windows(embedder, monkeypatch):
    monkeypatch.setattr(module, "WINDOW_ITEMS", 5)
    monkeypatch.setattr(module, "WINDOW_SECONDS", 4.0)
    made, most_waiting, done = 0, 0, 0

    def count(self, items, plain=Alm2VecEmbedder._begin_window):
        nonlocal done, most_waiting
        most_waiting = max(most_waiting, made - done)
        done += len(items)
        return plain(self, items)

    def stream():
        nonlocal made
        for seconds in [0.2] * 12 + [3.0] * 4:
            made += 1
            yield tone(440.0, seconds)

    monkeypatch.setattr(Alm2VecEmbedder, "_begin_window", count)
    assert len(embedder.embed_audio(stream())) == 16
    assert most_waiting == 5


def test_out_of_memory_halves_the_batch(make, monkeypatch):
    sounds = clips((0.3, 2.0, 0.5, 1.5, 0.3, 3.0, 0.7, 1.0))
    expected = make().embed_audio(sounds)
    embedder = make()
    sizes = []

    def run(self, items, prefix, plain=Alm2VecEmbedder._run):
        sizes.append(len(items))
        if len(items) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, items, prefix)

    monkeypatch.setattr(Alm2VecEmbedder, "_run", run)
    rows = embedder.embed_audio(sounds)
    assert cosine(rows, expected).min() >= 1 - 1e-5
    assert sizes[:3] == [8, 4, 2]
    assert embedder.budget.tokens < module.CPU_TOKENS


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (np.zeros((2, 16_000), np.float32), "mono"),
        (np.zeros(16_000, np.int16), "int16"),
        (np.zeros(0, np.float32), "mono"),
        (np.array([0.0, np.nan] * 4_000, np.float32), "finite"),
        (np.array([0.0, -np.inf] * 4_000, np.float32), "finite"),
    ],
    ids=["stereo", "integers", "empty", "nan", "infinite"],
)
def test_bad_input_is_named_by_its_index(embedder, bad, says):
    good = tone(440.0, 0.5)
    with pytest.raises(ValueError, match=rf"clip 2\b.*{says}"):
        embedder.embed_audio([good, good, bad, good])


def test_too_long_is_refused_not_cut(embedder):
    assert embedder.embed_audio([np.zeros(30 * RATE, np.float32)]).shape == (1, 24)
    with pytest.raises(UsageError, match="clip 0 is 30"):
        embedder.embed_audio([np.zeros(30 * RATE + 1, np.float32)])
    with pytest.raises(UsageError, match=r"item 1 has \d+ tokens"):
        embedder.embed_text(["rain", "rain " * 2_100])


def test_silence_and_other_float_widths(embedder):
    sound = tone(440.0, 1.0)
    frozen = sound.copy()
    frozen.setflags(write=False)
    rows = embedder.embed_audio([np.zeros(RATE, np.float32), sound, sound.astype(np.float64), frozen])
    assert np.isfinite(rows).all()
    assert cosine(rows[1], rows[2]) >= 1 - 1e-5 and cosine(rows[1], rows[3]) >= 1 - 1e-5


def test_numbers_that_are_none_do_not_get_out(make, monkeypatch):
    monkeypatch.setattr(
        Alm2VecEmbedder, "_run", lambda self, items, prefix: torch.full((len(items), self.dim), torch.nan)
    )
    with pytest.raises(RuntimeError, match="not numbers"):
        make().embed_text(["rain"])


def test_the_model_asks_its_device_nothing(parts):
    """A question such as "how long is this row" would wait for all work before it; meta tensors have no answers."""
    model, prompts = copy.deepcopy(parts[0]).to("meta"), parts[1]
    prompt = prompts.encode(text=None, audio_tokens=50, instruction=None, task="document")
    empty = partial(torch.empty, device="meta")
    prefix = model.decoder.prefix(empty(prompt.prefix_length, dtype=torch.long))
    ids = empty(2, len(prompt.ids) - prompt.prefix_length, dtype=torch.long)
    for sizes in ([10 * RATE, 10 * RATE], [10 * RATE, 7 * RATE + 333]):
        inputs = ModelInputs(ids, empty(2, dtype=torch.long), empty(2, 64, 1_001), torch.tensor(sizes))
        assert model(inputs.to(torch.device("meta")), prefix).shape == (2, 24)


def test_what_was_begun_first_can_be_finished_last(embedder):
    sounds = clips((0.5, 2.0, 1.0))
    assert not embedder.computes_beside
    first, second = embedder.begin_audio(sounds), embedder.begin_audio(sounds[:1])
    alone, rows = second(), first()
    assert cosine(rows, embedder.embed_audio(sounds)).min() >= 1 - 1e-6
    assert cosine(alone[0], rows[0]) >= 1 - 1e-5
