"""Generators of things that collide, break, shoot and shut: what games are full of and nature recordings are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from audiosearch.trainer.synthesis import signals
from audiosearch.trainer.synthesis.effects import Effect, kinds_of
from audiosearch.trainer.synthesis.signals import SAMPLE_RATE, Samples
from audiosearch.trainer.synthesis.struck import burst, in_a_row, modal


@dataclass(frozen=True, slots=True)
class Material:
    """How a body of it rings: its lowest mode in Hz, and the angle of internal friction, by which a mode of f Hz is 60
    dB down after 2.2 / (f tan phi) seconds (Wildes and Richards, 1988); the softer, the darker the blow."""

    hertz: tuple[float, float]
    friction: tuple[float, float]
    hardness_hz: tuple[float, float]


_MATERIALS = {
    "wood": Material((90, 700), (0.02, 0.06), (1_000, 4_000)),
    "plastic": Material((250, 1_500), (0.03, 0.09), (1_500, 5_000)),
    "glass": Material((900, 3_500), (0.001, 0.004), (4_000, 7_500)),
    "stone": Material((300, 2_200), (0.02, 0.08), (2_500, 7_500)),
    "ceramic": Material((600, 2_600), (0.003, 0.012), (3_000, 7_500)),
    "metal": Material((200, 1_600), (0.0005, 0.004), (3_000, 7_500)),
}


def blow(rng: np.random.Generator, _: float, *, material: str) -> Samples:
    """One blow on an object of that material: its modes, as bright as the blow is hard."""
    made = _MATERIALS[material]
    base, friction = signals.between(rng, *made.hertz), signals.between(rng, *made.friction)
    hard = signals.between(rng, *made.hardness_hz)
    hertz = base * np.cumsum(np.concatenate([[1], rng.uniform(0.25, 1.1, 14)]))
    modes = [
        (float(f), float(rng.uniform(0.2, 1) / (1 + (f / hard) ** 2)), float(np.clip(2.2 / (f * friction), 0.015, 1.5)))
        for f in hertz
    ]
    ringing = modal(rng, min(1.6, 0.05 + max(length for _, _, length in modes)), modes)
    contact = burst(rng, float(rng.uniform(0.006, 0.03)), 100, hard) * np.float32(rng.uniform(0.2, 1.2))
    ringing[: len(contact)] += contact[: len(ringing)]
    return ringing


def breaking(rng: np.random.Generator, _: float, *, material: str) -> Samples:
    """A crack, and pieces that fall: ever fewer of them, each an object of its own."""
    length = float(rng.uniform(0.5, 1.8))
    pieces: list[tuple[float, Samples]] = [(0.0, burst(rng, 0.08, 300, 7_500)), (0.0, blow(rng, 0, material=material))]
    for at in np.minimum(rng.exponential(length / 3, int(rng.integers(12, 45))), length):
        shard = blow(rng, 0, material=material)
        faster = signals.resampled(shard, int(rng.integers(110, 220)))  # a piece is smaller than the whole
        pieces.append((0.01 + float(at), faster * np.float32(rng.uniform(0.1, 0.7) * np.exp(-at / length))))
    return signals.faded(signals.placed(int((length + 0.6) * SAMPLE_RATE), pieces), 0.0005, 0.1)


def _tail(rng: np.random.Generator, seconds: float, high_hz: float) -> Samples:
    """What the surroundings give back: noise, the later the darker."""
    n = int(seconds * SAMPLE_RATE)
    made = np.zeros(n, dtype=np.float32)
    for part, top in ((1.0, high_hz / 4), (0.5, high_hz / 2), (0.25, high_hz)):
        made += signals.noise(rng, n, signals.band(60, top, 1)) * signals.decay(n, seconds * part).astype(np.float32)
    return made


def gunshot(rng: np.random.Generator, _: float) -> Samples:
    """The crack of a shock wave, the muzzle's blast, and its echo."""
    tail = _tail(rng, float(rng.uniform(0.25, 1.5)), signals.between(rng, 1_500, 6_000))
    tail *= np.float32(rng.uniform(0.05, 0.3) / (signals.rms(tail[:800]) or 1))
    for part, level in ((burst(rng, 0.02, 800, 7_500), 1.0), (burst(rng, 0.12, 80, rng.uniform(600, 2_000)), 0.8)):
        tail[: len(part)] += part * np.float32(level / (np.abs(part).max() or 1))
    return signals.faded(tail, 0.0, 0.05)


def machine_gun(rng: np.random.Generator, seconds: float) -> Samples:
    shot = gunshot(rng, seconds)[: int(0.4 * SAMPLE_RATE)]
    return in_a_row(rng, lambda: shot, int(rng.integers(4, 20)), float(rng.uniform(0.06, 0.14)), 0.04)


