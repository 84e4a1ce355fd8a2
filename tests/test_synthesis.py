"""Generated sounds and renditions against what is said of them, measured on the samples; packs that hold both."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
from train_helpers import LABELS, scratch_project, write_clips

from audiosearch.audio import SAMPLE_RATE, read_span
from audiosearch.errors import UsageError
from audiosearch.trainer.manifest import ManifestRow
from audiosearch.trainer.pack import FeaturePack, build_pack
from audiosearch.trainer.recipe import load_recipe
from audiosearch.trainer.synthesis import signals, sketch
from audiosearch.trainer.synthesis.generators import KINDS, generate, generate_numbered, render_bank
from audiosearch.trainer.synthesis.renditions import Facts, rendition, room_response, round_trip
from audiosearch.trainer.synthesis.sketch import Generated

OPPOSITES = {
    "direction": {"rising": sketch.RISING, "falling": sketch.FALLING},
    "speed": {"fast": (*sketch.FAST, "quickly"), "slow": (*sketch.SLOW, "slowly")},
    "pitch": {"high": sketch.HIGH, "low": sketch.LOW},
}
CROSSED = {  # generators whose words of one trait mean something else
    ("engine", "speed"),  # an idling engine runs slowly, and may be revved up
    ("siren", "direction"),  # a wail goes both ways
    ("wobble", "speed"),
}


@cache
def sound_of(kind: str, number: int) -> Generated:
    return generate(kind, np.random.default_rng((5, number)), (0.6, 1.4, 3.0, 5.0)[number % 4])


def bank(kind: str, count: int = 8) -> list[Generated]:
    return [sound_of(kind, number) for number in range(count)]


def said(sound: Generated) -> str:
    return " | ".join((*sound.phrases, *sound.whole_phrases))


def has_word(text: str, words: tuple[str, ...]) -> bool:
    return re.search(rf"\b({'|'.join(words)})\b", text) is not None


def onsets(samples: np.ndarray, apart_seconds: float) -> int:
    """How many times the level jumps: peaks of the spectral flux, as an ear that knows nothing of the generator."""
    _, _, spectrum = scipy.signal.stft(np.pad(samples, (2_000, 2_000)), nperseg=256, noverlap=176)
    level = np.log10(np.abs(spectrum) ** 2 + 1e-5)
    flux = np.maximum(0, level[:, 2:] - level[:, :-2]).sum(axis=0)
    found, _ = scipy.signal.find_peaks(flux, height=0.35 * flux.max(), distance=max(1, int(apart_seconds * 200)))
    return len(found)


def bursts(samples: np.ndarray, _: float) -> int:
    """How many stretches of sound with silence between them."""
    level = np.sqrt(np.convolve(np.pad(samples, 400) ** 2, np.ones(240) / 240, "same"))
    loud = np.concatenate([[0], (level > 0.02 * level.max()).astype(int)])
    return int(np.sum(np.diff(loud) == 1))


def spectrum_of(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return scipy.signal.welch(samples, SAMPLE_RATE, nperseg=min(2_048, len(samples)))


def loudest_hz(samples: np.ndarray) -> float:
    hertz, power = spectrum_of(samples)
    return float(hertz[np.argmax(power)])


# -- generators ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_is_a_sound_with_words_for_it(kind):
    for number, sound in enumerate(bank(kind)):
        assert sound.samples.dtype == np.float32 and sound.samples.ndim == 1
        assert np.isfinite(sound.samples).all() and np.abs(sound.samples).max() == pytest.approx(1, abs=1e-3)
        assert 0.05 < len(sound.samples) / SAMPLE_RATE <= 10
        assert len(set(sound.phrases)) == len(sound.phrases) >= 3
        assert sound.label and sound.sound_class.startswith("generated") and sound.group
        for phrase in (*sound.phrases, *sound.whole_phrases):
            assert phrase == sketch.tidy(phrase) and not set(phrase) & set("{}|")
            assert not re.search(r"\ba [aeio]", phrase), phrase
        if number < 2:
            again = sound_of.__wrapped__(kind, number)
            assert np.array_equal(again.samples, sound.samples) and said(again) == said(sound)


@pytest.mark.parametrize("kind", list(KINDS))
def test_no_caption_says_the_opposite_of_what_is_true(kind):
    for sound in bank(kind, 12):
        for trait, values in OPPOSITES.items():
            if (kind, trait) in CROSSED:
                continue
            true = getattr(sound.traits, trait)
            for value, words in values.items():
                if true and true != value and true != "steady":
                    assert not has_word(said(sound), words), (said(sound), trait, true)


def test_a_bank_has_all_kinds_in_turn_and_every_clip_its_number():
    sounds = list(render_bank(2 * len(KINDS), seed=4))
    assert len({sound.sound_class for sound in sounds}) > 25
    assert np.array_equal(sounds[3].samples, generate_numbered(3, 4).samples)
    assert not np.array_equal(sounds[3].samples[:500], generate_numbered(3, 5).samples[:500])
    phrases = [phrase for sound in sounds for phrase in sound.phrases]
    assert len(set(phrases)) > 0.8 * len(phrases)  # synonyms and word orders, not one sentence a kind


@pytest.mark.parametrize("kind", ["beeps", "chirps", "zaps", "knocks", "clicks", "drips", "metal hits", "bell"])
def test_as_many_are_heard_as_are_said(kind):
    sounds = bank(kind, 16)
    assert len({sound.traits.count for sound in sounds}) >= 3
    right = 0
    for sound in sounds:
        count = sound.traits.count
        seconds = len(sound.samples) / SAMPLE_RATE
        hear = bursts if kind in ("beeps", "chirps", "zaps") else onsets  # a slide is all change
        right += hear(sound.samples, 0.6 * seconds / (count + 1)) == count
        others = [name for name in sketch.COUNTS[1:] if name != sketch.COUNTS[count]]
        assert all(
            has_word(p, (sketch.COUNTS[count], str(count), "single", "once")) or count == 1 for p in sound.whole_phrases
        )
        text = said(sound).replace("one after another", "")
        assert not has_word(text, tuple(others)), text
        assert not has_word(" | ".join(sound.phrases), sketch.COUNTS[1:]), "a crop has another count"
    assert right >= 14, right  # the detector is not perfect either


def test_sweeps_go_where_they_are_said_to_go():
    directions = set()
    for kind in ("sweep", "chirps", "zaps", "whoosh"):
        for sound in bank(kind):
            if sound.traits.count > 1:
                continue
            third = len(sound.samples) // 3
            start, end = loudest_hz(sound.samples[:third]), loudest_hz(sound.samples[-third:])
            assert sound.traits.direction == ("rising" if end > start else "falling"), (kind, start, end)
            directions.add(sound.traits.direction)
    assert directions == {"rising", "falling"}


@pytest.mark.parametrize(("kind", "border_hz"), [("tone", 800), ("beeps", 800), ("bell", 480), ("metal hits", 700)])
def test_high_is_high_and_low_is_low(kind, border_hz):
    sounds = bank(kind, 12)
    assert {sound.traits.pitch for sound in sounds} == {"high", "low"}
    for sound in sounds:
        hertz, power = spectrum_of(sound.samples)
        lowest = hertz[np.flatnonzero(power > 0.03 * power.max())[0]]
        assert sound.traits.pitch == ("high" if lowest > border_hz else "low"), lowest


def test_noise_has_the_slope_of_its_colour():
    slopes = {}
    for sound in bank("noise", 12):
        hertz, power = spectrum_of(sound.samples)
        inside = (hertz > 80) & (hertz < 7_000)
        slope = np.polyfit(np.log2(hertz[inside]), 10 * np.log10(power[inside]), 1)[0]
        slopes[sound.label] = slope
    assert slopes == {name: pytest.approx(slope, abs=0.6) for name, slope in slopes.items() for slope in [
        {"white noise": 0.0, "pink noise": -3.0, "brown noise": -6.0}[name]
    ]}  # fmt: skip
    assert len(slopes) == 3


def test_what_grows_grows_and_what_fades_fades():
    seen = set()
    for sound in bank("swell") + bank("rumble"):
        half = len(sound.samples) // 2
        grows = signals.rms(sound.samples[half:]) > signals.rms(sound.samples[:half])
        assert sound.traits.loudness == ("growing" if grows else "fading")
        seen.add(sound.traits.loudness)
    assert seen == {"growing", "fading"}


def test_fast_ticks_are_closer_than_slow_ones():
    intervals: dict[str, list[float]] = {"fast": [], "": [], "slow": []}
    for sound in bank("ticking", 20):
        starts = np.flatnonzero(np.diff((np.abs(sound.samples) > 0.3).astype(int)) == 1) / SAMPLE_RATE
        intervals[sound.traits.speed].append(float(np.median(np.diff(starts[np.diff(starts, prepend=-1) > 0.05]))))
    assert min(map(len, intervals.values())) > 1
    assert max(intervals["fast"]) < min(intervals[""]) < max(intervals[""]) < min(intervals["slow"])


def test_words_are_put_together_without_seams():
    rng = np.random.default_rng(0)
    assert sketch.tidy("a  unhurried  oboe , a uniform a hum") == "an unhurried oboe, a uniform a hum"
    assert sketch.compose(rng, ("a {x} {y}",), x=("", "old"), y=("bell",)) in [
        ("a bell", "an old bell"),
        ("an old bell", "a bell"),
    ]
    assert sketch.counted_phrases(rng, 1, ("knock",), ("knocks",))[0].count("knocks") == 0
    assert sketch.speed_of(0.1, 0.2, 0.5) == "fast" and sketch.speed_of(0.3, 0.2, 0.5) == ""


# -- signals and renditions ------------------------------------------------------------------------------------------


def probe(seconds: float = 1.5, seed: int = 0) -> np.ndarray:
    """Pink noise in bursts with pauses: something of everything."""
    rng = np.random.default_rng(seed)
    made = signals.noise(rng, int(seconds * SAMPLE_RATE), signals.sloped(-3))
    return signals.normalised(made * (np.sin(np.arange(len(made)) / 2_000) > 0))


def test_filters_are_where_they_say():
    noise = signals.noise(np.random.default_rng(0), 160_000)
    hertz, power = spectrum_of(signals.filtered(noise, signals.band(300, 3_000)))
    level = 10 * np.log10(power / np.median(power[(hertz > 600) & (hertz < 1_500)]))
    for place, expected in ((300, -3), (3_000, -3), (150, -24), (6_000, -24)):
        assert level[np.argmin(np.abs(hertz - place))] == pytest.approx(expected, abs=2)
    for n in (1, 7, 1_000, 160_000):
        assert n <= signals.fast_length(n) <= 1.5 * n


def test_another_speed_moves_the_pitch_and_folds_nothing_back():
    time_ = signals.seconds_of(SAMPLE_RATE)
    low = np.sin(2 * np.pi * 1_000 * time_).astype(np.float32)
    for percent in (92, 100, 108):
        made = signals.resampled(low, percent)
        assert len(made) == SAMPLE_RATE * 100 // percent
        assert loudest_hz(made) == pytest.approx(10 * percent, abs=8)
        reference = scipy.signal.resample_poly(low, 100, percent)
        assert np.abs(made - reference[: len(made)])[400:-400].max() < 0.01
    high = np.sin(2 * np.pi * 7_700 * time_).astype(np.float32)
    assert signals.rms(signals.resampled(high, 108)[400:-400]) < 0.01 * signals.rms(high)


@pytest.mark.parametrize("seconds", [0.3, 0.8, 1.5])
def test_a_room_decays_as_long_as_it_says(seconds):
    """Schroeder's backward integral, from 5 to 25 dB down, over the middle band."""
    response = room_response(np.random.default_rng(3), seconds, 0.0)
    assert np.sum(response[1:] ** 2) == pytest.approx(1, rel=0.01)  # direct and reverberant sound equally strong
    late = signals.filtered(response[400:], signals.band(100, 800))
    left = 10 * np.log10(np.cumsum(late[::-1] ** 2)[::-1] / np.sum(late**2))
    first, last = np.argmax(left < -5), np.argmax(left < -25)
    assert (last - first) / SAMPLE_RATE * 3 == pytest.approx(seconds, rel=0.25)


