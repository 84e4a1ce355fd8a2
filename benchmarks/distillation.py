"""What the sentence teacher buys: alm2vec-mini trained a little with it and without, on names and paraphrases.

    python benchmarks/distillation.py [--text-steps 500] [--steps 300] [--data DIR] [--cache DIR] [--json FILE]

Both arms are the recipe `mini` cut short: its stage `sound` without ESC-50 fold 4, as many batches drawn alike.

    taught    before it the stage `text`, the teacher's terms beside the paper's loss
    plain     the paper's loss alone

The token embeddings begin at the teacher's view of each token in both, which favours `plain`. Asked of fold 4, by
`mini_quality.py --only texts`: the class names, which were captions in training, and paraphrases that share no word
with them. Half an hour on two cores and 1 GB of disk; `--cache` keeps the packed features. Exit code 2 without data.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from quality.data import data_folder
from quality.short_training import cut, trained

from audiosearch.config import wait_passively

HELD_OUT = "fold 4"
FIGURES = ("esc_p1", "esc_map", "paraphrase_p1", "paraphrase_map", "paraphrase_ratio")
PLAIN = {"text_teacher": 0.0, "label_bank": 0.0}


def recipe_of(*, taught: bool, text_steps: int, steps: int) -> dict[str, Any]:
    """The recipe `mini` with one or two stages."""
    sound = {"sound": {"steps": steps, "without": [HELD_OUT], "final_learning_rate": 1.0e-5}}
    recipe = cut({"text": {"steps": text_steps}} | sound if taught else sound, checkpoint_every_steps=10_000)
    if not taught:
        recipe["scratch"] |= PLAIN
    return recipe


def judged(model: Path, data: Path, folder: Path) -> dict[str, float]:
    """The figures of a model, by their keys."""
    out = folder / "figures.json"
    script = Path(__file__).with_name("mini_quality.py")
    options = ["--model", model, "--data", data, "--only", "texts", "--tune-on", HELD_OUT, "--json", out]
    subprocess.run([sys.executable, script, *options], check=False, stdout=subprocess.DEVNULL)  # 1: a floor is missed
    figures = json.loads(out.read_text(encoding="utf-8"))["figures"]
    return {each["key"]: each["value"] for each in figures if each["key"] in FIGURES}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text-steps", type=int, default=500)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--data", metavar="DIR", help="the folder that holds manifest.csv")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="the `cache` folder of a run of `mini`, or a new one")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    data = data_folder(options.data)
    if not (data / "manifest.csv").is_file():
        print(f"skipped: {data} has no manifest.csv: name the folder in AUDIOSEARCH_DATA or --data", file=sys.stderr)
        return 2
    wait_passively()
    results = {}
    with tempfile.TemporaryDirectory() as place:
        cache = options.cache or Path(place, "cache")
        for arm in ("taught", "plain"):
            recipe = recipe_of(taught=arm == "taught", text_steps=options.text_steps, steps=options.steps)
            folder = Path(place, arm)
            results[arm] = judged(trained(recipe, folder, data, cache), data, folder)
            print(arm, json.dumps({key: round(value, 3) for key, value in results[arm].items()}), flush=True)
    if options.json:
        options.json.write_text(json.dumps(vars(options) | {"results": results}, indent=2, default=str) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