def explosion(rng: np.random.Generator, _: float) -> Samples:
    length = float(rng.uniform(1.2, 4))
    made = _tail(rng, length, signals.between(rng, 400, 3_000))
    deep = signals.noise(rng, len(made), signals.band(25, 110, 2)) * signals.decay(len(made), length)
    made = made + (rng.uniform(1, 3) * deep).astype(np.float32)
    debris = [
        (float(at), blow(rng, 0, material=str(rng.choice(["stone", "wood", "metal"]))) * np.float32(0.2))
        for at in rng.uniform(0.15, length, int(rng.integers(0, 10)))
    ]
    return signals.faded(np.tanh(made) + signals.placed(len(made), debris), 0.002, 0.2)


def punch(rng: np.random.Generator, _: float) -> Samples:
    """Flesh: a dull thud and a slap, nothing rings."""
    base = rng.uniform(60, 150)
    thud = modal(rng, 0.2, [(base, 1, 0.12), (base * 1.7, 0.5, 0.08)])
    slap = burst(rng, float(rng.uniform(0.03, 0.09)), 200, rng.uniform(900, 3_500)) * np.float32(rng.uniform(0.2, 0.9))
    thud[: len(slap)] += slap
    return thud


def sword(rng: np.random.Generator, _: float) -> Samples:
    """Two blades: high modes that ring, and steel sliding on steel."""
    base = rng.uniform(900, 2_400)
    modes = [(base * r, rng.uniform(0.3, 1), rng.uniform(0.3, 1.2)) for r in np.cumsum(rng.uniform(0.4, 1.2, 9)) + 0.5]
    made = modal(rng, 1.2, modes)
    slide = burst(rng, float(rng.uniform(0.05, 0.4)), 3_000, 7_500) * np.float32(rng.uniform(0.5, 2))
    made[: len(slide)] += slide
    return made


def door(rng: np.random.Generator, _: float) -> Samples:
    """A panel that falls to, and the latch."""
    base = rng.uniform(55, 140)
    panel = modal(rng, 0.5, [(base * r, 1 / r, 0.35 / r) for r in (1, 1.6, 2.3, 3.4)])
    panel[: int(0.15 * SAMPLE_RATE)] += burst(rng, 0.15, 80, 1_500) * np.float32(rng.uniform(0.3, 1.5))
    latch = [(float(at), blow(rng, 0, material="metal")[:1_200] * np.float32(0.25)) for at in rng.uniform(0, 0.15, 2)]
    return signals.faded(np.asarray(panel + signals.placed(len(panel), latch)), 0.001, 0.05)


def reload(rng: np.random.Generator, _: float) -> Samples:
    """Slides, catches and springs of steel, a few in a row."""
    at, pieces = 0.0, []
    for _ in range(int(rng.integers(2, 6))):
        part = blow(rng, 0, material="metal")[: int(rng.uniform(0.04, 0.12) * SAMPLE_RATE)]
        pieces.append((at, signals.faded(part, 0.0005, 0.02)))
        if rng.random() < 0.5:
            scrape = signals.faded(burst(rng, 0.12, 1_500, 6_000), 0.03, 0.03)
            pieces.append((at + 0.03, scrape * np.float32(rng.uniform(0.1, 0.4))))
        at += float(rng.uniform(0.08, 0.4))
    return signals.placed(int((at + 0.2) * SAMPLE_RATE), pieces)


def coins(rng: np.random.Generator, _: float) -> Samples:
    """Small discs: high modes, many at once."""
    pieces = []
    for at in np.sort(rng.uniform(0, rng.uniform(0.2, 1.5), int(rng.integers(2, 14)))):
        base = rng.uniform(2_200, 5_000)
        modes = [(base * r, rng.uniform(0.3, 1), rng.uniform(0.1, 0.4)) for r in (1, 1.3, 1.73, 2.1)]
        pieces.append((float(at), modal(rng, 0.4, modes) * np.float32(rng.uniform(0.3, 1))))
    return signals.placed(int(2.0 * SAMPLE_RATE), pieces)[: int((pieces[-1][0] + 0.4) * SAMPLE_RATE)]


def chopping(rng: np.random.Generator, seconds: float) -> Samples:
    made = blow(rng, seconds, material="wood")
    crack = burst(rng, 0.06, 400, 6_000) * np.float32(rng.uniform(0.5, 1.5) * np.abs(made).max())
    return signals.placed(max(len(made), len(crack)), [(0.0, made), (0.0, crack)])


def _hit(material: str, label: str, sound_class: str, things: Sequence[str]) -> Effect:
    templates = (
        "{material} being hit", "a {material} {hit}", "something strikes {thing}", "a blow on {thing}",
        "{thing} being struck", "the {hit} of {thing}", "a hard {hit} against {thing}",
    )  # fmt: skip
    words = {"material": (material,), "hit": ("hit", "knock", "impact", "thump"), "thing": things}
    make = partial(blow, material="stone" if material == "brick" else material)
    return Effect(make, label, sound_class, "impacts", templates, words, (4, 0.2, 0.9))


