"""A training recipe: one YAML file, validated on load, saved whole in every checkpoint.

A recipe either adapts a `base` (LoRA on a checkpoint that exists) or makes a small model from nothing (`scratch`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from audiosearch.errors import UsageError

PRECISIONS = ("auto", "float32", "bfloat16")
OBJECTIVES = ("pairs", "text")
SCENE_KINDS = ("layered", "ordered", "counted", "single")
_EXPONENT = re.compile(r"[-+]?\d+\.?\d*e[-+]?\d+", re.IGNORECASE)  # 1e-4, which YAML 1.1 takes for a word


@dataclass(frozen=True)
class SourceRecipe:
    """One data set. Paths: `$NAME/...` from the environment, else relative to the recipe."""

    table: str  # the data set's own file: CSV, JSON or JSONL
    layout: str = "manifest"  # a name of `audiosearch.trainer.converters.LAYOUTS`
    audio: str = ""  # folder of its sound; default: the table's folder
    share: float = 1.0  # of every batch, in proportion to the other sources' shares
    options: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the layout's converter

    def check(self, where: str) -> str | None:
        return None if self.share > 0 else f"{where}share must be above 0"


@dataclass(frozen=True)
class DataRecipe:
    """Where the sound and the words come from."""

    sources: list[SourceRecipe]
    held_out: list[SourceRecipe] = field(default_factory=list)  # measured while training, never trained on
    held_out_limit: int = 1_000  # clips of it, the first ones
    min_seconds: float = 0.0
    max_seconds: float = 30.0  # a longer row is dropped, or cut where `cut_long` says so
    cut_long: bool = False
    pack: bool = False  # decode once and keep 8-bit mels: for collections that are heard many times
    decode_workers: int = 4  # processes that decode ahead; 0 decodes in the loop
    length_pool_batches: int = 1  # batches drawn together and cut by length; 1 keeps each batch wholly random

    def check(self, where: str) -> str | None:
        if not self.sources:
            return f"{where}sources is empty"
        if not 0 <= self.min_seconds < self.max_seconds:
            return f"{where}min_seconds must be at least 0 and below max_seconds"
        if self.length_pool_batches < 1 or self.decode_workers < 0:
            return f"{where}length_pool_batches must be at least 1 and decode_workers at least 0"
        return None


@dataclass(frozen=True)
class LoraRecipe:
    """Low-rank adapters. Defaults are the paper's."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    targets: list[str] = field(default_factory=lambda: ["q_proj", "k_proj", "v_proj"])
    expected_parameters: int | None = None  # refuse to train if the adapters come to another number

    def check(self, where: str) -> str | None:
        if self.rank < 1 or self.alpha < 1 or not self.targets:
            return f"{where}rank and alpha must be at least 1, and targets must name a layer"
        return None if 0 <= self.dropout < 1 else f"{where}dropout must be in [0, 1)"


@dataclass(frozen=True)
class StageRecipe:
    """One run of the optimiser. Defaults are the paper's."""

    name: str
    steps: int
    batch_size: int  # pairs over all processes
    objective: str = "pairs"  # `pairs`: eqs. 1-3; `text`: the decoder learns from a sentence encoder (scratch only)
    micro_batch_size: int | None = None  # pairs that go through the model together; None: all of a process's share
    learning_rate: float = 1e-4
    final_learning_rate: float = 1e-5
    warmup_steps: int = 500
    weight_decay: float = 1e-3
    gradient_clip: float = 1.0
    decoder_rate: float = 1.0  # multiplies the learning rate of decoder and projection
    sound_rate: float = 1.0  # that of encoder and projector; at 0 sound is encoded without a gradient
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    initial_tau: float | None = None  # the temperature set at its start; None: as the stage before left it
    # Collections (a row's `source`) and folds (`fold 4`) that this stage does not hear (scratch only).
    without: list[str] = field(default_factory=list)
    mix: dict[str, Any] = field(default_factory=dict)  # put over scratch.mix

    def check(self, where: str) -> str | None:
        if self.steps < 1 or self.batch_size < 2 or (self.micro_batch_size or 1) < 1:
            return f"{where}steps and micro_batch_size must be at least 1, batch_size at least 2"
        if self.objective not in OBJECTIVES:
            return f"{where}objective is {self.objective!r}, expected one of {', '.join(OBJECTIVES)}"
        if not 0 <= self.final_learning_rate <= self.learning_rate:
            return f"{where}final_learning_rate must be at least 0 and at most learning_rate"
        if self.initial_tau is not None and self.initial_tau <= 0:
            return f"{where}initial_tau must be above 0"
        if len(self.betas) != 2 or self.warmup_steps < 0 or self.weight_decay < 0 or self.gradient_clip <= 0:
            return f"{where}betas must be two numbers, warmup_steps and weight_decay at least 0, gradient_clip above 0"
        return None


