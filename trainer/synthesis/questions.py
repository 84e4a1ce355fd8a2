"""The words of questions and of answers that are no description of a sound: data, no logic.

Held-out wordings (benchmarks/) must not come in here, word for word or nearly; tests/test_scene_texts.py compares.
`{x}` stands for a sound that the question names, `{n}` for a kind of sound.
"""

QUESTIONS: dict[str, tuple[str, ...]] = {
    "main": (
        "what is the main sound?",
        "main sound",
        "foreground sound",
        "what is loudest?",
        "what is in the foreground?",
        "the most prominent sound",
        "which sound is the loudest?",
        "what do you hear most clearly?",
        "the sound up front",
        "name the dominant sound",
        "what is closest to the microphone?",
        "the primary sound",
        "the loudest thing in the recording",
        "what can be heard above everything else?",
        "what is mainly heard?",
        "focus on the foreground",
    ),
    "background": (
        "what is in the background?",
        "background sounds",
        "background",
        "what can be heard behind the main sound?",
        "the quieter sound",
        "ambient sound in the background",
        "what is going on behind?",
        "which sound is softer?",
        "name the background noise",
        "what is the faintest sound?",
        "the sound underneath",
        "what is less loud?",
        "what lies behind the loudest sound?",
        "the secondary sound",
        "focus on the background",
        "what is heard more quietly?",
    ),
    "first": (
        "what comes first?",
        "the first sound",
        "what happens at the beginning?",
        "which sound starts?",
        "what is heard at the start?",
        "how does it begin?",
        "the opening sound",
        "which sound comes before the others?",
        "what do you hear first?",
        "the earliest sound",
        "the initial sound",
        "name the sound at the beginning",
        "what sets in first?",
    ),
    "last": (
        "what comes last?",
        "the last sound",
        "what happens at the end?",
        "which sound ends it?",
        "what is heard at the finish?",
        "how does it end?",
        "the closing sound",
        "which sound comes after the others?",
        "what do you hear last?",
        "the latest sound",
        "the final sound",
        "name the sound at the end",
        "what is heard finally?",
    ),
    "after": (
        "what comes after {x}?",
        "what follows {x}?",
        "what is heard once {x} is over?",
        "which sound comes next after {x}?",
        "{x}: and then?",
        "what happens right after {x}?",
        "the sound that follows {x}",
        "after {x}, what is heard?",
        "what do you hear following {x}?",
        "once {x} ends, what starts?",
        "which sound succeeds {x}?",
        "first {x}, and what next?",
    ),
    "before": (
        "what comes before {x}?",
        "what precedes {x}?",
        "what is heard until {x} starts?",
        "which sound comes just before {x}?",
        "what leads up to {x}?",
        "what happens right before {x}?",
        "the sound that precedes {x}",
        "before {x}, what is heard?",
        "what do you hear ahead of {x}?",
        "what is over when {x} starts?",
        "which sound is earlier than {x}?",
        "what was there prior to {x}?",
    ),
    "besides": (
        "what else is there besides {x}?",
        "apart from {x}, what can be heard?",
        "the sound that is not {x}",
        "other than {x}",
        "what accompanies {x}?",
        "anything but {x}?",
        "ignoring {x}, what is it?",
        "what can be heard together with {x}?",
        "leave out {x}: what remains?",
        "what is mixed with {x}?",
        "the other sound, next to {x}",
        "not {x} but the other one",
    ),
    "count": (
        "how many times?",
        "how many are there?",
        "count the sounds",
        "how often does it happen?",
        "how many repetitions?",
        "the number of events",
        "how many times does it sound?",
        "how many times is it heard?",
        "count them",
        "what is the number of repeats?",
        "how often is it repeated?",
        "once, twice or more often?",
        "how many in total?",
    ),
    "presence": (
        "is there {n}?",
        "do you hear {n}?",
        "can {n} be heard?",
        "{n} or no {n}?",
        "does it contain {n}?",
        "any sign of {n}?",
        "is {n} audible?",
        "{n}: yes or no?",
        "does {n} occur in it?",
        "with {n} or without?",
        "is {n} part of the recording?",
        "can {n} be made out?",
    ),
    "place": (
        "indoor or outdoor?",
        "is it inside or outside?",
        "was this recorded indoors or outdoors?",
        "in a room or in the open?",
        "which place is it, a room or open air?",
        "is the recording from indoors?",
        "indoors or outside?",
        "does it sound like a room?",
        "the setting: inside or outside",
        "was the microphone inside a building?",
        "under a roof or under the sky?",
        "the acoustics of the place",
    ),
    "word": (
        "which word is said?",
        "what word is spoken?",
        "what does the person say?",
        "the spoken word",
        "what is being said?",
        "name the word that is said",
        "which word do you hear?",
        "what is the word?",
        "what did they say?",
        "the word, whoever says it",
        "transcribe it",
        "what is uttered?",
        "the words spoken",
    ),
    "voice": (
        "who is speaking?",
        "which voice is it?",
        "whose voice is it?",
        "the voice",
        "what voice is that?",
        "identify the speaker",
        "who says it?",
        "which person talks?",
        "the speaker, whatever is said",
        "what does the speaker sound like?",
        "recognise the voice",
        "the one who talks",
    ),
    "loudness": (
        "is it loud or quiet?",
        "how loud is it?",
        "loud or quiet",
        "the loudness",
        "is the sound soft or strong?",
        "how strong is the sound?",
        "is it noisy or hushed?",
        "what is the volume like?",
        "the volume",
        "is it barely audible or deafening?",
        "how high is the level?",
        "does it sound loud?",
    ),
    "kind": (
        "what kind of sound is this?",
        "sound category",
        "what category of sound is it?",
        "what type of sound is it?",
        "which class does the sound belong to?",
        "in general, what is it?",
        "the broad category",
        "what sort of noise is it?",
        "the kind of sound",
        "what family of sounds is it from?",
        "roughly what is this?",
        "classify the sound",
    ),
    "topic": (
        "which {n} is it?",
        "what {n} can be heard?",
        "what {n} do you hear?",
        "name the {n}",
        "the {n}",
        "the {n} in this recording",
        "only the {n}",
        "listen for the {n}",
        "what is the {n}?",
        "focus on the {n}",
        "pay attention to the {n}",
        "tell me about the {n}",
    ),
}

