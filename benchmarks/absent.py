"""Whether an answer can say that nothing is there: queries for what no `valid` clip holds, and for what one does.

    python benchmarks/absent.py [--model NAME_OR_DIR] [--device D] [--data DIR] [--library DIR] [--tune-on PART]...
                                [--json FILE]

The library is the `valid` clips. Present are ESC-50's class names, every label of three clips or more and the
paraphrases of `paraphrases.json`; absent the queries of `absent.json`. What scores are compared with (`impostors.txt`)
holds no word of `absent.json` or of an ESC-50 name (checked below).

For each way of scoring a threshold is set on half of the queries so that it keeps 90 % of the true hits of that half,
and judged on the other half, over 200 random halves. True hits are counted in two ways: the best true hit of every
present query, which a model that ranks it low loses; and the first hits that are right.

    raw         the score
    centred     less the mean of the query's scores over the library
    z-norm      also divided by their deviation
    t-norm      the same over the bank's scores with the hit
    s-norm      the sum of both
    as-norm     s-norm with the 50 nearest of the bank and of the library
    confidence  ours: audiosearch/query/confidence.py

Then the confidence as it is, without a threshold that was set on anything: what `--min-confidence` keeps and lets pass.
For sounds as examples the absent queries are clips with all clips of their class hidden.

`--tune-on "fold 4" --tune-on openclonk/openclonk` judges on `train` clips that a model was trained without (as in
mini_quality.py), and takes half of the ESC-50 names away as absent; what was decided was decided there.

Exit code 0 if at most 10 % of the absent queries get an answer at 90 % of the right first hits kept, 1 if not, 2
without data.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from quality import data
from quality.data import Clip
from quality.retrieval import SEED, frequent_labels, ingest

from audiosearch import Library
from audiosearch.config import DEFAULT_MODEL
from audiosearch.errors import AudioSearchError
from audiosearch.query import confidence
from audiosearch.query.confidence import AUDIO_QUERY, TEXT_QUERY, Background

NO_DATA = 2
KEPT, LET_PASS = 0.9, 0.1
HALVES = 200
SETTINGS = (0.5, 0.8, 0.9, 0.95, 0.99)
NEAREST = 50  # of as-norm
# Words that are in no class of sound.
EMPTY_WORDS = {*data.SMALL_WORDS, "being", "with", "its", "over", "from", "by", "up", "off", "for", "going"}

Table = NDArray[np.float64]  # (queries, clips)


@dataclass(frozen=True)
class Asked:
    """Vectors of the library's clips and of queries, and which clip is right for which present query."""

    clips: NDArray[np.float32]
    present: NDArray[np.float32]
    right: NDArray[np.bool_]
    absent: NDArray[np.float32]
    background: Background


@dataclass(frozen=True)
class Reached:
    """One line of the table: shares, means over the halves; `low` and `high` are where 95 % of the halves lie."""

    scoring: str
    true_hits: str
    kept: float
    passed: float
    low: float
    high: float
    auc: float


