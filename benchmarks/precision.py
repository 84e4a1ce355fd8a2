"""How much faster alm2vec-mini trains in bfloat16 than in float32 on this machine, and whether it learns the same.

    python benchmarks/precision.py [--steps 20] [--rounds 2] [--cache DIR] [--data DIR] [--json FILE]

Steps of the stage `joint` of the recipe `mini` from the same first weights, the two precisions taking turns; the first
half of each run is not counted. Only a CPU that computes with bfloat16 (avx512_bf16, amx_bf16) is faster by it. Without
`--cache`, the `cache` folder of another run, the features are packed first: ten minutes. Exit code 2 without data.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from quality.data import data_folder
from quality.short_training import cut, trained

from audiosearch.config import wait_passively

PRECISIONS = ("float32", "bfloat16")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cache", type=Path, metavar="DIR")
    parser.add_argument("--data", metavar="DIR", help="the folder that holds manifest.csv")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    data = data_folder(options.data)
    if not (data / "manifest.csv").is_file():
        print(f"skipped: {data} has no manifest.csv: name the folder in AUDIOSEARCH_DATA or --data", file=sys.stderr)
        return 2
    wait_passively()
    recipe = cut({"joint": {"steps": 2 * options.steps}}, log_every_steps=options.steps, checkpoint_every_steps=100_000)
    speeds: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    losses: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as place:
        cache = options.cache or Path(place, "cache")
        for number in range(options.rounds):
            for precision in PRECISIONS:
                folder = Path(place, f"{precision}-{number}")
                trained(recipe, folder, data, cache, [f"precision={precision}"])
                last = json.loads((folder / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
                speeds[precision].append(last["samples_per_second"])
                losses[precision] = last["loss"]
    ratio = statistics.median(speeds["bfloat16"]) / statistics.median(speeds["float32"])
    for precision, found in speeds.items():
        shown = ", ".join(f"{speed:.0f}" for speed in found)
        print(f"{precision}: {shown} pairs a second, loss {losses[precision]:.3f} after {2 * options.steps} steps")
    print(f"bfloat16 trains {ratio:.2f} times as fast")
    if options.json:
        content = {"samples_per_second": speeds, "loss": losses, "ratio": ratio}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
