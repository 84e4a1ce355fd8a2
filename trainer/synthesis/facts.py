"""What is known of a scene, and what can therefore be asked of it. No sound here, and no wordings.

A question asks for one `Aspect`; two aspects of a scene with different meanings are two questions whose answers differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Literal

from audiosearch.trainer.manifest import ManifestRow
from audiosearch.trainer.synthesis.questions import ANSWERS

Kind = Literal["single", "layered", "ordered", "counted"]

_SPOKEN = re.compile(r"speech (?:word|digit|phrase) (.+)")
_FEMALE = re.compile(r"\b(female|woman|women|girl|lady)")
_MALE = re.compile(r"\b(male|man|men|boy|dude|guy)\b")
# Classes that are their own topic, whatever their group is; an empty one fits no question.
_CLASS_TOPICS = {
    **dict.fromkeys(("rain", "wind", "thunder"), "weather"),
    **dict.fromkeys(("sea waves", "waves", "stream & waterfall", "water drops", "water tap & pouring"), "water"),
    **dict.fromkeys(("water", "toilet", "bubbles", "underwater", "boiling & sizzling"), "water"),
    **dict.fromkeys(("alarm", "telephone", "doorbell & knock", "siren", "clock", "ticking", "hum", "fan"), ""),
    **dict.fromkeys(("singing & choir", "synth & electronic", "tone", "chirps", "whisper", "whistling"), ""),
    **dict.fromkeys(("crowd", "applause & cheering"), ""),
}
_GROUP_TOPICS = {
    "speech": "speech",
    "music": "music",
    "animals": "animal",
    "vehicles": "vehicle",
    "human": "human",
    "domestic": "household",
    "tools": "tool",
    "weapons": "weapon",
    "ui": "interface",
    "impacts": "impact",
}
_BODIES = {"footsteps", "clapping", "sneeze", "cough", "snoring", "brushing teeth", "eating & drinking", "heartbeat"}
_SYNTHETIC = {"synth & electronic", "tone", "sweep"}
_PRODUCED = {"music (full)", "singing & choir", "drum loop", *_SYNTHETIC}
_MOTORS = {"fan", "vacuum cleaner", "hair dryer & shaver", "washing machine & dryer", "hum", "spray"}
_WET = {"water tap & pouring", "toilet", "bubbles", "boiling & sizzling", "washing machine & dryer", "water", "drips"}


@dataclass(frozen=True)
class _Presence:
    """Of what a question may ask whether it is there. Neither here nor there: it cannot be told."""

    groups: frozenset[str] = frozenset()  # all clips of these groups hold it ...
    classes: frozenset[str] = frozenset()  # ... and those of these classes,
    but: frozenset[str] = frozenset()  # except classes of which one cannot be sure
    without: frozenset[str] = frozenset()  # groups that do not hold it, with the same exceptions
    without_classes: frozenset[str] = frozenset()

    def known(self, row: ManifestRow) -> bool | None:
        kind = kind_of(row)
        if kind in self.classes:
            return True
        if kind in self.without_classes:
            return False
        if kind in self.but:
            return None
        return True if row.group in self.groups else False if row.group in self.without else None


_PLAIN = frozenset({"speech", "music", "animals", "domestic"})
_VEHICLES = frozenset(
    {"airplane & jet", "car/truck engine", "helicopter", "train & subway", "drone", "engine", "rotor"}
)
PRESENCES = {
    "speech": _Presence(
        groups=frozenset({"speech"}),
        but=frozenset(_PRODUCED),
        without=frozenset({"music", "animals", "vehicles", "domestic", "nature", "tools", "impacts", "weapons"}),
        without_classes=frozenset(_BODIES),
    ),
    "music": _Presence(
        groups=frozenset({"music"}),
        but=frozenset({*_SYNTHETIC, "toy & ball", "telephone", "clock"}),
        without=frozenset({"speech", "animals", "vehicles", "domestic", "nature", "tools", "weapons"}),
        without_classes=frozenset(_BODIES),
    ),
    "vehicle": _Presence(
        classes=_VEHICLES,
        but=frozenset({*_MOTORS, *_PRODUCED}),
        without=_PLAIN,
        without_classes=frozenset({*_BODIES, "wind"}),
    ),
    "wind": _Presence(
        classes=frozenset({"wind"}),
        but=frozenset({*_MOTORS, *_PRODUCED}),
        without=_PLAIN,
        # Some wind may blow about a vehicle, but none that its recordist would have named; and the other way round.
        without_classes=frozenset({*_BODIES, *_VEHICLES}),
    ),
    "rain": _Presence(
        classes=frozenset({"rain"}),
        but=frozenset({*_WET, *_MOTORS, *_PRODUCED}),
        without=_PLAIN,
        without_classes=frozenset(_BODIES),
    ),
    "water": _Presence(
        classes=frozenset({"sea waves", "waves", "stream & waterfall", "water drops", "drips", "water tap & pouring"}),
        but=frozenset({*_WET, *_PRODUCED, "frog", "duck/goose/swan", "whale & dolphin", "dishes & kitchen"}),
        without=frozenset({"speech", "music", "animals", "tools", "weapons"}),
    ),
    "animal": _Presence(
        groups=frozenset({"animals"}),
        but=frozenset({*_PRODUCED, "toy & ball", "balloon & rubber", "whistling", "night ambience"}),
        without=frozenset({"speech", "music", "domestic", "vehicles", "tools", "weapons"}),
        without_classes=frozenset(_BODIES),
    ),
}
# Generated sounds that are what some recorded ones are.
_SAME = {
    "birdsong": "birds chirping",
    "boiling": "boiling water",
    "drips": "water drops",
    "electronic alarm": "alarm clock",
    "fire": "fire crackling",
    "fly": "flying insects",
    "heavy rain": "rain",
    "knocking on wood": "door knock",
    "light rain": "rain",
    "ticking": "clock tick",
}


@dataclass(frozen=True, slots=True)
class SceneFacts:
    """What is true of a scene. `rows` say what is heard: layered the loudest first, ordered in their order.

    `told_apart`: of a layered scene, whether its foreground is clearly louder than its background.
    """

    kind: Kind
    rows: tuple[ManifestRow, ...]
    count: int = 1
    loudness: Literal["", "loud", "quiet"] = ""
    place: str = ""  # "indoor", "outdoor" or unknown
    told_apart: bool = True
    whole_phrases: tuple[str, ...] = ()  # true because the clip is heard whole and once: with its count, its end


@dataclass(frozen=True, slots=True)
class Aspect:
    """One thing to ask for. `name` finds the question's wordings; the answer is said of `row`, or is `value`.

    Equal `meaning`s are equal answers. `other` is what the question itself names.
    """

    name: str
    meaning: str
    row: ManifestRow | None = None
    value: str = ""
    other: ManifestRow | None = None


def content_of(row: ManifestRow) -> str:
    """What two clips share that are the same sound; the same word is the same sound whoever collected it."""
    word, label = word_of(row), row.label.removeprefix("synthetic ")
    return f"word {word}" if word else f"sound {_SAME.get(label, label) or row.text}"


def kind_of(row: ManifestRow) -> str:
    """The class, generated sounds among the recorded ones."""
    return row.sound_class.removeprefix("generated ")


@cache
def _word(label: str) -> str:
    found = _SPOKEN.fullmatch(label)
    return found[1] if found else ""


def word_of(row: ManifestRow) -> str:
    """The one word (or short phrase) that is said in the clip, or nothing."""
    return _word(row.label)


@cache
def _voice(label: str, text: str) -> str:
    for said in (text, label):
        for voice in ("robot", "whisper"):
            if voice in said:
                return voice
        if _FEMALE.search(said):
            return "woman"
        if _MALE.search(said):
            return "man"
    return ""


def voice_of(row: ManifestRow) -> str:
    """Whose voice speaks: man, woman, robot, whisper, or unknown."""
    return _voice(row.label, row.text) if row.group == "speech" or row.sound_class == "whisper" else ""


def topic_of(row: ManifestRow) -> str:
    """A coarse kind that a question can pick a sound by, or nothing."""
    return _CLASS_TOPICS.get(kind_of(row), _GROUP_TOPICS.get(row.group, ""))


def is_there(name: str, rows: Iterable[ManifestRow]) -> bool | None:
    """Whether one of the clips holds what PRESENCES names; None: not known."""
    known = [PRESENCES[name].known(row) for row in rows]
    return True if any(known) else None if None in known else False


def aspects(facts: SceneFacts) -> list[Aspect]:
    """Everything that can be asked of a scene. Never empty."""
    found = [*_of_kind(facts), *_of_topics(facts.rows)]
    for name in PRESENCES:
        known = is_there(name, facts.rows)
        if known is not None:
            found.append(_closed(f"presence {name}", "yes" if known else "no"))
    if facts.loudness:
        found.append(_closed("loudness", facts.loudness))
    if facts.place:
        found.append(_closed("place", facts.place))
    spoken = [row for row in facts.rows if row.group == "speech"]
    if len(spoken) == 1:
        if word_of(spoken[0]):
            found.append(Aspect("word", content_of(spoken[0]), value=word_of(spoken[0])))
        if voice_of(spoken[0]):
            found.append(_closed("voice", voice_of(spoken[0])))
    return found


def _closed(name: str, value: str) -> Aspect:
    return Aspect(name, f"{name} {value}", value=value)


def _named(name: str, row: ManifestRow, other: ManifestRow | None = None) -> Aspect:
    return Aspect(name, content_of(row), row=row, other=other)


def _of_kind(facts: SceneFacts) -> list[Aspect]:
    rows = facts.rows
    if facts.kind == "layered":
        front, back = rows
        beside = [_named("besides", back, front), _named("besides", front, back)]
        return [_named("main", front), _named("background", back), *beside] if facts.told_apart else beside
    if facts.kind == "ordered":
        found = [_named("first", rows[0]), _named("last", rows[-1])]
        for before, after in pairwise(rows):
            found += [_named("after", after, before), _named("before", before, after)]
        return found
    found = [_named("main", rows[0])]
    if rows[0].group in ANSWERS["kind"]:
        found.append(_closed("kind", rows[0].group))
    if facts.kind == "counted":
        found.append(_closed("count", str(facts.count)))
    return found


def _of_topics(rows: tuple[ManifestRow, ...]) -> list[Aspect]:
    """Of several sounds, those whose topic no other has."""
    topics = [topic_of(row) for row in rows]
    return [
        Aspect(f"topic {topic}", content_of(row), row=row)
        for row, topic in zip(rows, topics, strict=True)
        if len(rows) > 1 and topic and topics.count(topic) == 1 and _is_safe(topic, rows)
    ]


def _is_safe(topic: str, rows: tuple[ManifestRow, ...]) -> bool:
    """Speech and music are asked for only where no other sound may hold some too."""
    return topic not in ("speech", "music") or sum(PRESENCES[topic].known(row) is not False for row in rows) == 1


def differ(one: Aspect, two: Aspect) -> bool:
    """Whether two questions have answers that cannot be taken for each other's."""
    return one.meaning != two.meaning and {one.name, two.name} not in ({"main", "word"}, {"main", "voice"})
