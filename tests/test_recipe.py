"""Recipes: what is wrong with one is said by its key; `--set` goes over the file; the bundled ones are whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from train_helpers import BASE_RECIPE, SCRATCH_RECIPE, changed

from audiosearch.errors import UsageError
from audiosearch.trainer.recipe import Recipe, bundled_recipes, find_recipe, load_recipe, resolve


@pytest.fixture
def written(tmp_path: Path):
    """Writes a recipe's content and gives its path."""

    def write(content: object) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
        return path

    return write


def problem(path: Path, *overrides: str) -> str:
    """What loading says against a recipe, without the file's name that it must begin with."""
    with pytest.raises(UsageError) as caught:
        load_recipe(path, overrides)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_a_whole_recipe_is_what_was_written_and_the_paper_s_defaults(written):
    recipe = load_recipe(written(BASE_RECIPE))
    assert (recipe.name, recipe.base, recipe.seed, recipe.grad_cache) == ("tiny-adapted", "base", 3, True)
    assert recipe.lora is not None
    assert (recipe.lora.rank, recipe.lora.targets) == (4, ["q_proj", "k_proj", "v_proj"])
    stage = recipe.stages[0]
    assert (stage.steps, stage.batch_size, stage.weight_decay, stage.betas) == (6, 8, 1e-3, [0.9, 0.999])
    assert (recipe.loss.initial_tau, recipe.loss.false_negative_margin) == (0.07, 0.1)
    assert load_recipe(written(recipe.to_dict())) == recipe  # what a checkpoint keeps is a recipe again
    scratch = load_recipe(written(SCRATCH_RECIPE))
    assert scratch.scratch is not None and scratch.scratch.mix.crop_seconds == {0.5: 1.0, 1.0: 1.0}
    assert load_recipe(written(scratch.to_dict())) == scratch


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stpes": 3}, "unknown key stpes; known are base, "),
        ({"lora__rang": 3}, "unknown key lora.rang"),
        ({"stages__0__step": 3}, "unknown key stages.0.step"),
        ({"data__sources__0__tabel": "x"}, "unknown key data.sources.0.tabel"),
        ({"data__sources": [{"layout": "manifest"}]}, "missing key data.sources.0.table"),
        ({"stages": [{"name": "a", "steps": 1}]}, "missing key stages.0.batch_size"),
        ({"seed": "seven"}, "seed is 'seven', expected int"),
        ({"seed": 1.5}, "seed is 1.5, expected int"),
        ({"stages__0__steps": "many"}, "stages.0.steps is 'many', expected int"),
        ({"stages__0__betas": [0.9, "x"]}, "stages.0.betas.1 is 'x', expected float"),
        ({"stages": {"name": "a"}}, "stages is {'name': 'a'}, expected list"),
        ({"stages": [4]}, "stages.0 must be a mapping"),
        ({"lora": 4}, "lora must be a mapping"),
        ({"loss__initial_tau": True}, "loss.initial_tau is True, expected float"),
        ({"grad_cache": 1}, "grad_cache is 1, expected bool"),
        ({"lora__targets": ["q_proj", 3]}, "lora.targets.1 is 3, expected str"),
        ({"loss__false_negative_margin": "no"}, "loss.false_negative_margin is 'no', expected float"),
    ],
)
def test_unknown_missing_and_mistyped_keys_are_named(written, change, words):
    assert problem(written(changed(BASE_RECIPE, **change))).startswith(words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data__sources": []}, "data.sources is empty"),
        ({"data__sources__0__share": 0}, "data.sources.0.share must be above 0"),
        ({"data__held_out": [{"table": "x", "share": -1}]}, "data.held_out.0.share must be above 0"),
        ({"data__min_seconds": 5}, "data.min_seconds must be at least 0 and below max_seconds"),
        ({"data__length_pool_batches": 0}, "data.length_pool_batches must be at least 1"),
        ({"data__decode_workers": -1}, "data.length_pool_batches must be at least 1 and decode_workers at least 0"),
        ({"lora__rank": 0}, "lora.rank and alpha must be at least 1"),
        ({"lora__targets": []}, "lora.rank and alpha must be at least 1, and targets must name a layer"),
        ({"lora__dropout": 1.0}, "lora.dropout must be in [0, 1)"),
        ({"stages__0__steps": 0}, "stages.0.steps and micro_batch_size must be at least 1"),
        ({"stages__0__batch_size": 1}, "stages.0.steps and micro_batch_size must be at least 1, batch_size"),
        ({"stages__0__objective": "pears"}, "stages.0.objective is 'pears', expected one of pairs, text"),
        ({"stages__0__final_learning_rate": 1.0}, "stages.0.final_learning_rate must be at least 0 and at most"),
        ({"stages__0__betas": [0.9]}, "stages.0.betas must be two numbers"),
        ({"stages__0__warmup_steps": -1}, "stages.0.betas must be two numbers, warmup_steps"),
        ({"stages__0__gradient_clip": 0}, "stages.0.betas must be two numbers, warmup_steps and weight_decay"),
        ({"loss__initial_tau": 0}, "loss.initial_tau must be above 0"),
        ({"hard_negatives__share": 1.0}, "hard_negatives.share must be in [0, 1)"),
        ({"hard_negatives__every_steps": 0}, "hard_negatives.share must be in [0, 1), every_steps"),
        ({"base": ""}, "give exactly one of base and scratch"),
        ({"scratch": {}}, "give exactly one of base and scratch"),
        ({"lora": None}, "lora belongs to base: give both or neither"),
        ({"stages": []}, "stages must be at least one"),
        ({"stages": [BASE_RECIPE["stages"][0]] * 2}, "stages must be at least one, each with a name of its own"),
        ({"precision": "half"}, "precision is 'half', expected one of auto, float32, bfloat16"),
        ({"stages__0__objective": "text"}, "stages: objective text needs scratch"),
        ({"stages__0__without": ["fold 4"]}, "stages: without needs scratch"),
        ({"stages__0__mix": {"questions": 0.1}}, "stages: mix needs scratch"),
        ({"stages__0__initial_tau": 0.0}, "stages.0.initial_tau must be above 0"),
        ({"ema_decay": 1.0}, "ema_decay must be in [0, 1)"),
        ({"keep_checkpoints": 0}, "keep_checkpoints must be at least 1"),
        ({"log_every_steps": 0}, "log_every_steps must be at least 1"),
        ({"checkpoint_every_steps": 0}, "checkpoint_every_steps must be at least 1"),
        ({"evaluate_every_steps": 0}, "evaluate_every_steps must be at least 1"),
    ],
)
def test_values_that_cannot_be_are_refused_by_key(written, change, words):
    assert problem(written(changed(BASE_RECIPE, **change))).startswith(words)


