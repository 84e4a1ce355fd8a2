"""`audiosearch train`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

from audiosearch.config import wait_passively
from audiosearch.errors import UsageError


def find_recipe(name: str) -> str:
    """The path of a recipe: a file, or the name of one that came with audiosearch. Raises UsageError."""
    if Path(name).is_file():
        return name
    folder = files("audiosearch.trainer") / "recipes"
    bundled = {entry.name.removesuffix(".yaml"): str(entry) for entry in folder.iterdir()} if folder.is_dir() else {}
    if name.removesuffix(".yaml") in bundled:
        return bundled[name.removesuffix(".yaml")]
    known = ", ".join(sorted(bundled)) or "none"
    raise UsageError(f"there is no recipe {name}: give a YAML file or the name of a bundled one ({known})")


@click.command()
@click.argument("recipe")
@click.option(
    "--out", metavar="DIR", type=click.Path(file_okay=False), help="Where checkpoints go. [default: as in the recipe]"
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in the output folder.")
@click.option("--dry-run", is_flag=True, help="Find and print the recipe, train nothing.")
def train(recipe: str, out: str | None, resume: bool, dry_run: bool) -> int:
    """Train a model from a recipe.

    RECIPE is a YAML file, or the name of one that came with audiosearch. Prints the folder of the finished model.
    """
    path = find_recipe(recipe)
    if dry_run:
        click.echo(f"# {path}")
        click.echo(Path(path).read_text(encoding="utf-8"), nl=False)
        return 0
    wait_passively()
    from audiosearch.trainer import loop

    click.echo(loop.train(path, out, resume))
    return 0