# How questions call each topic of `facts.topic_of`.
TOPIC_NOUNS: dict[str, tuple[str, ...]] = {
    "speech": ("speech", "spoken words", "person talking"),
    "music": ("music", "instrument", "musical instrument"),
    "animal": ("animal", "creature", "animal sound"),
    "vehicle": ("vehicle", "means of transport", "vehicle sound"),
    "weather": ("weather", "kind of weather", "weather sound"),
    "water": ("water", "water sound", "liquid"),
    "human": ("human sound", "bodily sound", "sound made by a person"),
    "household": ("household sound", "household item", "domestic sound"),
    "tool": ("tool", "machine", "tool sound"),
    "weapon": ("weapon", "weapon sound", "sound of fighting"),
    "interface": ("electronic signal", "interface sound", "notification"),
    "impact": ("impact", "impact sound", "hit"),
}

# How each of `facts.PRESENCES` is called, and questions for it alone. The nouns fit "no" and "there is".
PRESENCE_NOUNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "speech": (
        ("speech", "talking", "spoken language"),
        (
            "does anyone speak?",
            "is someone talking?",
            "is someone speaking?",
            "is anybody saying something?",
            "are there words in it?",
            "is something being said?",
        ),
    ),
    "music": (
        ("music", "instrumental sound"),
        (
            "does any instrument play?",
            "is music playing?",
            "is a musical instrument heard?",
            "are there musical notes?",
            "is someone playing an instrument?",
            "is it musical?",
        ),
    ),
    "vehicle": (
        ("engine noise", "vehicle noise", "traffic noise"),
        ("is there a vehicle?", "does an engine run?", "is a vehicle or an engine heard?", "is something driving?"),
    ),
    "wind": (("wind", "blowing wind"), ("does the wind blow?", "is it windy?", "is the wind up?")),
    "rain": (("rain", "rainfall", "falling rain"), ("is it raining?", "does it rain?", "is it wet outside?")),
    "water": (("water", "moving water", "sound of water"), ("is water moving?", "does water run?")),
    "animal": (("animal noise", "animal sound"), ("is there an animal?", "does an animal call?", "any animals?")),
}

