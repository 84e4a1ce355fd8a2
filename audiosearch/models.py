"""Where models come from, and those that a library has in use: each is described, and loaded, once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from audiosearch.config import Settings
from audiosearch.errors import SpaceMismatch
from audiosearch.types import ModelDescription, Space

if TYPE_CHECKING:
    from audiosearch.embed.base import AudioTextEmbedder


@dataclass(frozen=True, slots=True)
class Models:
    """Where models come from; tests put a hand-computed one here. `describe(name)` must not need torch;
    `load(name, device=..., dtype=...)` gives the embedder; `other_devices(device)` says where else an ingest may load
    it when `device` is what the user asked for."""

    describe: Callable[[str], ModelDescription]
    load: Callable[..., AudioTextEmbedder]
    other_devices: Callable[[str | None], Sequence[str]] = lambda device: ()


def installed_models() -> Models:
    def describe(name: str) -> ModelDescription:
        from audiosearch.model.fingerprint import describe_model

        return describe_model(name)

    def load(name: str, *, device: str | None, dtype: str | None) -> AudioTextEmbedder:
        from audiosearch.embed import load_embedder

        return load_embedder(name, device=device, dtype=dtype)

    def other_devices(device: str | None) -> Sequence[str]:
        from audiosearch.embed.batching import other_devices

        return other_devices(device)

    return Models(describe, load, other_devices)


class OpenModels:
    """The models that one library has in use. Any number of threads may use it."""

    def __init__(self, models: Models, settings: Settings) -> None:
        self._models = models
        self._settings = settings
        self._opening = threading.RLock()  # held to load what is not there yet
        self._embedders: dict[tuple[str, str | None], AudioTextEmbedder] = {}  # by fingerprint and device
        self._descriptions: dict[str, ModelDescription] = {}

    def describe(self, name: str) -> ModelDescription:
        """What the model `name` is. Once per model: the weights are hashed for it. One that is replaced meanwhile
        counts for the next library that is opened."""
        with self._opening:
            if name not in self._descriptions:
                self._descriptions[name] = self._models.describe(name)
            return self._descriptions[name]

    def embedder(self, name: str, fingerprint: str, device: str | None = None) -> AudioTextEmbedder:
        """The model `name`, loaded once a device, for any thread. Raises SpaceMismatch if it is not the one that
        `fingerprint` names."""
        with self._opening:
            key = fingerprint, device
            if key not in self._embedders:
                from audiosearch.embed.shared import one_at_a_time

                device, dtype = device or self._settings.device, self._settings.dtype
                embedder = self._models.load(name, device=device, dtype=dtype)
                if embedder.fingerprint != fingerprint:
                    raise SpaceMismatch(
                        f"the model {name} is not the one whose vectors are stored (it has changed since): "
                        "run `audiosearch ingest` on the same folders again"
                    )
                self._embedders[key] = one_at_a_time(embedder)
            return self._embedders[key]

    def embedder_of(self, space: Space) -> AudioTextEmbedder:
        """The model of a space, by the name asked for: the same weights may have another name on this machine than
        where they were ingested."""
        return self.embedder(self._settings.model or space.spec.model_name, space.spec.model_fingerprint)

    def further_loads(self, description: ModelDescription) -> list[Callable[[], AudioTextEmbedder]]:
        """How to load the model on each further device that an ingest may use."""
        devices = self._models.other_devices(self._settings.device)
        return [partial(self.embedder, description.name, description.fingerprint, device) for device in devices]

    def close(self) -> None:
        """Let go of the models."""
        self._embedders.clear()
