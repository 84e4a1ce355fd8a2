"""The training loop, top to bottom: data, text stage, audio stage, export.

Both stages are the same loop over a different loss. Everything a step depends on is in the checkpoint or a pure
function of (seed, step), so that a run killed anywhere continues as if it had not been.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from audiosearch.errors import AudioSearchError, UsageError
from audiosearch.model.alm2vec import Alm2VecModel
from audiosearch.model.config import MiniDimensions, alm2vec_mini
from audiosearch.model.prompt import PromptEncoder
from audiosearch.trainer import checkpoint
from audiosearch.trainer.captions import Corpus, PhraseBook, build_corpus, read_phrases, teacher_words
from audiosearch.trainer.converters import labelled_clips
from audiosearch.trainer.data import PairSampler, text_inputs
from audiosearch.trainer.losses import Temperature, contrastive, distillation, label_bank
from audiosearch.trainer.manifest import read_manifest
from audiosearch.trainer.pack import FeaturePack, build_pack
from audiosearch.trainer.recipe import Recipe, StageRecipe, find_recipe, load_recipe, resolve
from audiosearch.trainer.schedule import warmup_cosine
from audiosearch.trainer.teacher import Lift, sentence_vectors
from audiosearch.trainer.tokenizer import train_tokenizer


@dataclass
class Materials:
    """What a run reads, prepared once and kept in the run's `cache` folder."""

    recipe: Recipe
    pack: FeaturePack
    book: PhraseBook
    corpus: Corpus
    targets: Tensor  # (texts, dim) unit rows: the teacher's vectors of the corpus in the student's space
    bank: Tensor  # (labels, dim) unit rows
    soft_bank: Tensor  # (labels, labels) target distribution of each label
    prompts: PromptEncoder
    vocabulary_vectors: np.ndarray  # (vocab, 384) the teacher's view of each token's own text
    text_row: dict[str, int]
    licences: dict[str, int]


def train(recipe_path: str, out_dir: str | None = None, resume: bool = True, max_steps: int | None = None) -> Path:
    """Run a recipe and write the finished checkpoint.

    Args:
        recipe_path: a YAML file or the name of a bundled recipe.
        out_dir: where the run lives (state, log, caches, exported model); default `runs/<name>`.
        resume: continue from the state found there; False refuses a folder that has one.
        max_steps: stop each stage after this many steps in all (for trials); the schedule stays the recipe's.

    Returns:
        The exported model's directory.

    Raises:
        UsageError: bad recipe, missing data, a checkpoint of another recipe.
    """
    from audiosearch.trainer.export import export_model

    path = find_recipe(recipe_path)
    recipe = load_recipe(path)
    out = Path(out_dir or Path("runs") / recipe.name)
    out.mkdir(parents=True, exist_ok=True)
    state = checkpoint.load_state(out, recipe.to_dict())
    if state is not None and not resume:
        raise UsageError(f"{out}: a run is already there; add --resume to continue it, or choose another --out")
    materials = prepare(recipe, path.parent, out)
    run = Run(materials, out)
    if state is not None:
        run.load(state)
    run.stage("text", recipe.text_stage, max_steps)
    run.stage("audio", recipe.audio_stage, max_steps)
    target = out / "model"
    export_model(run.averaged_model(), out / "cache" / "tokenizer.json", target, materials, run.history)
    return target


