"""`audiosearch train`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from audiosearch.cli.common import fields_of, print_json
from audiosearch.config import keep_freed_memory, wait_passively


@click.command()
@click.argument("recipe")
@click.option(
    "--out", metavar="DIR", type=click.Path(file_okay=False), help="Where the run lives. [default: runs/NAME]"
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in the output folder.")
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Put over the recipe: stages.0.steps=100.")
@click.option("--dry-run", is_flag=True, help="Check the recipe, say what it would cost, train nothing.")
@click.option("--check-data", is_flag=True, help="Check every row and write the manifest, train nothing.")
@click.option("--world-size", type=click.IntRange(min=1), default=1, help="GPUs that --dry-run reckons with.")
@click.option("--json", "as_json", is_flag=True, help="--dry-run as JSON.")
def train(
    recipe: str,
    out: str | None,
    resume: bool,
    overrides: tuple[str, ...],
    dry_run: bool,
    check_data: bool,
    world_size: int,
    as_json: bool,
) -> int:
    """Train a model from a recipe.

    RECIPE is a YAML file, or the name of one that came with audiosearch. Prints the folder of the finished model. On
    several GPUs: `torchrun --nproc-per-node N -m audiosearch train RECIPE`.
    """
    from audiosearch.trainer.recipe import find_recipe, load_recipe

    path = find_recipe(recipe)
    loaded = load_recipe(path, overrides)  # a mistake in it is said before torch is loaded
    if dry_run:
        from audiosearch.trainer.estimate import estimate, report

        found = estimate(loaded, beside=path.parent, world_size=world_size)
        if as_json:
            print_json(fields_of(found))
        else:
            click.echo(report(found))
        return 0
    if check_data:
        from audiosearch.trainer.checkpoint import Checkpoints
        from audiosearch.trainer.corpus import MANIFEST, check_sources, prepare_corpus

        def say(line: str) -> None:
            click.echo(line, err=True)

        folder = Path(out or Path("runs") / loaded.name)
        begun = bool(Checkpoints(folder / "checkpoints").files())
        if begun:
            say(f"{folder}: a run has begun here and keeps the rows that it began with")
        prepare_corpus(loaded.data, path.parent, folder, say, again=not begun)
        check_sources(loaded.data.held_out, loaded.data, path.parent, say)
        click.echo(folder / MANIFEST)
        return 0
    wait_passively()
    keep_freed_memory()
    from audiosearch.trainer import loop

    finished = loop.train(str(path), out, resume=resume, overrides=overrides)
    if loop.is_main_process():
        click.echo(finished)
    sys.stdout.flush()
    return 0