def test_values_that_cannot_be_in_a_recipe_from_nothing(written):
    assert "hard_negatives.share needs a base" in problem(written(changed(SCRATCH_RECIPE, hard_negatives__share=0.1)))
    empty = changed(SCRATCH_RECIPE, scratch__mix__crop_seconds={})
    assert problem(written(empty)).startswith("scratch.mix.crop_seconds must give lengths above 0")
    assert problem(written(changed(SCRATCH_RECIPE, scratch__mix__crop_seconds={"x": 1}))).startswith(
        "scratch.mix.crop_seconds is 'x', expected float"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scenes": -0.1}, "scratch.mix.scenes, questions, examples and joint must be at least 0"),
        ({"scenes": 0.4, "questions": 0.4, "examples": 0.2, "joint": 0.1}, "scratch.mix.scenes, questions, examples"),
        ({"sound_answers": 1.5}, "scratch.mix.sound_answers and augment must be in [0, 1]"),
        ({"augment": -1}, "scratch.mix.sound_answers and augment must be in [0, 1]"),
        ({"scene_kinds": {"stacked": 1}}, "scratch.mix.scene_kinds.stacked: expected one of layered, ordered, counted"),
        ({"scene_kinds": {"layered": 0}}, "scratch.mix.scene_kinds must give at least one kind a share above 0"),
        ({"scene_kinds": {}}, "scratch.mix.scene_kinds must give at least one kind a share above 0"),
        ({"scene_kinds": {"layered": 2, "single": -1}}, "scratch.mix.scene_kinds must give at least one kind"),
        ({"level_gap_db": [3]}, "scratch.mix.level_gap_db must be two numbers"),
        ({"level_gap_db": [6, 3]}, "scratch.mix.level_gap_db must be two numbers"),
        ({"level_gap_db": [-1, 3]}, "scratch.mix.level_gap_db must be two numbers"),
        ({"speeds": [1.2, 0.8]}, "scratch.mix.speeds must be two numbers"),
        ({"speeds": [0.1, 1.0]}, "scratch.mix.speeds must be two numbers"),
        ({"mixture": 0.1}, "unknown key scratch.mix.mixture"),
    ],
)
def test_shares_of_a_batch_that_cannot_be_are_refused_by_key(written, change, words):
    assert problem(written(changed(SCRATCH_RECIPE, scratch__mix=change))).startswith(words)


def test_what_is_no_recipe_at_all_is_said(written, tmp_path):
    assert problem(written("just words")) == "the recipe must be a mapping"
    assert problem(written("")) == "the recipe must be a mapping"
    assert problem(tmp_path / "none.yaml").startswith("no such recipe; the bundled ones are adapt, alm2vec-finetune, ")
    with pytest.raises(UsageError, match=r"recipe\.yaml: not valid YAML"):
        load_recipe(written("name: [1"))


