"""The recipe `mini` cut short, for benchmarks that train a model of their own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml


def cut(stages: Mapping[str, Mapping[str, Any]], **changes: Any) -> dict[str, Any]:
    """The recipe with these stages alone, in this order, and what is changed of each; `changes` of the whole."""
    from audiosearch.trainer.recipe import find_recipe

    path = find_recipe("mini")
    recipe: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    known = {stage["name"]: stage for stage in recipe["stages"]}
    recipe["stages"] = [known[name] | dict(changed) for name, changed in stages.items()]
    recipe["scratch"]["phrases"] = str(path.parent / recipe["scratch"]["phrases"])
    return recipe | changes


def trained(
    recipe: Mapping[str, Any], folder: Path, data: Path, cache: Path | None = None, overrides: Iterable[str] = ()
) -> Path:
    """Train in `folder`, going on where a run of the same recipe was stopped: the model's directory.

    Args:
        cache: packed features, tokenizer and teacher's vectors, shared by runs; None: the folder's own.
        overrides: `key=value`, put over the recipe.

    Raises what `audiosearch.trainer.loop.train` does.
    """
    os.environ["AUDIOSEARCH_DATA"] = str(data)  # which the recipe names
    from audiosearch.trainer.loop import train

    folder.mkdir(parents=True, exist_ok=True)
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
        if not (folder / "cache").exists():
            (folder / "cache").symlink_to(cache.resolve())
    written = folder / "recipe.yaml"
    written.write_text(yaml.safe_dump(dict(recipe), sort_keys=False), encoding="utf-8")
    return train(str(written), str(folder), resume=True, overrides=overrides)