def main() -> int:
    options = options_of()
    folder = data.data_folder(options.data)
    if not (folder / "manifest.csv").is_file():
        print(f"skipped: {folder} has no manifest.csv: name the folder in AUDIOSEARCH_DATA or --data", file=sys.stderr)
        return NO_DATA
    clips = data.read_clips(folder)
    for line in shared_with_the_judge(clips):
        print(f"error: not apart: {line}", file=sys.stderr)
        return 1
    hidden: set[str] = set()
    if options.tune_on:
        clips = data.judged_on(clips, options.tune_on)
        names = sorted({clip.label for clip in clips if clip.split == "valid" and clip.is_esc})
        hidden = set(np.random.default_rng(SEED).permutation(names)[: len(names) // 2])
    valid = [clip for clip in clips if clip.split == "valid" and clip.label not in hidden]
    try:
        with ExitStack() as stack:
            place = options.library or stack.enter_context(tempfile.TemporaryDirectory())
            library = Library.open(Path(place, "absent"), create=True, model=options.model, device=options.device)
            stack.enter_context(library)
            if library.status().recordings < len(valid):
                ingest(library, valid)
            asked, audio = embed(library, options, valid, sorted(hidden))
    except AudioSearchError as error:
        print(f"absent: {error}", file=sys.stderr)
        return NO_DATA
    return report(options, asked, audio)


def embed(
    library: Library, options: argparse.Namespace, clips: Sequence[Clip], hidden: Sequence[str]
) -> tuple[Asked, dict[str, NDArray[np.float64]]]:
    """The queries' vectors beside the library's; and the confidences of example queries, present and absent."""
    from audiosearch.embed import load_embedder
    from audiosearch.index_cache import open_index
    from audiosearch.store.store import Store

    embedder = load_embedder(options.model, device=options.device)
    with Store.open(library.directory) as store, store.snapshot():
        space = store.default_space()
        assert space is not None
        index = open_index(store, space)
        index.refresh()
        folder = Path(library.directory, "indexes", space.spec.fingerprint)
        background = confidence.of_space(store, index, folder, embedder.embed_text, save=False)
        ids = store.changes_since(space.id, 0).added_ids
        vectors = store.vectors(space.id, ids)
        at = {path: i for i, chunk in enumerate(store.resolve(ids)) for path in (str(Path(*chunk.paths[0])),)}
    order = [at[clip.path] for clip in clips]
    vectors = vectors[order]
    labels = np.array([clip.label for clip in clips])
    esc = frequent_labels([clip for clip in clips if clip.is_esc], 1)
    named = list(dict.fromkeys([*esc, *frequent_labels(clips)]))
    texts = [(name, name) for name in named]
    if not hidden:
        texts += [(each["text"], each["label"]) for each in data.read_paraphrases()]
    absent = list(hidden) or data.read_absent()
    rows = embedder.embed_text([text for text, _ in texts] + absent)
    right = np.array([labels == label for _, label in texts])
    texts_asked = Asked(vectors, rows[: len(texts)], right, rows[len(texts) :], background)
    return texts_asked, examples(texts_asked, clips)


def examples(asked: Asked, clips: Sequence[Clip]) -> dict[str, NDArray[np.float64]]:
    """Confidences of the first hits of ESC-50 clips as examples: `present` among all other recordings where that hit is
    of the same label, and `absent` with every clip of its class hidden."""
    esc = [i for i, clip in enumerate(clips) if clip.is_esc]
    scores = asked.clips[esc] @ asked.clips.T
    same = np.array([[clips[i].label == other.label for other in clips] for i in esc])
    kin = np.array([[clips[i].family == other.family for other in clips] for i in esc]) | (scores > 0.9999)
    akin = np.array([[clips[i].sound_class == other.sound_class for other in clips] for i in esc])
    kin[np.arange(len(esc)), esc] = True
    found = {}
    for name, left_out in (("present", kin), ("absent", kin | same | akin)):
        kept = np.where(left_out, -np.inf, scores)
        best = kept.argmax(axis=1)
        sure = np.array(
            [
                asked.background.judge(asked.clips[i], [row.max()], AUDIO_QUERY).confidence[0]
                for i, row in zip(esc, kept, strict=True)
            ]
        )
        found[name] = sure[same[np.arange(len(esc)), best]] if name == "present" else sure
    return found


# -- ways of scoring -----------------------------------------------------------------------------------------------


def raw(queries: NDArray[np.float32], asked: Asked) -> Table:
    return (queries @ asked.clips.T).astype(np.float64)


def centred(queries: NDArray[np.float32], asked: Asked) -> Table:
    scores = raw(queries, asked)
    return scores - scores.mean(axis=1, keepdims=True)


def z_norm(queries: NDArray[np.float32], asked: Asked) -> Table:
    return centred(queries, asked) / raw(queries, asked).std(axis=1, keepdims=True)


def t_norm(queries: NDArray[np.float32], asked: Asked) -> Table:
    bank = raw(asked.background.texts, asked)
    return (raw(queries, asked) - bank.mean(axis=0)) / bank.std(axis=0)


def s_norm(queries: NDArray[np.float32], asked: Asked) -> Table:
    return z_norm(queries, asked) + t_norm(queries, asked)


def as_norm(queries: NDArray[np.float32], asked: Asked) -> Table:
    scores, bank = raw(queries, asked), np.sort(raw(asked.background.texts, asked), axis=0)[-NEAREST:]
    near = np.sort(scores, axis=1)[:, -NEAREST:]
    by_query = (scores - near.mean(axis=1, keepdims=True)) / near.std(axis=1, keepdims=True)
    return by_query + (scores - bank.mean(axis=0)) / bank.std(axis=0)


def ours(queries: NDArray[np.float32], asked: Asked) -> Table:
    judged = (asked.background.judge(query, row) for query, row in zip(queries, raw(queries, asked), strict=True))
    return np.array([-np.log(each.false_alarm_rate) for each in judged])  # 1 minus a small rate would round


SCORINGS: dict[str, Callable[[NDArray[np.float32], Asked], Table]] = {
    "raw": raw,
    "centred": centred,
    "z-norm": z_norm,
    "t-norm": t_norm,
    "s-norm": s_norm,
    "as-norm": as_norm,
    "confidence": ours,
}


def true_hits(asked: Asked) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(queries, clips) of the true hits, counted in each way; ranks are those of the raw scores in every scoring."""
    scores = raw(asked.present, asked)
    best, first = np.where(asked.right, scores, -np.inf).argmax(axis=1), scores.argmax(axis=1)
    every = np.arange(len(scores))
    found = asked.right[every, first]
    return {"best true hit": (every, best), "right first hit": (every[found], first[found])}


def reached(asked: Asked) -> list[Reached]:
    """The table: every scoring for every way of counting true hits."""
    lines = []
    for name, scoring in SCORINGS.items():
        present = scoring(asked.present, asked)
        first = raw(asked.absent, asked).argmax(axis=1)
        absent = scoring(asked.absent, asked)[np.arange(len(first)), first]
        for how, (rows, columns) in true_hits(asked).items():
            true = present[rows, columns]
            lines.append(Reached(name, how, *over_halves(true, absent), float((true[:, None] > absent).mean())))
    return lines


def over_halves(true: NDArray[np.float64], absent: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """(kept, let pass, low, high) where the threshold was not set."""
    rng = np.random.default_rng(SEED)
    found = []
    for _ in range(HALVES):
        order, other = rng.permutation(len(true)), rng.permutation(len(absent))[: len(absent) // 2]
        threshold = np.quantile(true[order[: len(order) // 2]], 1 - KEPT)
        found.append([(true[order[len(order) // 2 :]] >= threshold).mean(), (absent[other] >= threshold).mean()])
    kept, passed = np.array(found).T
    low, high = np.quantile(passed, (0.025, 0.975))
    return float(kept.mean()), float(passed.mean()), float(low), float(high)


# -- report --------------------------------------------------------------------------------------------------------


def shared_with_the_judge(clips: Sequence[Clip]) -> list[str]:
    """Texts of the bank with a word of an absent query or of an ESC-50 name."""
    judge = [*data.read_absent(), *sorted({clip.label for clip in clips if clip.is_esc})]
    return [
        f"{text!r} shares {word!r} with {query!r}"
        for text in confidence.bank()
        for query in judge
        for word in data.shared_words(text, query)
        if word not in EMPTY_WORDS
    ]


def settings_table(true: NDArray[np.float64], absent: NDArray[np.float64]) -> list[str]:
    lines = ["| `--min-confidence` | true hits kept | absent queries answered | it says |", "|---|---|---|---|"]
    for least in SETTINGS:
        kept, passed = (true >= least).mean(), (absent >= least).mean()
        lines.append(f"| {least:g} | {kept:.1%} | {passed:.1%} | {1 - least:.0%} |")
    return lines


def report(options: argparse.Namespace, asked: Asked, audio: dict[str, NDArray[np.float64]]) -> int:
    """Print the tables; the exit code."""
    lines = reached(asked)
    print(
        f"{Path(options.model).name}: {len(asked.clips)} clips, {len(asked.present)} present and {len(asked.absent)} "
        f"absent queries, a bank of {len(asked.background.texts)}\n"
    )
    print("| scoring | true hits | kept | absent answered | 95 % of halves | AUC |\n|---|---|---|---|---|---|")
    for each in sorted(lines, key=lambda line: line.true_hits):
        print(
            f"| {each.scoring} | {each.true_hits} | {each.kept:.1%} | {each.passed:.1%} "
            f"| {each.low:.0%} - {each.high:.0%} | {each.auc:.3f} |"
        )
    every = np.arange(len(asked.absent))
    absent = 1 - np.exp(-ours(asked.absent, asked)[every, raw(asked.absent, asked).argmax(axis=1)])
    present = 1 - np.exp(-ours(asked.present, asked))
    for how, (rows, columns) in true_hits(asked).items():
        print(f"\nText, {how} ({len(rows)}):\n\n" + "\n".join(settings_table(present[rows, columns], absent)))
    counts = f"{len(audio['present'])} right first hits, {len(audio['absent'])} with their class hidden"
    print(f"\nExample sounds ({counts}):\n\n" + "\n".join(settings_table(audio["present"], audio["absent"])))
    null = asked.background.nulls[TEXT_QUERY]
    print(f"\nslope {null.slope:.2f}, {len(null.tops)} of {len(asked.background.texts)} impostors counted")
    if options.json:
        content = {"model": options.model, "table": [asdict(each) for each in lines]}
        Path(options.json).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    final = next(each for each in lines if (each.scoring, each.true_hits) == ("confidence", "right first hit"))
    return 0 if final.passed <= LET_PASS else 1


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME_OR_DIR")
    parser.add_argument("--device")
    parser.add_argument("--data", metavar="DIR", help="the folder that holds manifest.csv")
    parser.add_argument("--library", metavar="DIR", help="keep the library there, for another run")
    parser.add_argument("--tune-on", action="append", default=[], metavar="PART")
    parser.add_argument("--json", metavar="FILE", help="write the table there too")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