def _broken(material: str, label: str, sound_class: str, group: str, things: Sequence[str]) -> Effect:
    templates = (
        "{material} {breaking}", "{thing} {breaking}", "{thing} falls and breaks", "the crash of breaking {material}",
        "splinters of {material}", "{thing} is smashed to pieces",
    )  # fmt: skip
    words = {"material": (material,), "breaking": ("breaking", "shattering", "bursting apart"), "thing": things}
    return Effect(partial(breaking, material=material), label, sound_class, group, templates, words)


EFFECTS = {
    "wood hit": _hit("wood", "wood hit", "wood", ("a wooden board", "a log", "a wooden box", "a plank")),
    "plastic hit": _hit("plastic", "plastic hit", "plastic", ("a plastic box", "a bucket", "a plastic bottle")),
    "glass hit": _hit("glass", "glass hit", "glass", ("a drinking glass", "a bottle", "a glass pane")),
    "stone hit": _hit("stone", "rock hit", "stone/ceramic/concrete", ("a rock", "a stone", "a boulder")),
    "brick hit": _hit("brick", "brick hit", "stone/ceramic/concrete", ("a brick", "a brick wall", "masonry")),
    "ceramic hit": _hit("ceramic", "ceramic hit", "stone/ceramic/concrete", ("a plate", "a tile", "a clay pot")),
    "glass breaking": _broken("glass", "glass breaking", "glass", "domestic", ("a jar", "a bottle", "a glass")),
    "wood breaking": _broken("wood", "wood breaking", "wood", "impacts", ("a plank", "a wooden crate", "a branch")),
    "ceramic breaking": _broken(
        "ceramic", "ceramic breaking", "stone/ceramic/concrete", "impacts", ("a plate", "a vase", "a flower pot")
    ),
    "gunshot": Effect(
        gunshot, "gunshot", "gunshot", "weapons",
        ("a gunshot", "a {gun} {shot}", "the shot of a {gun}", "someone fires a {gun}", "a {gun} is fired", "a shot"),
        {"gun": ("pistol", "rifle", "shotgun", "handgun", "revolver"), "shot": ("shot", "firing", "blast")},
        (3, 0.4, 1.2),
    ),
    "machine gun": Effect(
        machine_gun, "machine gun", "gunshot", "weapons",
        ("a {gun} firing", "{gun} fire", "a burst from a {gun}", "the rattle of a {gun}", "rapid gunfire"),
        {"gun": ("machine gun", "submachine gun", "automatic rifle", "Gatling gun")},
    ),
    "explosion": Effect(
        explosion, "explosion", "explosion", "weapons",
        ("an explosion", "a {thing} exploding", "the {boom} of a {thing}", "a {big} {boom}", "something blows up"),
        {"thing": ("bomb", "grenade", "shell", "barrel"), "boom": ("boom", "blast", "detonation"),
         "big": ("huge", "distant", "deep")},
    ),
    "punch": Effect(
        punch, "punch", "sword & hits", "weapons",
        ("a punch", "a fist hitting a body", "a body {blow}", "a {blow} in a fight", "someone is punched",
         "a dull thud"),
        {"blow": ("blow", "slap", "hit")},
        (4, 0.2, 0.8),
    ),
    "sword clash": Effect(
        sword, "sword clash", "sword & hits", "weapons",
        ("{blades} clashing", "a clash of {blades}", "a sword fight", "steel on steel", "a blade striking a blade"),
        {"blades": ("swords", "blades", "sabres", "knives")},
        (4, 0.3, 0.9),
    ),
    "gun reload": Effect(
        reload, "gun reload", "gunshot", "weapons",
        ("a {gun} being {loaded}", "reloading a {gun}", "someone loads a {gun}", "the action of a {gun}"),
        {"gun": ("gun", "rifle", "pistol", "shotgun"), "loaded": ("reloaded", "cocked", "loaded")},
    ),
    "door slam": Effect(
        door, "door close", "door", "domestic",
        ("a door {shut}", "the slam of a door", "someone closes a {which} door", "a {which} door {shut}", "a door"),
        {"shut": ("slamming", "closing", "shutting", "falling shut"), "which": ("heavy", "car", "wooden", "cupboard")},
    ),
    "coins": Effect(
        coins, "coins", "coins & keys", "domestic",
        ("{coins} {falling}", "a handful of {coins}", "the jingle of {coins}", "{coins} on a table", "small change"),
        {"coins": ("coins", "pieces of money", "metal discs"), "falling": ("falling", "clinking", "jingling")},
    ),
    "chopping wood": Effect(
        chopping, "chopping wood", "chopping wood", "tools",
        ("{chopping} wood", "an axe {hitting} a {log}", "someone {chopping} a {log}", "the blows of an axe"),
        {"chopping": ("chopping", "splitting"), "hitting": ("hitting", "biting into"), "log": ("log", "tree", "block")},
        (5, 0.5, 1.4),
    ),
}  # fmt: skip

KINDS = kinds_of(EFFECTS)
