"""The `fuscore-train` command: `fuscore-train recipe.yaml`, `fuscore-train evaluate`."""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fuscore_metric.compute.openmp import wait_briefly
from fuscore_training.importers import cli as cli_import

app = typer.Typer(
    name="fuscore-train",
    help="Make FuScore's weights from ratings. `fuscore-train RECIPE.yaml` is short for `train`.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

RecipeFile = Annotated[Path, typer.Argument(help="YAML recipe.")]
Data = Annotated[Path, typer.Option(help="Folder of real source pairs and fusions.")]
Work = Annotated[Path, typer.Option(help="Folder for ratings, features and logs.")]


@app.command()
def train(
    recipe: RecipeFile,
    ratings: Annotated[
        Path | None,
        typer.Option(help="Ratings table to fine-tune on, in the place of the recipe's."),
    ] = None,
    data: Data = Path("../shared/data"),
    work: Annotated[
        Path | None,
        typer.Option(help="Folder for ratings, features and logs; runs/RECIPE by default."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Checkpoint to write; WORK/checkpoint by default.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start anew where an earlier run was interrupted.")
    ] = False,
) -> None:
    """Train by a recipe: fine-tune its base model, or make an embedded model without one.

    A fine-tuning of a big model that was interrupted goes on from its last checkpoint in WORK.
    """
    from fuscore_training.recipe import (
        EmbeddedFineTuneRecipe,
        EmbeddedRecipe,
        RecipeError,
        read_recipe,
    )

    first = os.environ.get("RANK", "0") == "0"  # of the processes that accelerate has started
    level = logging.INFO if first else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", force=True)
    chosen = read_recipe(recipe)
    work = work or Path("runs") / recipe.stem
    out = out or work / "checkpoint"
    if isinstance(chosen, EmbeddedRecipe):
        from fuscore_training.embedded.run import run

        if ratings is not None:
            raise RecipeError(
                f"{recipe}: a recipe without `base` makes its own ratings; `--ratings` is for "
                "fine-tuning, such as with recipes/finetune-embedded.yaml"
            )
        metrics = run(chosen, data=data, work=work, out=out)
    else:
        if ratings is not None:
            chosen = replace(chosen, ratings=str(ratings))
        if isinstance(chosen, EmbeddedFineTuneRecipe):
            from fuscore_training.embedded.fine_tune import fine_tune_embedded

            typer.echo(fine_tune_embedded(chosen, work=work, out=out).summary())
            return
        from fuscore_training.large.fine_tune import fine_tune

        metrics = fine_tune(chosen, work=work, out=out, restart=restart)
    if first:
        typer.echo(json.dumps(metrics, indent=2))


@app.command()
def ablation(
    recipe: RecipeFile,
    data: Data = Path("../shared/data"),
    work: Work = Path("runs/embedded"),
    steps: Annotated[int, typer.Option(help="Steps of each run.")] = 300,
    seeds: Annotated[int, typer.Option(help="Runs of each objective.")] = 3,
    out: Annotated[Path, typer.Option(help="Results, one JSON line per run; resumed.")] = Path(
        "runs/ablation.jsonl"
    ),
) -> None:
    """Train with parts of the objective and compare on the test scenes."""
    from fuscore_training.embedded.ablation import ablate, summary
    from fuscore_training.recipe import EmbeddedRecipe, RecipeError, read_recipe

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    chosen = read_recipe(recipe)
    if not isinstance(chosen, EmbeddedRecipe):
        raise RecipeError(f"{recipe}: expected a recipe of an embedded model, without `base`")
    runs = ablate(chosen, data=data, work=work, steps=steps, seeds=seeds, out=out)
    typer.echo(summary(runs))


@app.command()
def evaluate(
    ratings: Annotated[Path, typer.Argument(help="Ratings table, CSV or Parquet.")],
    model: Annotated[
        str, typer.Option(help='"embedded", a checkpoint directory, or a hub id.')
    ] = "embedded",
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Only scenes that the weights never saw.")
    ] = False,
    aspect: Annotated[str, typer.Option(help="Column of the table to compare with.")] = "overall",
    out: Annotated[Path | None, typer.Option(help="Also write the numbers as JSON.")] = None,
    batch_size: Annotated[int, typer.Option(help="Triples computed at once.")] = 8,
) -> None:
    """Compare scores with ratings: SRCC, PLCC, KRCC, within scenes, by method, pairwise."""
    from fuscore_metric.prompts import build_prompt
    from fuscore_training.evaluate import evaluate_model
    from fuscore_training.ratings import read_ratings

    build_prompt(aspect)  # an unknown aspect is refused before anything is read
    table = read_ratings(ratings)
    found = evaluate_model(table, model, held_out=held_out, aspect=aspect, batch_size=batch_size)
    typer.echo(found.to_table())
    if out is not None:
        kind = {"label_kind": table.label_kind}
        out.write_text(json.dumps(kind | json.loads(found.to_json()), indent=2) + "\n")


@app.command()
def base(
    name: Annotated[str, typer.Argument(help="smollm2: SmolLM2-135M with DINOv2-small.")],
    out: Annotated[Path, typer.Option(help="Directory to write, some 320 MB.")],
    wheels: Annotated[
        Path | None, typer.Option(help="Folder with the packages' wheels, not to download them.")
    ] = None,
    layers: Annotated[int, typer.Option(help="Layers of the language model to keep.")] = 30,
    random_language: Annotated[
        bool, typer.Option("--random-language", help="Leave the language model untrained.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the untrained parts.")] = 0,
) -> None:
    """Put a base model together from packages of PyPI, for a recipe to name."""
    from fuscore_training.large.bases import BaseError, make_smollm2

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    if name != "smollm2":
        raise BaseError(f"Expected the base model 'smollm2', got {name!r}")
    make_smollm2(out, wheels=wheels, layers=layers, random_language=random_language, seed=seed)


@app.command()
def ratings(
    recipe: RecipeFile,
    data: Data = Path("../shared/data"),
    work: Work = Path("runs/embedded"),
    out: Annotated[Path, typer.Option(help="Table to write, CSV or Parquet.")] = Path(
        "runs/embedded/ratings.parquet"
    ),
) -> None:
    """Write the ratings that a recipe of an embedded model makes, for other recipes to read."""
    from fuscore_training.embedded.run import make_ratings
    from fuscore_training.ratings import write_ratings
    from fuscore_training.recipe import EmbeddedRecipe, RecipeError, read_recipe

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    chosen = read_recipe(recipe)
    if not isinstance(chosen, EmbeddedRecipe):
        raise RecipeError(f"{recipe}: expected a recipe of an embedded model, without `base`")
    write_ratings(make_ratings(chosen, data=data, work=work), out)


cli_import.add_to(app)


def main() -> None:
    """Run the command line; bad input becomes one line on stderr and exit status 2."""
    wait_briefly()
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    # A path can only be a recipe's: no command has a dot or a slash.
    if not first.startswith("-") and {".", "/", os.sep} & set(first):
        sys.argv.insert(1, "train")
    try:
        app()
    except (ValueError, OSError, ImportError) as error:
        text = str(error)
        if isinstance(error, ModuleNotFoundError):
            text = f"{error}: pip install 'fuscore-metric[train]'"
        elif isinstance(error, OSError) and error.strerror:
            text = f"{error.strerror}: {error.filename}"
        Console(stderr=True).print(f"fuscore-train: {text}", markup=False, soft_wrap=True)
        sys.exit(2)