def test_overrides_go_over_the_file(written):
    path = written(BASE_RECIPE)
    given = ["stages.0.steps=100", "lora.targets=[o_proj]", "data.sources.0.share=2", "hard_negatives.share=0.25"]
    recipe = load_recipe(path, [*given, "lora.expected_parameters=7", "name=other", "loss.false_negative_margin=null"])
    assert recipe.stages[0].steps == 100 and recipe.stages[0].batch_size == 8
    assert recipe.lora is not None and recipe.lora.targets == ["o_proj"] and recipe.lora.expected_parameters == 7
    assert recipe.data.sources[0].share == 2.0 and recipe.hard_negatives.share == 0.25
    assert recipe.name == "other" and recipe.loss.false_negative_margin is None
    rates = load_recipe(path, ["stages.0.learning_rate=1e-2", "stages.0.final_learning_rate=2E-5"]).stages[0]
    assert (rates.learning_rate, rates.final_learning_rate) == (0.01, 2e-5)


def test_a_bad_override_is_named(written):
    path = written(BASE_RECIPE)
    assert problem(path, "stages.0.stpes=100").startswith("unknown key stages.0.stpes")
    assert problem(path, "lora.dropout=2").startswith("lora.dropout must be in [0, 1)")
    for override, words in [
        ("stages.0.steps", "--set stages.0.steps: give KEY=VALUE"),
        ("stages.7.steps=1", "--set stages.7.steps=1: "),
        ("stages.first.steps=1", "--set stages.first.steps=1: "),
        ("seed.x.y=1", f"--set seed.x.y=1: {path} has no such key"),
        ("seed=[", "--set seed=[: the value is not valid YAML"),
    ]:
        with pytest.raises(UsageError) as caught:
            load_recipe(path, [override])
        assert str(caught.value).startswith(words) and "\n" not in str(caught.value)


def test_an_override_that_names_a_file_here_is_that_file(written, tmp_path, monkeypatch):
    path = written(BASE_RECIPE)
    here = tmp_path / "here"
    here.mkdir()
    (here / "mine.jsonl").write_text("{}")
    (here / "base").mkdir()
    monkeypatch.chdir(here)
    recipe = load_recipe(path, ["data.sources.0.table=mine.jsonl", "base=./base", "name=base"])
    assert recipe.data.sources[0].table == str(here / "mine.jsonl")
    assert Path(recipe.base) == here / "base"
    assert recipe.name == "base"  # a plain word is not taken for a folder of that name
    assert load_recipe(path, ["data.sources.0.table=other.jsonl"]).data.sources[0].table == "other.jsonl"


def test_paths_come_from_the_environment_or_lie_beside_the_recipe(tmp_path, monkeypatch):
    monkeypatch.delenv("NO_SUCH_PLACE", raising=False)
    with pytest.raises(UsageError, match=r"\$NO_SUCH_PLACE/x\.csv: set the environment variable NO_SUCH_PLACE"):
        resolve("$NO_SUCH_PLACE/x.csv", tmp_path)
    monkeypatch.setenv("SOME_PLACE", "/some/place")
    assert resolve("$SOME_PLACE/a/b.csv", tmp_path) == Path("/some/place/a/b.csv")
    assert resolve("$SOME_PLACE", tmp_path) == Path("/some/place")
    assert resolve("a/b.csv", tmp_path) == tmp_path / "a/b.csv"
    assert resolve("/a/b.csv", tmp_path) == Path("/a/b.csv")


def test_bundled_recipes_load_and_are_found_by_name():
    assert bundled_recipes() == ["adapt", "alm2vec-finetune", "alm2vec-pretrain", "mini"]  # the phrase book is none
    for name in bundled_recipes():
        assert load_recipe(find_recipe(name)).name
    assert find_recipe("phrases") == Path("phrases")


def test_the_two_recipes_of_the_paper_say_what_it_says():
    """arXiv 2606.30682, section 2."""
    stages = {}
    for name in ("alm2vec-pretrain", "alm2vec-finetune"):
        recipe: Recipe = load_recipe(find_recipe(name))
        stage = recipe.stages[0]
        stages[name] = (stage.steps, stage.batch_size, recipe.data.max_seconds)
        assert recipe.lora is not None and recipe.scratch is None
        assert (recipe.lora.rank, recipe.lora.alpha, recipe.lora.dropout) == (16, 32, 0.05)
        assert (recipe.lora.targets, recipe.lora.expected_parameters) == (["q_proj", "k_proj", "v_proj"], 6_881_280)
        rates = (stage.learning_rate, stage.final_learning_rate, stage.warmup_steps, stage.weight_decay)
        assert rates == (1e-4, 1e-5, 500, 1e-3)
        assert len(recipe.data.sources) > 1 and recipe.grad_cache
    assert stages == {"alm2vec-pretrain": (4_000, 256, 15.0), "alm2vec-finetune": (2_000, 64, 30.0)}


def test_a_stage_may_mix_otherwise():
    path = find_recipe("mini")
    recipe = load_recipe(path, ["stages.1.mix={questions: 0.05}"])
    assert recipe.mix_of(recipe.stages[1]) == replace(recipe.scratch.mix, questions=0.05)
    assert recipe.mix_of(recipe.stages[0]) == recipe.scratch.mix
    for value, words in (("{question: 0.1}", "has a key that scratch.mix has not: question"), ("{joint: 2}", "joint")):
        with pytest.raises(UsageError, match=words):
            load_recipe(path, [f"stages.1.mix={value}"])