def prepare(recipe: Recipe, beside: Path, out: Path) -> Materials:
    """Read the data, pack features, build the corpus, the tokenizer and the teacher's vectors; all cached in `out`."""
    cache = out / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    data = recipe.data
    if bool(data.table) == bool(data.manifest):
        raise UsageError("recipe: give exactly one of data.table and data.manifest")
    source = resolve(data.table or data.manifest, beside)
    if data.table:
        rows = labelled_clips(source, tiers=data.tiers, environmental_weight=data.environmental_weight)
    else:
        rows = read_manifest(source)
    root = resolve(data.audio_root, beside) if data.audio_root else source.parent
    pack = build_pack(rows, root, cache, max_seconds=data.max_seconds)
    for dropped in pack.dropped:
        tqdm.write(f"dropped: {dropped}")
    if not len(pack):
        raise UsageError(f"{source}: no clip of it could be read")
    book = read_phrases(resolve(data.phrases, beside))
    categories = resolve(data.categories, beside) if data.categories else None
    corpus = build_corpus(pack.rows, book, categories, teacher_words()[: data.word_limit], seed=recipe.seed)
    tokenizer_file = cache / "tokenizer.json"
    if not tokenizer_file.exists():
        train_tokenizer(corpus.texts, tokenizer_file, vocab_size=data.vocab_size)
    prompts = PromptEncoder(mini_config(recipe, data.vocab_size), tokenizer_file)
    vectors = sentence_vectors(corpus.texts, cache)
    lift = Lift(vectors[: corpus.n_sounds], prompts.config.embedding_dim)
    labels = sorted({row.label for row in pack.rows})
    bank = _label_vectors(labels, pack, book, corpus, vectors, lift)
    similar = torch.softmax((bank @ bank.T) / 0.05, dim=1)
    smoothing = recipe.loss.label_smoothing
    tokens = [prompts.tokenizer.decode([i]).strip() or "." for i in range(prompts.tokenizer.get_vocab_size())]
    licences: dict[str, int] = {}
    for row in pack.rows:
        licences[row.licence] = licences.get(row.licence, 0) + 1
    return Materials(
        recipe=recipe,
        pack=pack,
        book=book,
        corpus=corpus,
        targets=torch.from_numpy(lift(vectors)),
        bank=bank,
        soft_bank=(1 - smoothing) * torch.eye(len(labels)) + smoothing * similar,
        prompts=prompts,
        vocabulary_vectors=sentence_vectors(tokens, cache) - lift.mean,
        text_row={text: i for i, text in enumerate(corpus.texts)},
        licences=licences,
    )


def _label_vectors(
    labels: list[str], pack: FeaturePack, book: PhraseBook, corpus: Corpus, vectors: np.ndarray, lift: Lift
) -> Tensor:
    """One target per label: the mean of its phrases' lifted vectors, the label itself counted twice."""
    row_of = {row.label: row for row in pack.rows}
    index = {text: i for i, text in enumerate(corpus.texts)}
    out = []
    for label in labels:
        phrases = (*book.phrases(row_of[label]), label or row_of[label].text)
        mean = lift(vectors[[index[phrase] for phrase in phrases if phrase in index]]).mean(axis=0)
        out.append(mean / np.linalg.norm(mean))
    return torch.from_numpy(np.stack(out).astype(np.float32))


def mini_config(recipe: Recipe, vocab_size: int) -> Any:
    """The model's configuration; the recipe's `model` section overrides dimensions by name."""
    try:
        dims = MiniDimensions(**recipe.model)
    except TypeError as error:
        raise UsageError(f"recipe: model: {error}") from error
    return alm2vec_mini(vocab_size, dims)