@dataclass(frozen=True)
class LossRecipe:
    """The temperature and the false-negative masks of the contrastive loss."""

    initial_tau: float = 0.07
    # A negative is left out when its cosine exceeds its positive's by more than the margin (Qwen3-Embedding's rule,
    # 0.1 there), or when it exceeds the threshold; None switches a rule off. Equal contents are always left out.
    false_negative_margin: float | None = 0.1
    false_negative_threshold: float | None = None

    def check(self, where: str) -> str | None:
        return None if self.initial_tau > 0 else f"{where}initial_tau must be above 0"


@dataclass(frozen=True)
class HardNegatives:
    """Pairs whose documents the current model takes for each other's go into one batch. Off while `share` is 0."""

    share: float = 0.0  # of each batch
    every_steps: int = 500  # mined anew from the current model
    neighbours: int = 8  # kept of each document
    skip: int = 1  # nearest ones passed over: they are often the same thing
    rows: int = 20_000  # embedded for it, a seeded sample where there are more

    def check(self, where: str) -> str | None:
        if not 0 <= self.share < 1 or self.every_steps < 1 or self.neighbours < 1 or self.skip < 0 or self.rows < 2:
            return f"{where}share must be in [0, 1), every_steps and neighbours at least 1, skip at least 0, rows 2"
        return None


@dataclass(frozen=True)
class MixRecipe:
    """What the slots of a batch hold, as shares of them; the rest are clean clips with their caption."""

    scenes: float = 0.14  # several sounds, and words for all of them
    questions: float = 0.45  # one scene under two questions whose answers differ
    sound_answers: float = 0.3  # of the questions: answered by another sound under the same question
    examples: float = 0.05  # a clip, and another of the same sound
    joint: float = 0.04  # a clip and words beside it, and words for both
    # What scenes are, wherever one is drawn, in shares of them.
    scene_kinds: dict[str, float] = field(
        default_factory=lambda: {"layered": 0.6, "ordered": 0.15, "counted": 0.08, "single": 0.17}
    )
    level_gap_db: list[float] = field(default_factory=lambda: [0.0, 12.0])  # a background below its foreground
    # Lengths of crops in seconds with the share of batches that use each.
    crop_seconds: dict[float, float] = field(default_factory=lambda: {1.5: 0.15, 3.0: 0.2, 4.0: 0.45, 5.0: 0.2})
    augment: float = 0.25  # chance of each augmentation for each clip
    # One of them plays a clip slower or faster, drawn between the two; music and speech keep their speed.
    speeds: list[float] = field(default_factory=lambda: [1.0, 1.0])

    def check(self, where: str) -> str | None:
        if not self.crop_seconds or any(float(s) <= 0 or float(p) < 0 for s, p in self.crop_seconds.items()):
            return f"{where}crop_seconds must give lengths above 0 with their shares"
        shares = (self.scenes, self.questions, self.examples, self.joint)
        if min(shares) < 0 or sum(shares) > 1 + 1e-6:
            return f"{where}scenes, questions, examples and joint must be at least 0 and at most 1 together"
        if not (0 <= self.sound_answers <= 1 and 0 <= self.augment <= 1):
            return f"{where}sound_answers and augment must be in [0, 1]"
        unknown = sorted(set(self.scene_kinds) - set(SCENE_KINDS))
        if unknown:
            return f"{where}scene_kinds.{unknown[0]}: expected one of {', '.join(SCENE_KINDS)}"
        if not any(self.scene_kinds.values()) or min(self.scene_kinds.values()) < 0:
            return f"{where}scene_kinds must give at least one kind a share above 0, and none one below"
        if len(self.level_gap_db) != 2 or not 0 <= self.level_gap_db[0] <= self.level_gap_db[1]:
            return f"{where}level_gap_db must be two numbers, the least and the most, from 0 on"
        if len(self.speeds) != 2 or not 0.5 <= self.speeds[0] <= self.speeds[1] <= 2:
            return f"{where}speeds must be two numbers, the slowest and the fastest, from 0.5 to 2"
        return None