def test_convolution_is_the_one_of_scipy():
    rng = np.random.default_rng(0)
    one, two = rng.standard_normal(3_000).astype(np.float32), rng.standard_normal(700).astype(np.float32)
    assert np.allclose(signals.convolved(one, two, 3_500), np.convolve(one, two)[:3_500], atol=1e-3)


@pytest.fixture(scope="module")
def rendered() -> list[tuple[np.ndarray, Facts]]:
    return [rendition(probe(), np.random.default_rng((1, i)), group="human") for i in range(160)]


def test_renditions_are_sound_and_repeatable(rendered):
    for i, (samples, facts) in enumerate(rendered):
        assert samples.dtype == np.float32 and np.isfinite(samples).all()
        assert np.abs(samples).max() == pytest.approx(signals.gain(facts.level_db), rel=0.05)
        assert (
            abs(len(samples) / facts.speed**-1 - 24_000) < 100 + 0.61 * SAMPLE_RATE * (facts.reverb_seconds > 0) * 1.1
        )
        if i < 20:
            again, same_facts = rendition(probe(), np.random.default_rng((1, i)), group="human")
            assert np.array_equal(again, samples) and same_facts == facts
    short, _ = rendition(probe(3), np.random.default_rng(0), max_seconds=1.0)
    assert len(short) <= SAMPLE_RATE
    assert sum(facts == Facts(level_db=facts.level_db) for _, facts in rendered) < 0.3 * len(rendered)


