"""A small model from nothing: its data, tokenizer, sentence teacher and first weights.

clips ──pack──> mels       captions, phrases, categories, words ──> tokenizer, corpus ──teacher──> target vectors
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiosearch.errors import UsageError
from audiosearch.model.alm2vec import Alm2VecModel
from audiosearch.model.config import MiniDimensions, alm2vec_mini
from audiosearch.model.prompt import PromptEncoder
from audiosearch.trainer.adapters import Trainable, count_trainable, recompute_activations
from audiosearch.trainer.captions import Corpus as TextCorpus
from audiosearch.trainer.captions import PhraseBook, build_corpus, read_phrases, teacher_words
from audiosearch.trainer.corpus import Corpus
from audiosearch.trainer.data import BatchSource
from audiosearch.trainer.losses import Temperature
from audiosearch.trainer.objectives import Objective, PairObjective, ScratchObjective, Teacher, TextObjective
from audiosearch.trainer.pack import FeaturePack, build_pack
from audiosearch.trainer.recipe import Recipe, ScratchRecipe, StageRecipe, resolve
from audiosearch.trainer.synthesis.groups import AnswerBank
from audiosearch.trainer.synthesis.mixer import MixedBatches, TextBatches
from audiosearch.trainer.synthesis.wording import corpus_samples
from audiosearch.trainer.teacher import Lift, sentence_vectors
from audiosearch.trainer.tokenizer import train_tokenizer

ANSWER_SPREAD = 3.0  # ours, the one value tried


@dataclass
class Materials:
    """What a model from nothing is made of, prepared once and kept in the run's `cache` folder."""

    scratch: ScratchRecipe
    pack: FeaturePack
    book: PhraseBook
    texts: TextCorpus
    prompts: PromptEncoder
    tokenizer_file: Path
    teacher: Teacher
    vocabulary_vectors: np.ndarray  # (vocab, 384) the teacher's view of each token's own text
    text_row: dict[str, int]


def prepare(recipe: Recipe, corpus: Corpus, beside: Path, out: Path, say: Callable[[str], None]) -> Materials:
    """Pack the features, build the text corpus, the tokenizer and the teacher's vectors.

    Raises:
        UsageError: no clip could be read, or a file that the recipe names is missing.
    """
    scratch = recipe.scratch
    assert scratch is not None
    cache = out / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    pack = build_pack(
        corpus.rows,
        Path(os.sep),
        cache,
        max_seconds=recipe.data.max_seconds,
        renditions=scratch.renditions,
        generated=scratch.generated,
        generated_weight=scratch.generated_weight,
        seed=recipe.seed,
    )
    for dropped in pack.dropped:
        say(f"dropped: {dropped}")
    if not pack.n_recorded:
        raise UsageError(f"{recipe.data.sources[0].table}: no clip of it could be read")
    book = read_phrases(resolve(scratch.phrases, beside))
    categories = resolve(scratch.categories, beside) if scratch.categories else None
    rng = np.random.default_rng((recipe.seed, 2))
    texts = build_corpus(
        pack.rows,
        book,
        categories,
        teacher_words()[: scratch.word_limit],
        seed=recipe.seed,
        scenes=corpus_samples(pack.rows, book, scratch.scene_texts, rng),
    )
    tokenizer_file = cache / "tokenizer.json"
    if not tokenizer_file.exists():
        partial = tokenizer_file.with_suffix(".part")
        train_tokenizer(texts.texts, partial, vocab_size=scratch.vocab_size)
        partial.replace(tokenizer_file)
    prompts = PromptEncoder(mini_config(recipe), tokenizer_file)
    vectors = sentence_vectors(texts.texts, cache)
    lift = Lift(vectors[: texts.n_sounds], prompts.config.embedding_dim)
    answers = AnswerBank(pack.rows)
    labels = _label_vectors(answers.labels, pack, book, texts, vectors, lift)
    bank = torch.cat([labels, _closed_vectors(answers.closed, texts, vectors, lift)])
    similar = torch.softmax((bank @ bank.T) / 0.05, dim=1)
    smoothing = scratch.label_smoothing
    tokens = [prompts.tokenizer.decode([i]).strip() or "." for i in range(prompts.tokenizer.get_vocab_size())]
    return Materials(
        scratch=scratch,
        pack=pack,
        book=book,
        texts=texts,
        prompts=prompts,
        tokenizer_file=tokenizer_file,
        teacher=Teacher(
            targets=torch.from_numpy(lift(vectors)),
            bank=bank,
            soft_bank=(1 - smoothing) * torch.eye(len(bank)) + smoothing * similar,
        ),
        vocabulary_vectors=sentence_vectors(tokens, cache) - lift.mean,
        text_row={text: i for i, text in enumerate(texts.texts)},
    )


