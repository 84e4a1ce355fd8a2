"""The native ALM2Vec model behind the embedder seam."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audiosearch import features
from audiosearch.embed.batching import Placement, TokenBudget, choose_device, run_with_backoff, windows
from audiosearch.embed.items import checked_clip
from audiosearch.errors import UsageError
from audiosearch.model.assembly import Assembly, ModelInputs, SharedPrefix, TextDecoder
from audiosearch.model.projector import n_audio_tokens
from audiosearch.model.prompt import PromptEncoder
from audiosearch.types import Samples, Task, Vectors

# Tokens of one batch, padding included. On a CPU more than a few hundred only push activations out of the caches.
CPU_TOKENS, GPU_TOKENS = 512, 16_384
WINDOW_ITEMS, WINDOW_SECONDS = 256, 1_200.0  # taken from the input at a time: 77 MB of sound at most, and a clip
CACHED_PREFIXES = 4


@dataclass(frozen=True, slots=True)
class _Item:
    """One item, ready for a batch: token ids and, with sound, its samples."""

    ids: tuple[int, ...]
    prefix_length: int
    samples: Samples | None

    @property
    def seconds(self) -> float:
        return self.n_samples / features.SAMPLE_RATE

    @property
    def n_samples(self) -> int:
        return 0 if self.samples is None else len(self.samples)


class Alm2VecEmbedder:
    """An `AudioTextEmbedder` of one loaded model.

    Args:
        model, prompts: as `load` of `audiosearch.model.weights` or `standalone` gives them, on `placement`.
        shared_prefix: compute the instruction that the items of a call share only once. Off: the plain path, its judge.
        token_budget: padded tokens of a batch; None takes what suits the device.
    """

    sample_rate = features.SAMPLE_RATE

    def __init__(
        self,
        model: Assembly,
        prompts: PromptEncoder,
        placement: Placement,
        *,
        name: str,
        fingerprint: str,
        licence: str,
        shared_prefix: bool = True,
        token_budget: int | None = None,
    ) -> None:
        self.name, self.fingerprint, self.licence = name, fingerprint, licence
        self.placement = str(placement)
        self.dim: int = model.config.embedding_dim
        self.max_seconds: float = model.config.max_audio_seconds
        self.shared_prefix = shared_prefix
        self.budget = TokenBudget(token_budget or (CPU_TOKENS if placement.device == "cpu" else GPU_TOKENS))
        self._model = model.eval()
        self._decoder: TextDecoder = model.decoder
        self._device = torch.device(placement.device)
        # What is copied and turned into mel here overlaps with the model's work on the batch before.
        self._copies = torch.cuda.Stream(self._device) if self.computes_beside else None
        self._pad_id = prompts.pad_id
        self._max_tokens: int = model.config.text_config.max_position_embeddings
        # Clips of one length under one instruction have the same prompt.
        self._prompt = lru_cache(maxsize=1_024)(prompts.encode)
        self._prefixes: OrderedDict[tuple[int, ...], SharedPrefix] = OrderedDict()

    @classmethod
    def load(cls, name_or_dir: str, *, device: str | None = None, dtype: str | None = None) -> Alm2VecEmbedder:
        """Open a model by bundled name, directory or hub id; see `audiosearch.embed.load_embedder`."""
        from audiosearch.model import standalone
        from audiosearch.model.fingerprint import describe_model

        description = describe_model(name_or_dir)
        placement = choose_device(device, dtype)
        directory, kind = Path(description.directory), getattr(torch, placement.dtype)
        model: Assembly
        if standalone.can_open(directory):
            model, prompts = standalone.load(directory, dtype=kind, device=placement.device)
        else:
            from audiosearch.model import weights  # with transformers: seconds

            model, prompts = weights.load(directory, dtype=kind, device=placement.device)
        return cls(
            model,
            prompts,
            placement,
            name=description.name,
            fingerprint=description.fingerprint,
            licence=description.licence,
        )

    def embed_audio(
        self, clips: Iterable[Samples], *, instruction: str | None = None, task: Task = "document"
    ) -> Vectors:
        return self.begin_audio(clips, instruction=instruction, task=task)()

    @property
    def computes_beside(self) -> bool:
        return self._device.type == "cuda"

    def begin_audio(
        self, clips: Iterable[Samples], *, instruction: str | None = None, task: Task = "document"
    ) -> Callable[[], Vectors]:
        return self._begin(((clip, None) for clip in clips), instruction, task)

    def embed_text(self, texts: Iterable[str], *, instruction: str | None = None, task: Task = "document") -> Vectors:
        return self._begin(((None, text) for text in texts), instruction, task)()

    def embed_audio_text(
        self, pairs: Iterable[tuple[Samples, str]], *, instruction: str | None = None, task: Task = "query"
    ) -> Vectors:
        return self._begin(pairs, instruction, task)()

    def _begin(
        self, inputs: Iterable[tuple[Samples | None, str | None]], instruction: str | None, task: Task
    ) -> Callable[[], Vectors]:
        items = self._items(inputs, instruction, task)
        done: list[Vectors] = []
        last: Callable[[], Vectors] | None = None
        for window in windows(items, lambda item: item.seconds, limit=WINDOW_SECONDS, count=WINDOW_ITEMS):
            before, last = last, self._begin_window(window)
            if before is not None:  # two at a time: a GPU's memory does not grow with the number of windows
                done.append(before())

        def rows() -> Vectors:
            if last is None:
                return np.empty((0, self.dim), dtype=np.float32)
            return np.concatenate([*done, last()])

        return rows

    def _items(
        self, inputs: Iterable[tuple[Samples | None, str | None]], instruction: str | None, task: Task
    ) -> Iterator[_Item]:
        for index, (clip, text) in enumerate(inputs):
            samples = None if clip is None else self._checked(index, clip)
            audio_tokens = 0 if samples is None else n_audio_tokens(len(samples), self._model.config.subsample_factor)
            prompt = self._prompt(text=text, audio_tokens=audio_tokens, instruction=instruction, task=task)
            if len(prompt.ids) > self._max_tokens:
                raise UsageError(
                    f"item {index} has {len(prompt.ids)} tokens and {self.name} takes {self._max_tokens}: shorten its "
                    "text or the instruction"
                )
            yield _Item(prompt.ids, prompt.prefix_length, samples)

    def _checked(self, index: int, clip: Samples) -> Samples:
        """`clip` as float32, at least as long as the model's minimum."""
        clip = checked_clip(index, clip, name=self.name, sample_rate=self.sample_rate, max_seconds=self.max_seconds)
        short = features.MIN_SAMPLES - len(clip)
        return np.pad(clip, (0, short)) if short > 0 else clip

    @torch.inference_mode()
    def _begin_window(self, items: Sequence[_Item]) -> Callable[[], Vectors]:
        """Start one window; what is returned waits for its rows. A GPU never waits for a copy, nor for us."""
        # Equal lengths need no mask in the encoder, which is half again as fast; so among equal token counts they go
        # side by side.
        by_samples = sorted(range(len(items)), key=lambda i: items[i].n_samples)
        items = [items[i] for i in by_samples]
        prefix = self._prefix(items)
        lengths = [len(item.ids) - (prefix.length if prefix else 0) for item in items]
        order: list[int] = []
        computed: list[Tensor] = []
        for batch, vectors in run_with_backoff(
            lengths, lambda batch: self._run([items[i] for i in batch], prefix), self.budget
        ):
            order += [by_samples[i] for i in batch]
            computed.append(vectors)
        fetched = self._fetch(torch.cat(computed))

        def finish() -> Vectors:
            rows = np.empty((len(items), self.dim), dtype=np.float32)
            rows[order] = fetched()
            if not np.isfinite(rows).all():
                raise RuntimeError(f"{self.name} on {self.placement} computed values that are not numbers")
            return rows

        return finish

    def _fetch(self, rows: Tensor) -> Callable[[], Vectors]:
        """What waits for these rows, and not for anything begun later."""
        if self._copies is None:
            return lambda: rows.cpu().numpy()
        here = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
        here.copy_(rows, non_blocking=True)
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(self._device))

        def wait() -> Vectors:
            done.synchronize()
            return here.numpy()

        return wait

    def _prefix(self, items: Sequence[_Item]) -> SharedPrefix | None:
        """The instruction that `items` share, when it is known or worth a pass of its own."""
        if not self.shared_prefix:
            return None
        ids = items[0].ids[: items[0].prefix_length]
        assert all(item.ids[: item.prefix_length] == ids for item in items), "items of a call share their instruction"
        if ids in self._prefixes:
            self._prefixes.move_to_end(ids)
        elif len(items) == 1:
            return None
        else:
            self._prefixes[ids] = self._decoder.prefix(torch.tensor(ids, device=self._device))
            if len(self._prefixes) > CACHED_PREFIXES:
                self._prefixes.popitem(last=False)
        return self._prefixes[ids]

    def _run(self, items: Sequence[_Item], prefix: SharedPrefix | None) -> Tensor:
        """Unit rows (B, dim) of one batch, on the device."""
        skip = prefix.length if prefix else 0
        tokens = [item.ids[skip:] for item in items]
        longest = max(map(len, tokens))
        ids = self._ready(torch.tensor([[*row, *[self._pad_id] * (longest - len(row))] for row in tokens]))
        lengths = self._ready(torch.tensor([len(row) for row in tokens]))
        clips = [item.samples for item in items if item.samples is not None]
        if self._copies is None:
            mel, n_samples = self._mel(clips) if clips else (None, None)
        else:
            # The model's stream waits for the mel; we do not.
            current = torch.cuda.current_stream(self._device)
            with torch.cuda.stream(self._copies):
                mel, n_samples = self._mel(clips) if clips else (None, None)
            current.wait_stream(self._copies)
            if mel is not None:
                mel.record_stream(current)
        return self._model(ModelInputs(ids, lengths, mel, n_samples).to(self._device), prefix)

    def _ready(self, tensor: Tensor) -> Tensor:
        """On a GPU's behalf in memory that it can copy from by itself."""
        return tensor.pin_memory() if self.computes_beside else tensor

    def _mel(self, clips: Sequence[Samples]) -> tuple[Tensor, Tensor]:
        """Right-padded log-mel (A, 64, T) on the device, each of its clip's own samples, and the clips' lengths."""
        sizes = [len(clip) for clip in clips]
        samples = torch.zeros(len(clips), max(sizes), pin_memory=self.computes_beside)
        # Through NumPy: clips may be read-only, which torch.from_numpy warns of.
        for row, clip in zip(samples.numpy(), clips, strict=True):
            row[: len(clip)] = clip
        samples = samples.to(self._device, non_blocking=True)
        mel = samples.new_zeros(len(clips), features.N_MELS, features.n_frames(max(sizes)))
        for out, row, size in zip(mel, samples, sizes, strict=True):
            out[:, : features.n_frames(size)] = features.log_mel(row[:size])
        return mel, self._ready(torch.tensor(sizes))