def test_facts_can_be_measured(rendered):
    seen = {"band": 0, "clipped": 0}
    for samples, facts in rendered:
        hertz, power = spectrum_of(samples)
        if 3_000 < facts.high_hz <= 4_000 and not facts.noise and not facts.clipped:
            assert 10 * np.log10(power[hertz > 5_500].max() / power.max()) < -25, facts
            seen["band"] += 1
        if facts.clipped and not facts.codec:
            seen["clipped"] += 1
            assert np.mean(np.abs(samples) > 0.9 * np.abs(samples).max()) > 0.004
    assert min(seen.values()) >= 3, seen


def test_wind_is_heard_where_it_is_said():
    hiss = signals.normalised(signals.noise(np.random.default_rng(0), 16_000, signals.band(2_000, 4_000)))
    heard: dict[bool, list[float]] = {True: [], False: []}
    for i in range(150):
        samples, facts = rendition(hiss, np.random.default_rng((3, i)))
        if not facts.noise and not facts.clipped:
            hertz, power = spectrum_of(samples)
            heard[facts.wind].append(power[hertz < 400].sum() / power.sum())
    assert len(heard[True]) > 8 and min(heard[True]) > 0.02 and np.max(heard[False]) < 0.01


def test_a_place_is_said_only_where_it_is_true(rendered):
    places = {place: [facts for _, facts in rendered if facts.place == place] for place in ("indoor", "outdoor", "")}
    assert len(places["indoor"]) > 10 and len(places["outdoor"]) > 5
    assert all(facts.reverb_seconds > 0.35 and not facts.wind for facts in places["indoor"])
    assert all(facts.wind and not facts.reverb_seconds for facts in places["outdoor"])
    for group, impossible in (
        ("nature", "indoor"),
        ("vehicles", "indoor"),
        ("domestic", "outdoor"),
        ("music", "outdoor"),
    ):
        found = {rendition(probe(0.3), np.random.default_rng((1, i)), group=group)[1].place for i in range(60)}
        assert impossible not in found and len(found) == 2