@dataclass
class ScratchSetup:
    """What the loop trains when a recipe has `scratch`."""

    recipe: Recipe
    corpus: Corpus
    model: Alm2VecModel
    materials: Materials
    trainable: Trainable
    base = identity = ""
    frozen_sound = False

    @classmethod
    def prepare(
        cls, recipe: Recipe, corpus: Corpus, beside: Path, out: Path, say: Callable[[str], None]
    ) -> ScratchSetup:
        """Make the materials and a new model. Raises UsageError as `prepare` does."""
        parts = {part for row in corpus.rows for part in row.parts}
        for number, stage in enumerate(recipe.stages):
            if unknown := sorted({*stage.without} - parts):
                raise UsageError(f"stages.{number}.without: no clips of {', '.join(unknown)}")
        materials = prepare(recipe, corpus, beside, out, say)
        torch.manual_seed(recipe.seed)
        model = new_model(recipe, materials)
        if recipe.gradient_checkpointing:
            recompute_activations(model)
        return cls(recipe, corpus, model, materials, count_trainable(model))

    @property
    def licence(self) -> str:
        return self.recipe.licence

    @property
    def prompts(self) -> PromptEncoder:
        return self.materials.prompts

    @property
    def tokenizer_file(self) -> Path:
        return self.materials.tokenizer_file

    def batches(self, stage: StageRecipe, number: int, rank: int, world_size: int) -> BatchSource:
        made, seed = self.materials, self.recipe.seed
        if stage.objective == "text":
            texts, n_sounds = made.texts.texts, made.texts.n_sounds
            size = stage.batch_size
            return TextBatches(texts, n_sounds, made.prompts, size=size, seed=seed, rank=rank, world_size=world_size)
        return MixedBatches(
            made.pack,
            made.book,
            made.prompts,
            replace(made.scratch, mix=self.recipe.mix_of(stage)),
            made.text_row,
            size=stage.batch_size,
            seed=seed,
            stage=number,
            without=stage.without,
            rank=rank,
            world_size=world_size,
        )

    def objective(self, stage: StageRecipe, temperature: Temperature, device: torch.device) -> Objective:
        teacher = self.materials.teacher.to(device)
        if stage.objective == "text":
            return TextObjective(teacher, temperature)
        return ScratchObjective(PairObjective(self.recipe.loss, temperature), teacher, self.materials.scratch)

    def train_mode(self) -> None:
        self.model.train()
        self.model.audio_encoder.init_bn.eval()


def mini_config(recipe: Recipe) -> Any:
    """The model's configuration. Raises UsageError for a dimension that does not exist."""
    assert recipe.scratch is not None
    try:
        dims = MiniDimensions(**recipe.scratch.model)
    except TypeError as error:
        raise UsageError(f"recipe: scratch.model: {error}") from error
    config = alm2vec_mini(recipe.scratch.vocab_size, dims)
    config.licence = recipe.licence
    return config


def new_model(recipe: Recipe, materials: Materials) -> Alm2VecModel:
    """The model as training begins: input statistics from the data, token embeddings from the teacher's principal
    components, everything else random."""
    model = Alm2VecModel(mini_config(recipe), audio_token_id=materials.prompts.audio_id)
    mean, variance = materials.pack.mean_and_variance()
    norm = model.audio_encoder.init_bn
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(torch.from_numpy(mean))
    norm.running_var.copy_(torch.from_numpy(variance))
    # Frozen, as in the paper, and then nothing before the first convolution needs a gradient.
    norm.weight.requires_grad_(False)
    norm.bias.requires_grad_(False)
    vectors = torch.from_numpy(materials.vocabulary_vectors)
    table = model.decoder.model.embed_tokens.weight
    components = torch.linalg.svd(vectors - vectors.mean(dim=0), full_matrices=False)
    reduced = (components.U * components.S)[:, : table.shape[1]]
    with torch.no_grad():
        table[: len(reduced), : reduced.shape[1]] = reduced * (0.05 / reduced.std())
    return model


def _label_vectors(
    labels: list[str], pack: FeaturePack, book: PhraseBook, corpus: TextCorpus, vectors: np.ndarray, lift: Lift
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


def _closed_vectors(closed: dict[str, tuple[str, ...]], corpus: TextCorpus, vectors: np.ndarray, lift: Lift) -> Tensor:
    """One target per closed answer. To the teacher "there is speech" and "there is no speech" are nearly the same
    (cosine 0.8 to 0.9), so the answers to one question are moved apart, away from their mean."""
    index = {text: i for i, text in enumerate(corpus.texts)}
    means = {meaning: lift(vectors[[index[text] for text in texts]]).mean(axis=0) for meaning, texts in closed.items()}
    alike: dict[str, list[np.ndarray]] = defaultdict(list)
    for meaning, mean in means.items():
        alike[meaning.rpartition(" ")[0]].append(mean)
    out = []
    for meaning, mean in means.items():
        centre = np.mean(alike[meaning.rpartition(" ")[0]], axis=0)
        spread = centre + ANSWER_SPREAD * (mean - centre)
        out.append(spread / np.linalg.norm(spread))
    return torch.from_numpy(np.stack(out).astype(np.float32))
