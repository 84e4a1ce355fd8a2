"""A training recipe: one YAML file, validated on load, saved whole in every checkpoint."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from audiosearch.errors import UsageError


@dataclass(frozen=True)
class DataRecipe:
    """Where the sound and the words come from. `$NAME` and paths relative to the recipe are resolved on load."""

    table: str = ""  # a labelled clip collection (manifest.csv) ...
    manifest: str = ""  # ... or a JSONL manifest; one of the two
    audio_root: str = ""  # default: the folder of the table or manifest
    phrases: str = "phrases.yaml"
    categories: str = ""  # Universal Category System, JSON; optional
    tiers: list[str] = field(default_factory=lambda: ["A"])
    environmental_weight: float = 2.0
    class_exponent: float = -0.6  # a clip is drawn with (clips of its class) ** exponent
    max_seconds: float = 10.0
    vocab_size: int = 8_192
    word_limit: int = 14_000  # single words of the teacher's vocabulary in the text corpus


@dataclass(frozen=True)
class StageRecipe:
    """One run of the optimiser."""

    steps: int
    batch_size: int
    learning_rate: float
    final_learning_rate: float
    warmup_steps: int = 200
    weight_decay: float = 1e-3
    gradient_clip: float = 1.0
    decoder_rate: float = 1.0  # multiplies the learning rate of decoder and projection


@dataclass(frozen=True)
class LossRecipe:
    """Weights of the terms beside the paper's contrastive loss, and its masks."""

    initial_tau: float = 0.07
    false_negative_margin: float | None = 0.1
    text_teacher: float = 1.0
    label_bank: float = 1.0
    label_bank_tau: float = 0.07
    label_smoothing: float = 0.1


@dataclass(frozen=True)
class MixRecipe:
    """What the slots of a batch hold; the rest are clean clips with their caption."""

    mixture: float = 0.12
    questions: float = 0.20
    joint: float = 0.06
    category: float = 0.04
    # Lengths of crops in seconds with the share of batches that use each.
    crop_seconds: dict[float, float] = field(default_factory=lambda: {1.5: 0.15, 3.0: 0.2, 4.0: 0.45, 5.0: 0.2})
    augment: float = 0.25  # chance of each augmentation for each clip


@dataclass(frozen=True)
class Recipe:
    """Everything a training run depends on."""

    name: str
    licence: str
    data: DataRecipe
    text_stage: StageRecipe
    audio_stage: StageRecipe
    model: dict[str, Any] = field(default_factory=dict)
    loss: LossRecipe = field(default_factory=LossRecipe)
    mix: MixRecipe = field(default_factory=MixRecipe)
    seed: int = 0
    ema_decay: float = 0.999
    checkpoint_every_steps: int = 200
    log_every_steps: int = 20

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        UsageError: no such file, bad YAML, an unknown, missing or mistyped key; names the key.
    """
    import yaml

    if not path.is_file():
        raise UsageError(f"{path}: no such recipe; the bundled ones are {', '.join(bundled_recipes())}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not valid YAML: {error}") from error
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


def _build(kind: Any, content: Any, file: str, where: str) -> Any:
    if not isinstance(content, dict):
        raise UsageError(f"{file}: {where or 'the recipe'} must be a mapping")
    hints = get_type_hints(kind)
    known = {item.name: item for item in fields(kind)}
    unknown = sorted(set(content) - set(known))
    if unknown:
        raise UsageError(f"{file}: unknown key {where}{unknown[0]}; known are {', '.join(sorted(known))}")
    values = {}
    for name, value in content.items():
        hint = hints[name]
        if is_dataclass(hint):
            values[name] = _build(hint, value, file, f"{where}{name}.")
        else:
            values[name] = _scalar(hint, value, file, f"{where}{name}")
    try:
        return kind(**values)
    except TypeError as error:
        missing = [name for name in known if name not in values and f"'{name}'" in str(error)]
        raise UsageError(f"{file}: missing key {where}{missing[0] if missing else error}") from error


def _scalar(hint: Any, value: Any, file: str, where: str) -> Any:
    accepted: Any = {
        int: (int,),
        float: (int, float),
        str: (str,),
        float | None: (int, float, type(None)),
        list[str]: (list,),
    }.get(hint, (dict,))
    if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
        raise UsageError(f"{file}: {where} is {value!r}, expected {getattr(hint, '__name__', hint)}")
    return float(value) if hint is float else value