def test_a_band_that_would_leave_nothing_is_not_laid_on():
    whistle = np.sin(2 * np.pi * 7_000 * signals.seconds_of(8_000)).astype(np.float32)
    for i in range(120):
        samples, facts = rendition(whistle, np.random.default_rng((2, i)))
        if not facts.noise and not facts.wind and not facts.clipped and not facts.reverb_seconds:
            assert loudest_hz(samples) > 6_000, facts


@pytest.mark.parametrize(
    ("encoder", "decoder", "rate", "bit_rate"),
    [
        ("libopus", "opus", 16_000, 24_000),
        ("libopus", "opus", 8_000, 8_000),
        ("libmp3lame", "mp3float", 16_000, 32_000),
        ("aac", "aac", 16_000, 24_000),
        ("pcm_mulaw", "pcm_mulaw", 8_000, 64_000),
        ("g722", "g722", 16_000, 64_000),
    ],
)
def test_a_codec_changes_the_sound_and_not_its_place_in_time(encoder, decoder, rate, bit_rate):
    samples = signals.filtered(probe(), signals.band(0, 2_000))
    made = round_trip(samples, encoder, decoder, rate, bit_rate)
    assert len(made) == len(samples) and not np.array_equal(made, samples)
    lags = scipy.signal.correlate(made, samples, mode="full")
    assert abs(int(np.argmax(lags)) - (len(samples) - 1)) <= 30  # samples: 2 ms
    assert np.corrcoef(np.abs(made), np.abs(samples))[0, 1] > 0.7
    assert round_trip(samples[:50], encoder, decoder, rate, bit_rate).shape == (50,)


# -- packs -----------------------------------------------------------------------------------------------------------