class Run:
    """Model, optimiser, temperature, averaged weights and position of one training run."""

    def __init__(self, materials: Materials, out: Path) -> None:
        self.materials, self.out = materials, out
        self.recipe = materials.recipe
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(self.recipe.seed)
        config = mini_config(self.recipe, self.recipe.data.vocab_size)
        config.licence = self.recipe.licence
        self.model = Alm2VecModel(config, audio_token_id=materials.prompts.audio_id)
        self._initialise()
        torch.nn.Module.to(self.model, self.device)  # the typed one: transformers wraps its own
        self.temperature = Temperature(self.recipe.loss.initial_tau).to(self.device)
        self.average = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.optimizer: torch.optim.AdamW | None = None
        self.stage_name, self.step = "text", 0
        self.history: list[dict[str, float | str]] = []
        self._pending: dict[str, Any] | None = None
        self.sampler = PairSampler(
            materials.pack, materials.book, materials.prompts, self.recipe.data, self.recipe.mix, self.recipe.seed
        )

    def _initialise(self) -> None:
        """Input statistics from the data, token embeddings from the teacher's principal components."""
        mean, variance = self.materials.pack.mean_and_variance()
        norm = self.model.audio_encoder.init_bn
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(torch.from_numpy(mean))
        norm.running_var.copy_(torch.from_numpy(variance))
        # Frozen, as in the paper, and then nothing before the first convolution needs a gradient.
        norm.weight.requires_grad_(False)
        norm.bias.requires_grad_(False)
        vectors = torch.from_numpy(self.materials.vocabulary_vectors)
        table = self.model.decoder.model.embed_tokens.weight
        width = table.shape[1]
        components = torch.linalg.svd(vectors - vectors.mean(dim=0), full_matrices=False)
        reduced = (components.U * components.S)[:, :width]
        with torch.no_grad():
            table[: len(reduced), : reduced.shape[1]] = reduced * (0.05 / reduced.std())

    # -- state ---------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        assert self.optimizer is not None
        return {
            "recipe": self.recipe.to_dict(),
            "stage": self.stage_name,
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average,
            "temperature": self.temperature.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.stage_name, self.step = state["stage"], state["step"]
        self.model.load_state_dict(state["model"])
        self.average = {name: value.to(self.device) for name, value in state["average"].items()}
        self.temperature.load_state_dict(state["temperature"])
        self.history = state["history"]
        self._pending = state["optimizer"]

    def averaged_model(self) -> Alm2VecModel:
        """The model with its exponential moving average of weights, on the CPU."""
        model = Alm2VecModel(self.model.config, audio_token_id=self.model.audio_token_id)
        model.load_state_dict(self.average)
        model.config.training = {"recipe": self.recipe.to_dict(), "stage": self.stage_name, "step": self.step}
        return model.eval()

    # -- the loop ------------------------------------------------------------------------------------------------

    def stage(self, name: str, stage: StageRecipe, max_steps: int | None) -> None:
        """Run one stage to its end, from wherever the state says."""
        if self.stage_name != name:
            if name == "text":
                return  # resumed in the audio stage
            self.stage_name, self.step = name, 0
        loss_of = self.text_loss if name == "text" else self.audio_loss
        batches = self.text_batches if name == "text" else self.audio_batches
        self.optimizer = self._optimizer(stage)
        if self._pending is not None:
            self.optimizer.load_state_dict(self._pending)
            self._pending = None
        last = min(stage.steps, max_steps or stage.steps)
        started, first_step = time.monotonic(), self.step
        self.model.train()
        self.model.audio_encoder.init_bn.eval()
        with tqdm(total=last, initial=self.step, desc=f"{self.recipe.name} {name}", unit="step") as bar:
            for step, batch in batches(stage, self.step, last):
                rate = warmup_cosine(
                    step,
                    steps=stage.steps,
                    warmup_steps=stage.warmup_steps,
                    peak=stage.learning_rate,
                    final=stage.final_learning_rate,
                )
                for group in self.optimizer.param_groups:
                    group["lr"] = rate * group["rate"]
                torch.manual_seed(self.recipe.seed * 1_000_003 + step)
                loss, report = loss_of(batch)
                if not torch.isfinite(loss):
                    raise AudioSearchError(
                        f"the loss is {loss.item()} at {name} step {step}; the last good checkpoint is in {self.out}: "
                        "lower the learning rate and resume"
                    )
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self._trained(), stage.gradient_clip)
                self.optimizer.step()
                self._average()
                self.step = step + 1
                bar.update()
                if self.step % self.recipe.log_every_steps == 0:
                    speed = (self.step - first_step) * stage.batch_size / (time.monotonic() - started)
                    line = {"loss": loss.item(), **report, "rate": rate, "samples_per_second": speed}
                    self._log(line, bar)
                if self.step % self.recipe.checkpoint_every_steps == 0 or self.step == last:
                    checkpoint.save_state(self.out, self.state())

    def _trained(self) -> list[Tensor]:
        parameters = [*self.model.parameters(), *self.temperature.parameters()]
        return [parameter for parameter in parameters if parameter.requires_grad]

    def _optimizer(self, stage: StageRecipe) -> torch.optim.AdamW:
        """AdamW; no weight decay on vectors (norms, biases, tau)."""
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for name, parameter in [*self.model.named_parameters(), *self.temperature.named_parameters()]:
            if not parameter.requires_grad:
                continue
            rate = stage.decoder_rate if name.startswith(("decoder.", "projection.")) else 1.0
            decay = stage.weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
        return torch.optim.AdamW(
            [{"params": items, "rate": rate, "weight_decay": decay} for (rate, decay), items in groups.items()],
            lr=stage.learning_rate,
            betas=(0.9, 0.98),
        )

    @torch.no_grad()
    def _average(self) -> None:
        # A short memory at the start of a stage, so that the average does not drag its first weights along.
        decay = min(self.recipe.ema_decay, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[name].lerp_(value, 1 - decay)

    def _log(self, line: dict[str, float], bar: tqdm) -> None:
        entry: dict[str, float | str] = {"stage": self.stage_name, "step": self.step}
        entry.update({key: round(value, 6) for key, value in line.items()})
        self.history.append(entry)
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
        bar.set_postfix({key: f"{value:.3g}" for key, value in line.items()})

    # -- the two losses ------------------------------------------------------------------------------------------

    def text_batches(self, stage: StageRecipe, first: int, last: int) -> Iterator[tuple[int, Tensor]]:
        """Rows of the corpus: half of each batch descriptions of sounds, half everything else."""
        sounds, total = self.materials.corpus.n_sounds, len(self.materials.corpus.texts)
        half = stage.batch_size // 2
        for step in range(first, last):
            rng = np.random.default_rng((self.recipe.seed, 0, step))
            rows = np.concatenate([rng.integers(sounds, size=half), rng.integers(sounds, total, size=half)])
            yield step, torch.from_numpy(rows)

    def text_loss(self, rows: Tensor) -> tuple[Tensor, dict[str, float]]:
        texts = [self.materials.corpus.texts[i] for i in rows.tolist()]
        students = self._embed_texts(texts)
        targets = self.materials.targets[rows].to(self.device)
        loss = distillation(students, targets, self.temperature())
        cosine = (students.detach() * targets).sum(dim=1).mean().item()
        return loss, {"teacher_cosine": cosine, "tau": self.temperature().item()}

    def _embed_texts(self, texts: list[str]) -> Tensor:
        """Texts as plain documents. Two thirds of such a prompt is the instruction all of them share: it runs once,
        with its gradient, and the batch attends to it."""
        prefix, inputs = text_inputs(self.materials.prompts, texts)
        return self.model(inputs.to(self.device), self.model.decoder.prefix(prefix.to(self.device)))

    def audio_batches(self, stage: StageRecipe, first: int, last: int) -> Iterator[tuple[int, Any]]:
        """The sampler's batches, the next one made while this one trains."""
        make: Callable[[int], Any] = lambda step: self.sampler.batch(step, stage.batch_size)  # noqa: E731
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(make, first)
            for step in range(first, last):
                batch = coming.result()
                if step + 1 < last:
                    coming = ahead.submit(make, step + 1)
                yield step, batch

    def audio_loss(self, batch: Any) -> tuple[Tensor, dict[str, float]]:
        terms, materials = self.recipe.loss, self.materials
        audio = self.model(batch.audio.to(self.device))
        text = self._embed_texts(batch.texts)
        tau = self.temperature()
        paper = contrastive(
            audio, text, tau, same=batch.same.to(self.device), false_negative_margin=terms.false_negative_margin
        )
        loss = paper.loss
        report = {"contrastive": paper.loss.item(), "accuracy": paper.accuracy, "masked": paper.masked_share}
        known = [(i, materials.text_row[t]) for i, t in enumerate(batch.texts) if t in materials.text_row]
        if terms.text_teacher and known:
            slots, rows = (torch.tensor(column) for column in zip(*known, strict=True))
            targets = materials.targets[rows].to(self.device)
            teacher = 1 - (text[slots.to(self.device)] * targets).sum(dim=1).mean()
            loss = loss + terms.text_teacher * teacher
            report["teacher_cosine"] = 1 - teacher.item()
        clean = batch.labels >= 0
        if terms.label_bank and clean.any():
            soft = materials.soft_bank[batch.labels[clean]].to(self.device)
            bank = label_bank(audio[clean.to(self.device)], materials.bank.to(self.device), soft, terms.label_bank_tau)
            loss = loss + terms.label_bank * bank
            report["label_bank"] = bank.item()
        report["tau"] = tau.item()
        return loss, report