@dataclass(frozen=True)
class ScratchRecipe:
    """A small model from nothing: dimensions, tokenizer, sentence teacher, mixing in the mel domain."""

    phrases: str = "phrases.yaml"
    categories: str = ""  # Universal Category System, JSON; optional
    model: dict[str, Any] = field(default_factory=dict)  # overrides of audiosearch.model.config.MiniDimensions
    vocab_size: int = 8_192
    word_limit: int = 14_000  # single words of the teacher's vocabulary in the text corpus
    scene_texts: int = 12_000  # captions and answers of scenes that could be drawn, in the text corpus
    renditions: int = 0  # of each clip, packed beside it: other rooms, microphones, codecs
    generated: int = 0  # clips of our own sound generators, packed behind the data's
    generated_weight: float = 1.0  # how often they are drawn, relative to recorded clips
    class_exponent: float = -0.6  # a clip is drawn with (clips of its class) ** exponent
    text_teacher: float = 1.0  # weights of the terms beside the paper's loss
    label_bank: float = 1.0
    label_bank_tau: float = 0.07
    label_smoothing: float = 0.1
    heed: float = 0.0
    mix: MixRecipe = field(default_factory=MixRecipe)

    def check(self, where: str) -> str | None:
        if min(self.renditions, self.generated, self.scene_texts) < 0:
            return f"{where}renditions, generated and scene_texts must be at least 0"
        if self.generated_weight <= 0:
            return f"{where}generated_weight must be above 0"
        return None


@dataclass(frozen=True)
class Recipe:
    """Everything a training run depends on."""

    name: str
    licence: str  # of the weights; `base`: that of the base
    data: DataRecipe
    stages: list[StageRecipe]
    base: str = ""  # bundled name, directory or hub id of what is adapted ...
    scratch: ScratchRecipe | None = None  # ... or a model from nothing: exactly one of the two
    lora: LoraRecipe | None = None  # how a base is adapted
    projection_dim: int | None = None  # give a base without a projection one of this width
    loss: LossRecipe = field(default_factory=LossRecipe)
    hard_negatives: HardNegatives = field(default_factory=HardNegatives)
    precision: str = "auto"  # auto: bfloat16 on a GPU that has it, else float32
    grad_cache: bool = False  # two passes a step: the batch need not fit in memory, only a micro-batch
    gradient_checkpointing: bool = False  # recompute activations layer by layer: less memory, more time
    ema_decay: float = 0.0  # 0: no moving average of the weights
    seed: int = 0
    log_every_steps: int = 10
    checkpoint_every_steps: int = 200
    keep_checkpoints: int = 3  # the last ones; the best is kept beside them
    evaluate_every_steps: int = 200
    export_merged: bool = True  # beside the LoRA checkpoint, a full one

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def check(self, where: str) -> str | None:
        if bool(self.base) == (self.scratch is not None):
            return "give exactly one of base and scratch"
        if bool(self.base) != (self.lora is not None):
            return "lora belongs to base: give both or neither"
        if not self.stages or len({stage.name for stage in self.stages}) != len(self.stages):
            return "stages must be at least one, each with a name of its own"
        if self.precision not in PRECISIONS:
            return f"precision is {self.precision!r}, expected one of {', '.join(PRECISIONS)}"
        if any(stage.objective == "text" for stage in self.stages) and self.scratch is None:
            return "stages: objective text needs scratch, whose sentence encoder it learns from"
        if any(stage.without for stage in self.stages) and self.scratch is None:
            return "stages: without needs scratch; of a base, leave the collection out of the data"
        for number, stage in enumerate(self.stages):
            if problem := self._mix_problem(stage, f"stages.{number}.mix."):
                return problem
        if self.hard_negatives.share and self.scratch is not None:
            return "hard_negatives.share needs a base: scratch mixes its clips anew for every batch"
        if not 0 <= self.ema_decay < 1:
            return "ema_decay must be in [0, 1)"
        for key in ("log_every_steps", "checkpoint_every_steps", "keep_checkpoints", "evaluate_every_steps"):
            if getattr(self, key) < 1:
                return f"{key} must be at least 1"
        return None

    def _mix_problem(self, stage: StageRecipe, where: str) -> str | None:
        if not stage.mix:
            return None
        if self.scratch is None:
            return "stages: mix needs scratch"
        try:
            return self.mix_of(stage).check(where)
        except TypeError:
            return f"{where.rstrip('.')} has a key that scratch.mix has not: {', '.join(stage.mix)}"

    def mix_of(self, stage: StageRecipe) -> MixRecipe:
        """What a stage's batches hold."""
        assert self.scratch is not None
        return replace(self.scratch.mix, **stage.mix)