def pack_of(folder: Path, cache: str = "cache", count: int = 6, **options) -> FeaturePack:
    rows = [ManifestRow(f"{i}.wav", f"clip {i}", group="human") for i in range(count)]
    return build_pack(rows, folder, folder / cache, max_seconds=1.0, **options)


def contents(pack: FeaturePack) -> tuple:
    return pack.mel.tobytes(), pack.offsets.tolist(), pack.rows, pack.sounds, pack.rendered, pack.dropped


def test_takes_of_a_pack(tmp_path):
    write_clips(tmp_path, 6)
    (tmp_path / "2.wav").write_bytes(b"")
    plain = pack_of(tmp_path)
    pack = pack_of(tmp_path, renditions=2, generated=5, generated_weight=0.5, seed=9)
    assert [row.weight for row in pack.rows[-6:]] == [1.0, *[0.5] * 5]
    assert len(plain) == 5 and plain.variants(3) == (3,) and plain.facts(3) == Facts() and plain.sound(3) is None
    assert len(pack) == 10 and pack.n_recorded == 5 and pack.dropped == ("2.wav: empty",) == plain.dropped
    assert pack.rows[:5] == plain.rows and [row.source for row in pack.rows[5:]] == ["generated"] * 5
    for i in range(5):
        assert np.array_equal(pack.decibels(i), plain.decibels(i))
    takes = [take for i in range(10) for take in pack.variants(i)]
    assert sorted(takes) == list(range(5 * 3 + 5)) and len(pack.offsets) == 21
    assert all(pack.frames(take) == len(pack.decibels(take)) > 10 for take in takes)
    assert len({pack.decibels(take).tobytes() for take in takes}) == 20

    made = generate_numbered(1, 9)
    sound, row = pack.sound(6), pack.rows[6]
    assert sound is not None and sound.traits == made.traits and sound.whole_phrases == made.whole_phrases
    assert (row.text, *row.alternatives) == made.phrases and row.label == made.label and row.captions == made.phrases


def test_facts_of_a_take_are_those_of_its_rendering(tmp_path):
    """The level that the facts tell is the level of the mel: takes and facts are in the same order."""
    write_clips(tmp_path, 6)
    pack = pack_of(tmp_path, renditions=4, seed=1)
    for index in range(6):
        own = pack.decibels(index).max()
        for take in pack.variants(index)[1:]:
            facts = pack.facts(take)
            if facts == Facts(level_db=facts.level_db, speed=facts.speed):
                peak = np.abs(read_span(str(tmp_path / f"{index}.wav"), 0, 1.0)).max()
                assert pack.decibels(take).max() - own == pytest.approx(facts.level_db - 20 * np.log10(peak), abs=1.5)
    assert len({pack.facts(take).level_db for take in range(6, 30)}) > 20


def test_variant_draws_only_where_there_is_a_choice(tmp_path):
    write_clips(tmp_path, 3)
    rng = np.random.default_rng(0)
    plain, pack = pack_of(tmp_path, count=3), pack_of(tmp_path, count=3, renditions=3)
    assert [plain.variant(i, rng) for i in range(3)] == [0, 1, 2]
    assert rng.random() == np.random.default_rng(0).random()
    drawn = [pack.variant(1, rng) for _ in range(200)]
    assert set(drawn) == set(pack.variants(1)) and min(drawn.count(take) for take in set(drawn)) > 20


def test_statistics_are_those_of_all_frames(tmp_path):
    write_clips(tmp_path, 3)
    pack = pack_of(tmp_path, count=3, renditions=1)
    mean, variance = pack.mean_and_variance()
    frames = np.concatenate([pack.decibels(take) for take in range(6)]).astype(np.float64)
    assert np.allclose(mean, frames.mean(axis=0), atol=1e-3) and np.allclose(variance, frames.var(axis=0), rtol=1e-3)


def test_another_seed_count_or_length_is_another_pack(tmp_path):
    write_clips(tmp_path, 2)
    variations = [{}, {"renditions": 1}, {"renditions": 1, "seed": 1}, {"generated": 1}, {"generated": 2}]
    packs = [pack_of(tmp_path, count=2, **options) for options in variations]
    assert len(list((tmp_path / "cache").glob("*.json"))) == len({pack.mel.tobytes() for pack in packs}) == 5
    assert not list((tmp_path / "cache").glob("*.shards"))
    pack_of(tmp_path, count=2, seed=3)  # nothing is drawn: the seed makes no difference
    assert len(list((tmp_path / "cache").glob("*.json"))) == 5


