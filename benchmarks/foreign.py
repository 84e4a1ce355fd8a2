"""What alm2vec-mini makes of collections that it never heard: the recipe cut short, without them, judged on them.

    python benchmarks/foreign.py --out DIR [--text-steps 1000] [--sound-steps 300] [--steps 1500] [--cache DIR]
                                 [--set KEY=VALUE]... [--data DIR] [--json FILE]

Trains the stages `text`, `sound` and `held-out` of the recipe `mini` on the `train` rows of all but three collections,
two of foley and one of music: neither their sounds nor their captions are there, and all three are left out at once,
which is harder than each in turn. Then asks for their names as `mini_quality.py --only held-out` does: over all `valid`
clips, where twice what mel statistics find is the floor, and over all rows of each collection alone, which says more,
as there are more of them.

`--set` changes the recipe, to try what helps: `--set scratch.mix.augment=0.5`; `--set precision=bfloat16` on a CPU that
computes with it: half an hour on two such cores. A run that was stopped goes on in `DIR`; `--cache` is the `cache`
folder of another run, which saves ten minutes.

Exit code 0 if the floors are reached, 1 if one is missed, 2 without data.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from quality import data
from quality.figures import Figure, markdown
from quality.held_out import HeldOut, held_out_figures
from quality.short_training import cut, trained

from audiosearch.config import wait_passively

COLLECTIONS = ("Fris0uman/CDDA-Soundpacks", "openclonk/openclonk", "adewale/keyboardia")
NO_DATA = 2


def recipe_of(text_steps: int, sound_steps: int, steps: int) -> dict[str, Any]:
    """The recipe `mini` up to its stage `held-out`, which ends here, of data without the collections."""
    recipe = cut(
        {
            "text": {"steps": text_steps},
            "sound": {"steps": sound_steps, "without": []},
            "held-out": {"steps": steps, "without": [], "final_learning_rate": 1.0e-5},
        }
    )
    (source,) = recipe["data"]["sources"]
    source["options"]["without"] = list(COLLECTIONS)
    return recipe


def judged(model: Path, folder: Path) -> dict[str, list[Figure]]:
    """The figures of a model over `valid` rows and over all rows of each collection."""
    models, clips = [HeldOut(str(model), source) for source in COLLECTIONS], data.read_clips(folder)
    found = {}
    for rows in ("valid", "all"):
        with tempfile.TemporaryDirectory() as place:
            found[rows] = held_out_figures(models, None, clips, Path(place), rows)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the run lives")
    parser.add_argument("--text-steps", type=int, default=1000)
    parser.add_argument("--sound-steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="put over the recipe")
    parser.add_argument("--cache", type=Path, metavar="DIR")
    parser.add_argument("--data", metavar="DIR", help="the folder that holds manifest.csv")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    folder = data.data_folder(options.data)
    if not (folder / "manifest.csv").is_file():
        print(f"skipped: {folder} has no manifest.csv: name the folder in AUDIOSEARCH_DATA or --data", file=sys.stderr)
        return NO_DATA
    wait_passively()
    recipe = recipe_of(options.text_steps, options.sound_steps, options.steps)
    found = judged(trained(recipe, options.out, folder, options.cache, options.set), folder)
    for rows, figures in found.items():
        print(f"{rows} rows\n\n{markdown(figures)}\n")
    if options.json:
        results = {rows: [each.to_json() for each in figures] for rows, figures in found.items()}
        options.json.write_text(json.dumps({"set": options.set, "figures": results}, indent=2) + "\n", encoding="utf-8")
    return 1 if any(each.is_missed for each in found["valid"]) else 0


if __name__ == "__main__":
    sys.exit(main())