ANSWERS: dict[str, dict[str, tuple[str, ...]]] = {
    "count": {
        "1": ("once", "one time", "a single time", "just once", "it happens once"),
        "2": ("twice", "two times", "2 times", "a pair of them", "it happens twice"),
        "3": ("three times", "3 times", "three of them", "it happens three times", "three in total"),
        "4": ("four times", "4 times", "four of them", "it happens four times", "four in total"),
        "5": ("five times", "5 times", "five of them", "it happens five times", "five in total"),
    },
    "presence": {
        "yes": ("yes, {n}", "there is {n}", "{n} can be heard", "yes, there is {n}", "with {n}"),
        "no": ("no {n}", "there is no {n}", "no {n} can be heard", "no, there is no {n}", "without {n}"),
    },
    "place": {
        "indoor": ("indoors", "inside a room", "an indoor recording", "inside a building", "in a closed space"),
        "outdoor": ("outdoors", "outside", "an outdoor recording", "in the open air", "out in the open"),
    },
    "loudness": {
        "loud": ("loud", "very loud", "a loud sound", "it is loud", "at high volume", "deafening"),
        "quiet": ("quiet", "very quiet", "a quiet sound", "it is quiet", "at low volume", "barely audible"),
    },
    "word": {"": ("{x}", "the word {x}", "someone says {x}", "they say {x}", "a voice saying {x}")},
    "voice": {
        "man": ("a man", "a man's voice", "a male voice", "a male speaker"),
        "woman": ("a woman", "a woman's voice", "a female voice", "a female speaker"),
        "robot": ("a robot", "a robotic voice", "a synthetic voice", "a machine speaking"),
        "whisper": ("someone whispering", "a whispering voice", "a hushed voice", "a whisper"),
    },
    "kind": {
        "animals": ("an animal sound", "sounds of animals", "an animal", "a creature's voice"),
        "nature": ("a sound of nature", "natural environment", "nature", "the elements"),
        "vehicles": ("a vehicle", "sounds of transport and vehicles", "transport", "something that drives or flies"),
        "human": (
            "a human sound without words",
            "sounds people make",
            "a sound of the human body",
            "a person, no words",
        ),
        "domestic": ("a household sound", "sounds inside a home", "something in the house", "a domestic sound"),
        "music": ("music", "a musical instrument", "a musical sound", "an instrument"),
        "speech": ("speech", "a person talking", "spoken language", "a speaking voice"),
        "impacts": ("an impact sound", "something being hit", "a knock or a hit", "objects striking each other"),
        "tools": ("a tool or machine", "sounds of tools", "machinery", "something for working with"),
        "ui": ("a user interface sound", "an electronic notification", "a computer sound", "a sound of an app"),
        "weapons": ("a weapon", "sounds of weapons", "fighting or explosions", "arms"),
    },
}


def every_question() -> tuple[str, ...]:
    """Each wording that asks the same of every scene; those that name a sound themselves are left out."""
    found = [text for texts in QUESTIONS.values() for text in texts if "{" not in text]
    found += [text.format(n=noun) for nouns in TOPIC_NOUNS.values() for noun in nouns for text in QUESTIONS["topic"]]
    for nouns, more in PRESENCE_NOUNS.values():
        found += [*more, *(text.format(n=noun) for noun in nouns for text in QUESTIONS["presence"])]
    return tuple(dict.fromkeys(found))


def closed_answers() -> dict[str, tuple[str, ...]]:
    """The ways to say each answer of the questions that have few, by what it means (`facts.Aspect.meaning`)."""
    found = {}
    for name, answers in ANSWERS.items():
        for value, texts in answers.items():
            if name == "presence":
                for noun, (nouns, _) in PRESENCE_NOUNS.items():
                    found[f"presence {noun} {value}"] = tuple(text.format(n=n) for text in texts for n in nouns)
            elif value:
                found[f"{name} {value}"] = texts
    return found


def every_answer() -> tuple[str, ...]:
    """Each answer that is not said of one sound."""
    found = [text for group in ANSWERS.values() for texts in group.values() for text in texts if "{" not in text]
    for nouns, _ in PRESENCE_NOUNS.values():
        found += [text.format(n=noun) for texts in ANSWERS["presence"].values() for text in texts for noun in nouns]
    return tuple(dict.fromkeys(found))