def test_a_clip_sounds_the_same_whatever_stands_before_it(tmp_path):
    write_clips(tmp_path, 3)
    rows = [ManifestRow(f"{i}.wav", "x") for i in range(3)]
    all_, last = (
        build_pack(some, tmp_path, tmp_path / "cache", max_seconds=1.0, renditions=1, seed=2)
        for some in (rows, rows[2:])
    )
    assert np.array_equal(all_.decibels(all_.variants(2)[1]), last.decibels(last.variants(0)[1]))


SCRIPT = """
import sys
from pathlib import Path
from audiosearch.trainer.manifest import ManifestRow
from audiosearch.trainer.pack import build_pack
folder = Path(sys.argv[1])
rows = [ManifestRow(f"{i}.wav", f"clip {i}", group="human") for i in range(6)]
build_pack(rows, folder, folder / "killed", max_seconds=1.0, renditions=1, generated=200, seed=2, workers=2)
"""


def test_killed_it_goes_on_and_comes_to_the_same_whoever_renders(tmp_path):
    write_clips(tmp_path, 6)
    child = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], stderr=subprocess.DEVNULL, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not (done := list((tmp_path / "killed").glob("*/*.npz"))) and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = descendants(child.pid)
    child.kill()
    child.wait()
    assert done and not list((tmp_path / "killed").glob("*.json"))
    assert workers and all(ended(pid, 20) for pid in workers), "workers outlive a parent that was killed"
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "killed").glob("*/*.npz")}
    assert kept

    options = {"renditions": 1, "generated": 200, "seed": 2}
    renders = []
    from audiosearch.trainer import render

    whole = render.render_shard
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            render, "render_shard", lambda plan, shard, folder: renders.append(shard) or whole(plan, shard, folder)
        )
        resumed = pack_of(tmp_path, "killed", workers=1, **options)
        assert len(renders) == 8 - len(kept)
        alone = pack_of(tmp_path, "alone", workers=1, **options)
    assert contents(resumed) == contents(alone)


def descendants(pid: int) -> list[int]:
    """Rendering processes below `pid`, by their command line."""
    if not Path("/proc").is_dir():
        pytest.skip("needs /proc")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(c) for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]


def ended(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (ProcessLookupError, FileNotFoundError):
            return True
        if state == "Z":  # dead; whoever adopted it has not looked yet
            return True
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    return False


def test_a_worker_that_dies_is_told_in_one_line(tmp_path):
    write_clips(tmp_path, 2)

    def kill_one() -> None:
        deadline = time.monotonic() + 60
        while not (children := multiprocessing.active_children()) and time.monotonic() < deadline:
            time.sleep(0.01)
        children[0].kill()

    killer = threading.Thread(target=kill_one)
    killer.start()
    with pytest.raises(UsageError, match="run it again, it goes on"):
        pack_of(tmp_path, count=2, generated=200, workers=2)
    killer.join()
    assert len(pack_of(tmp_path, count=2, generated=200, workers=1)) == 202


# -- the recipe ------------------------------------------------------------------------------------------------------


def test_a_recipe_of_renditions_and_generated_clips_makes_batches(tmp_path, monkeypatch):
    from audiosearch.trainer.corpus import prepare_corpus
    from audiosearch.trainer.scratch import prepare

    project = scratch_project(tmp_path, monkeypatch, scratch__renditions=2, scratch__generated=8)
    recipe = load_recipe(Path(project.recipe))
    corpus = prepare_corpus(recipe.data, tmp_path, tmp_path / "run", print)
    made = prepare(recipe, corpus, tmp_path, tmp_path / "run", print)
    assert len(made.pack) == 24 and made.pack.n_recorded == 16 and made.pack.renditions == 2
    assert {row.label for row in made.pack.rows[:16]} == set(LABELS)
    assert set(made.pack.rows[20].captions) <= set(made.text_row)  # the text side learns what is said of them


@pytest.mark.parametrize("key", ["renditions", "generated"])
def test_recipe_keys_are_checked(tmp_path, monkeypatch, key):
    project = scratch_project(tmp_path, monkeypatch, **{f"scratch__{key}": -1})
    with pytest.raises(UsageError, match=r"renditions.*must be at least 0"):
        load_recipe(Path(project.recipe))
    assert getattr(load_recipe(Path(project.recipe), [f"scratch.{key}=0"]).scratch, key) == 0
