"""Training state on disk: everything the loop owns in one file, written aside and renamed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from audiosearch.errors import UsageError

STATE_FILE = "state.pt"


def save_state(directory: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint of `directory` in one step: a kill leaves the old or the new one, never half of one."""
    import torch

    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / f"{STATE_FILE}.part"
    with partial.open("wb") as out:
        torch.save(state, out)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(directory / STATE_FILE)


def load_state(directory: Path, recipe: dict[str, Any]) -> dict[str, Any] | None:
    """The state to resume from, or None when there is none.

    Raises:
        UsageError: the checkpoint is of another recipe, or cannot be read.
    """
    import torch

    file = directory / STATE_FILE
    if not file.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise UsageError(f"{file}: the checkpoint cannot be read ({error}); remove it to start again") from error
    if state["recipe"] != recipe:
        changed = sorted(key for key in recipe if state["recipe"].get(key) != recipe[key])
        raise UsageError(
            f"{directory}: holds a run of another recipe (changed: {', '.join(changed)}); choose another --out"
        )
    return state
