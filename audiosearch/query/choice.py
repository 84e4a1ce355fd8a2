"""Which space a query searches: only one that today's model and front end would make again can be compared with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from audiosearch.errors import LibraryEmpty, SpaceMismatch
from audiosearch.types import ModelDescription, Space, SpaceSpec

if TYPE_CHECKING:
    from audiosearch.store.store import Store

NOTHING_INGESTED = "nothing has been ingested yet: run `audiosearch ingest PATH`"


def choose_space(
    store: Store, describe: Callable[[str], ModelDescription], model: str | None, instruction: str | None
) -> Space:
    """The space to search: the aspect of that instruction if there is one, else the default one, or that of the `model`
    asked for. `describe` tells of a model by name.

    Raises LibraryEmpty or SpaceMismatch.
    """
    spaces = store.spaces()
    where = store.directory
    if not spaces:
        raise LibraryEmpty(f"{where}: {NOTHING_INGESTED}")
    plain = [space for space in spaces if not space.spec.is_aspect]
    preferred = next((space for space in plain if space.is_default), (plain or spaces)[0])
    name = model or preferred.spec.model_name
    description = describe(name)
    current = [space for space in spaces if _is_current(space.spec, description)]
    aspects = [space for space in current if space.spec.is_aspect]
    if instruction is not None:
        for space in reversed(aspects):  # the newest, should there be several windows
            if space.spec.document_instruction == instruction:
                return space
    searchable = [space for space in current if not space.spec.is_aspect]
    if searchable:
        return preferred if preferred in searchable else searchable[-1]
    if aspects:
        known = ", ".join(repr(space.spec.document_instruction) for space in aspects)
        raise LibraryEmpty(
            f"{where}: only aspects were ingested: run `audiosearch ingest PATH` without --instruct, "
            f"or query with --instruct and one of {known}"
        )
    if any(space.spec.model_name == description.name for space in spaces):
        raise SpaceMismatch(
            f"{where}: the model {name} or the way sound is read has changed since this library was made, so its "
            "vectors cannot be compared: run `audiosearch ingest` on the same folders again"
        )
    known = ", ".join(sorted({space.spec.model_name for space in spaces}))
    raise SpaceMismatch(
        f"{where}: nothing was ingested with the model {name}, only with {known}: "
        f"run `audiosearch ingest --model {name} PATH`, or query with --model {spaces[0].spec.model_name}"
    )


def _is_current(spec: SpaceSpec, description: ModelDescription) -> bool:
    """Whether ingesting today with that model, instruction, window and hop would add to this very space."""
    from audiosearch.model.fingerprint import space_spec

    instruction = spec.document_instruction if spec.is_aspect else None
    again = space_spec(
        description, instruction=instruction, window_seconds=spec.window_seconds, hop_seconds=spec.hop_seconds
    )
    return again.fingerprint == spec.fingerprint


def left_out_of_aspect(store: Store, space: Space) -> list[str]:
    """A note if the aspect was made of a part of the library only: what is not in it cannot be found."""
    with store.snapshot():
        status = store.status()
        held = next(
            found.recordings for each, found in zip(store.spaces(), status.spaces, strict=True) if each == space
        )
    if held >= status.recordings:
        return []
    return [
        f"{status.recordings - held} of {status.recordings} recordings were not ingested under this instruction nor "
        "searched: run `audiosearch ingest --instruct` on the rest too"
    ]