def load_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: a YAML file.
        overrides: `key=value` with a dotted key (`stages.0.steps=100`) and a YAML value, put over the file's. A value
            that names something in the current folder becomes an absolute path.

    Raises:
        UsageError: no such file, bad YAML, an unknown, missing or mistyped key; names the key.
    """
    import yaml

    if not path.is_file():
        raise UsageError(f"{path}: no such recipe; the bundled ones are {', '.join(bundled_recipes())}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid YAML: {error}") from error
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise UsageError(f"--set {override}: give KEY=VALUE, as in stages.0.steps=100")
        try:
            parsed = _value(yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise UsageError(f"--set {override}: the value is not valid YAML") from error
        try:
            _put(content, key.split("."), parsed)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            raise UsageError(f"--set {override}: {path} has no such key") from error
    recipe: Recipe = _build(Recipe, content, str(path), "")
    return recipe


def bundled_recipes() -> list[str]:
    return sorted(file.stem for file in (Path(__file__).parent / "recipes").glob("*.yaml") if file.stem != "phrases")


def find_recipe(name: str) -> Path:
    """A recipe by path, or by the name of a bundled one."""
    path = Path(name)
    if not path.is_file() and path.name in bundled_recipes():
        return Path(__file__).parent / "recipes" / f"{path.name}.yaml"
    return path


def resolve(path: str, beside: Path) -> Path:
    """A path of a recipe: `$NAME` from the environment, otherwise relative to the recipe's folder.

    Raises:
        UsageError: the environment variable is not set.
    """
    if path.startswith("$"):
        name, _, rest = path[1:].partition("/")
        value = os.environ.get(name)
        if value is None:
            raise UsageError(f"the recipe reads {path}: set the environment variable {name}")
        return Path(value) / rest
    return Path(path) if Path(path).is_absolute() else beside / path


def _put(content: Any, keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        if isinstance(content, list):
            content = content[int(key)]
        else:
            content = content.setdefault(key, {})
    if isinstance(content, list):
        content[int(keys[-1])] = value
    else:
        content[keys[-1]] = value


def _value(value: Any) -> Any:
    if isinstance(value, str) and not value.startswith("$") and ("/" in value or "." in value) and Path(value).exists():
        return os.fspath(Path(value).absolute())
    return value


def _build(kind: Any, content: Any, file: str, where: str) -> Any:
    if not isinstance(content, dict):
        raise UsageError(f"{file}: {where.rstrip('.') or 'the recipe'} must be a mapping")
    hints = get_type_hints(kind)
    known = {item.name: item for item in fields(kind)}
    unknown = sorted(set(map(str, content)) - set(known))
    if unknown:
        raise UsageError(f"{file}: unknown key {where}{unknown[0]}; known are {', '.join(sorted(known))}")
    for name, item in known.items():
        if name not in content and item.default is MISSING and item.default_factory is MISSING:
            raise UsageError(f"{file}: missing key {where}{name}")
    value = kind(**{name: _typed(hints[name], value, file, f"{where}{name}") for name, value in content.items()})
    problem = value.check(where) if hasattr(value, "check") else None
    if problem:
        raise UsageError(f"{file}: {problem}")
    return value


def _typed(hint: Any, value: Any, file: str, where: str) -> Any:
    """`value` as the annotation says, nested sections built. An int is a float too; a bool is never a number."""
    if isinstance(hint, UnionType):
        if value is None:
            return None
        hint = next(kind for kind in get_args(hint) if kind is not type(None))
    origin, inner = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return _build(hint, value, file, f"{where}.")
    if origin is list and isinstance(value, list):
        return [_typed(inner[0], item, file, f"{where}.{number}") for number, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {_typed(inner[0], k, file, where): _typed(inner[1], v, file, f"{where}.{k}") for k, v in value.items()}
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    if isinstance(value, bool) != (hint is bool) or not isinstance(value, origin or hint):
        raise UsageError(f"{file}: {where} is {value!r}, expected {getattr(hint, '__name__', hint)}")
    return value
