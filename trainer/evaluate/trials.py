"""Vectors of the same items under many prompt templates, at little more than the price of one.

    clip ──encoder, projector──> audio tokens        once a clip: no template touches them
    body ──decoder──> keys and values                once for all templates that differ only in what follows the content
     └── tail ──decoder, pooling──> vector           a few tokens: newline, header, EOS

A body is everything up to the `<|im_end|>` of the user turn. With the 7B this is what makes trying every template
affordable: of some 128 templates an item has at most eight bodies.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from audiosearch import features
from audiosearch.audio import read_span
from audiosearch.errors import MediaError, UsageError
from audiosearch.model.alm2vec import Alm2VecModel
from audiosearch.model.assembly import SharedPrefix
from audiosearch.model.decoder import CACHE
from audiosearch.model.pooling import pool_final_eos, unit_rows
from audiosearch.model.projector import n_audio_tokens
from audiosearch.model.prompt import PromptEncoder
from audiosearch.model.spec import PromptTemplate
from audiosearch.trainer.evaluate.encoder import Clip, Dropped, Item, Progress, no_progress
from audiosearch.trainer.evaluate.goldens import Vector
from audiosearch.types import Samples

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sounds:
    """Mono samples at 16 kHz of each clip that could be read; `cut` were longer than the model takes."""

    samples: dict[Clip, Samples]
    dropped: tuple[Dropped, ...]
    cut: tuple[str, ...]


def read_clips(items: Iterable[Item], max_seconds: float, progress: Progress = no_progress) -> Sounds:
    """The sound of `items`, each clip once, cut off at `max_seconds`: as `encoder.encode` reads it."""
    clips = list(dict.fromkeys(item.clip for item in items if item.clip is not None))
    found: dict[Clip, Samples] = {}
    dropped, cut = [], []
    longest = round(max_seconds * features.SAMPLE_RATE)
    for done, clip in enumerate(clips, 1):
        try:
            samples = read_span(clip.path, clip.start_seconds, clip.end_seconds)
        except MediaError as error:
            dropped.append(Dropped(clip.path, error.cause, error.detail))
        except UsageError as error:
            dropped.append(Dropped(clip.path, "span", str(error).removeprefix(f"{clip.path}: ")))
        else:
            if len(samples) > longest:
                cut.append(clip.path)
            found[clip] = samples[:longest]
        progress(done, len(clips))
    return Sounds(found, tuple(dropped), tuple(cut))


def with_template(prompts: PromptEncoder, template: PromptTemplate) -> PromptEncoder:
    """A prompt encoder with another template; the tokenizer, slow to read, is shared."""
    other = copy.copy(prompts)
    other.template = template
    return other


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids of one item under one template, cut where templates part. Equal values have equal vectors."""

    clip: Clip | None
    body: Ids
    tail: Ids


class TemplateTrials:
    """The vectors that one model gives to items under any template.

    Args:
        model, prompts: as `audiosearch.model.weights.load` gives them.
        clips: mono samples at 16 kHz, each at most as long as the model takes.
    """

    def __init__(self, model: Alm2VecModel, prompts: PromptEncoder, clips: Mapping[Clip, Samples]) -> None:
        self._model = model.eval()
        self._prompts = prompts
        self._clips = clips
        self._tokens: dict[Clip, Tensor] = {}
        self._vectors: dict[Rendered, Vector] = {}

    def vectors(
        self, templates: Iterable[PromptTemplate], items: Sequence[Item], progress: Progress = no_progress
    ) -> list[dict[Item, Vector]]:
        """For each template the unit vector, float32 (dim,), of each item. `progress` counts bodies."""
        plans = [self.render(template, items) for template in templates]
        tails: dict[tuple[Clip | None, Ids], dict[Ids, None]] = {}
        for plan in plans:
            for rendered in plan.values():
                if rendered not in self._vectors:
                    tails.setdefault((rendered.clip, rendered.body), {})[rendered.tail] = None
        for done, ((clip, body), wanted) in enumerate(tails.items(), 1):
            for tail, vector in zip(wanted, self._run(clip, body, list(wanted)), strict=True):
                self._vectors[Rendered(clip, body, tail)] = vector
            progress(done, len(tails))
        return [{item: self._vectors[rendered] for item, rendered in plan.items()} for plan in plans]

    def render(self, template: PromptTemplate, items: Iterable[Item]) -> dict[Item, Rendered]:
        """What each item's tokens are under `template`."""
        whole = with_template(self._prompts, template)
        bare = replace(template, newline_after_end=False, assistant_header=False, eos=())
        up_to_end = with_template(self._prompts, bare)
        plan = {}
        for item in items:
            asked: dict[str, Any] = {
                "text": item.text,
                "audio_tokens": self._n_tokens(item.clip),
                "instruction": item.instruction,
                "task": item.task,
            }
            ids, body = whole.encode(**asked).ids, up_to_end.encode(**asked).ids
            # The body ends on a special token, so that nothing behind it can change its ids.
            assert ids[: len(body)] == body, "a tail begins behind the user turn"
            plan[item] = Rendered(item.clip, body, ids[len(body) :])
        return plan

    def _n_tokens(self, clip: Clip | None) -> int:
        return 0 if clip is None else n_audio_tokens(len(self._clips[clip]), self._model.config.subsample_factor)

    @torch.inference_mode()
    def _run(self, clip: Clip | None, body: Ids, tails: list[Ids]) -> list[Vector]:
        """A unit vector for each tail: the body once, then all tails as one batch behind a copy of its cache."""
        embeddings = self._model.decoder.embed(self._tensor([body]))
        if clip is not None:
            slots = (self._tensor([body]) == self._model.audio_token_id).unsqueeze(-1)
            embeddings = embeddings.masked_scatter(slots, self._audio_tokens(clip).to(embeddings.dtype))
        cache = DynamicCache()
        positions = torch.arange(len(body), device=embeddings.device)[None]
        hidden = self._model.decoder.model(
            inputs_embeds=embeddings, position_ids=positions, use_cache=True, **{CACHE: cache}
        ).last_hidden_state
        pooled: dict[Ids, Tensor] = {(): hidden[0, -1]}
        longer = [tail for tail in tails if tail]
        if longer:
            layers: Any = cache.layers
            prefix = SharedPrefix([(layer.keys, layer.values) for layer in layers], len(body))
            lengths = [len(tail) for tail in longer]
            # Right padding, which a causal decoder needs no mask for; which token it is makes no difference.
            padded = self._tensor([[*tail, *[self._prompts.pad_id] * (max(lengths) - len(tail))] for tail in longer])
            states = self._model.decoder(self._model.decoder.embed(padded), prefix)
            pooled |= dict(zip(longer, pool_final_eos(states, self._tensor(lengths)), strict=True))
        rows = torch.stack([pooled[tail] for tail in tails])
        if self._model.projection is not None:
            rows = self._model.projection(rows)
        return list(unit_rows(rows).cpu().numpy())

    @torch.inference_mode()
    def _audio_tokens(self, clip: Clip) -> Tensor:
        """Tokens (n, H) of a clip, on the device."""
        if clip not in self._tokens:
            samples = self._clips[clip].astype(np.float32)
            samples = np.pad(samples, (0, max(0, features.MIN_SAMPLES - len(samples))))
            mel = features.log_mel(torch.from_numpy(samples).to(self._model.device))
            self._tokens[clip] = self._model.audio_tokens(mel[None], torch.tensor([len(samples)]))
        return self._tokens[clip]

    def _tensor(self, values: Any) -> Tensor:
        return torch.tensor(values, device=self._model.device)
