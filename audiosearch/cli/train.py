"""`audiosearch train`."""

from __future__ import annotations

import click

from audiosearch.config import wait_passively


@click.command()
@click.argument("recipe")
@click.option(
    "--out", metavar="DIR", type=click.Path(file_okay=False), help="Where checkpoints go. [default: as in the recipe]"
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in the output folder.")
@click.option("--dry-run", is_flag=True, help="Check and print the recipe, train nothing.")
def train(recipe: str, out: str | None, resume: bool, dry_run: bool) -> int:
    """Train a model from a recipe.

    RECIPE is a YAML file, or the name of one that came with audiosearch. Prints the folder of the finished model.
    """
    from audiosearch.trainer.recipe import find_recipe, load_recipe

    path = find_recipe(recipe)
    load_recipe(path)  # a mistake in it is said before torch is loaded
    if dry_run:
        click.echo(f"# {path}")
        click.echo(path.read_text(encoding="utf-8"), nl=False)
        return 0
    wait_passively()
    from audiosearch.trainer import loop

    click.echo(loop.train(str(path), out, resume))
    return 0
