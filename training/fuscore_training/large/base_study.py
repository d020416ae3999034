"""What the parts of a base model are worth: the same short run with parts of it, several seeds.

    python -m fuscore_training.large.base_study run training/recipes/smollm2.yaml
    python -m fuscore_training.large.base_study report

A run that has ended is a line of the results and is not repeated, so a study of many hours can be
done piece by piece. `report` prints the table and draws the learning curves.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from matplotlib.figure import Figure
from torch import nn

from fuscore_metric.model import FuScore
from fuscore_metric.prompts import DEFAULT_ASPECT
from fuscore_training.embedded.run import UNDAMAGED
from fuscore_training.evaluate import evaluate
from fuscore_training.large.bases import make_smollm2
from fuscore_training.large.fine_tune import Base, new_backbone, new_trainer, read_parts
from fuscore_training.large.predict_images import predict_images
from fuscore_training.ratings import RatingsTable
from fuscore_training.recipe import FineTuneRecipe, RecipeError, read_recipe
from fuscore_training.trainer import LevelReader, training_arguments

log = logging.getLogger(__name__)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

RESULTS = Path("training/recipes/smollm2.jsonl")
EVALUATIONS = 5
"""How often a run is evaluated while it goes on."""
SHARE = 4
"""While a run goes on, one of so many source pairs of the validation scenes is scored."""
MEASURES = {
    "srcc": "all",
    "within_srcc": "within scenes",
    "undamaged_srcc": "undamaged",
    "undamaged_within_srcc": "undamaged, within scenes",
    "damaged_srcc": "damaged",
    "mirror": "moved by a mirror",
    "per_second": "triples per second",
    "millions": "million parameters",
}
"""Numbers of a run, and their columns in the table."""


@dataclass(frozen=True)
class Variant:
    """A base model and what an image tells it.

    Attributes:
        layers: Layers of the language model that are kept.
        random_language: Start with an untrained language model.
        tower: Whether an image has the tokens of the vision tower.
        statistics: Whether an image has the tokens of its cell statistics.
    """

    layers: int = 8
    random_language: bool = False
    tower: bool = True
    statistics: bool = True


EMBEDDED = "embedded weights"
VARIANTS = {
    "8 layers": Variant(),
    "8 layers, random language model": Variant(random_language=True),
    "8 layers, statistics alone": Variant(tower=False),
    "8 layers, tower alone": Variant(statistics=False),
    "16 layers": Variant(layers=16),
    "30 layers": Variant(layers=30),
}


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="Recipe of the whole run.")],
    work: Annotated[Path, typer.Option(help="Folder for bases and runs.")] = Path("runs/study"),
    out: Annotated[Path, typer.Option(help="Results, one JSON line per run.")] = RESULTS,
    wheels: Annotated[Path | None, typer.Option(help="Folder of the packages' wheels.")] = None,
    steps: Annotated[int, typer.Option(help="Steps of each run.")] = 150,
    seeds: Annotated[int, typer.Option(help="Runs of each variant.")] = 3,
    only: Annotated[list[str] | None, typer.Option(help="Names of variants.")] = None,
) -> None:
    """Train what has not been trained yet, and measure it on the validation scenes."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    whole = read_recipe(recipe)
    if not isinstance(whole, FineTuneRecipe):
        raise RecipeError(f"Expected a recipe with `model` under `base`, got {recipe}")
    mark = _mark(whole)
    for seed in range(seeds):
        for name in only or [EMBEDDED, *VARIANTS]:
            key: dict[str, Any] = {"variant": name, "recipe": mark}
            if name != EMBEDDED:
                key |= {"seed": seed, "steps": steps}
            if any(key.items() <= line.items() for line in _read(out)):
                continue
            if name == EMBEDDED:
                found = _embedded(whole, work)
            else:
                found = _trained(whole, key, work, wheels)
            with out.open("a") as file:
                file.write(json.dumps(key | found) + "\n")
            log.info("%s", key | found)


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="Results of `run`.")] = RESULTS,
    plot: Annotated[Path | None, typer.Option(help="Picture of the learning curves.")] = None,
) -> None:
    """Print a table, mean and standard deviation over seeds, and draw the learning curves."""
    lines = pd.DataFrame(_read(results))
    typer.echo(f"| base | runs | triples | {' | '.join(MEASURES.values())} |")
    typer.echo("|---" * (len(MEASURES) + 3) + "|")
    for (name, _), rows in lines.groupby(["variant", "triples"], sort=False, dropna=False):
        triples = "" if rows["triples"].isna().all() else f"{rows['triples'].iloc[0]:,.0f}"
        cells = " | ".join(_cell(rows[measure]) for measure in MEASURES)
        typer.echo(f"| {name} | {len(rows)} | {triples} | {cells} |")
    _draw(lines.dropna(subset=["curve"]), plot or results.with_suffix(".png"))


def _cell(values: pd.Series[float]) -> str:
    mean = f"{values.mean():.3g}"
    return f"{mean} ± {values.std(ddof=1):.2g}" if len(values) > 1 else mean


def _draw(lines: pd.DataFrame, path: Path) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for number, (name, runs) in enumerate(lines.groupby("variant", sort=False)):
        for n, curve in enumerate(runs["curve"]):
            seen, srcc = np.array(curve).T
            axes.plot(seen, srcc, f"C{number}", marker=".", label=name if n == 0 else None)
    axes.set(xlabel="triples seen", ylabel="SRCC, a quarter of the source pairs")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def _trained(
    whole: FineTuneRecipe, key: dict[str, Any], work: Path, wheels: Path | None
) -> dict[str, Any]:
    """Train a variant and measure it."""
    variant, seed, steps = VARIANTS[key["variant"]], key["seed"], key["steps"]
    directory = work / "bases" / f"{variant.layers}-{int(variant.random_language)}-{seed}"
    if not (directory / "LICENCES.md").exists():  # what is written last
        make_smollm2(
            directory,
            wheels=wheels,
            layers=variant.layers,
            random_language=variant.random_language,
            seed=seed,
        )
    chosen = replace(
        whole,
        base=replace(whole.base, model=str(directory)),
        preprocessing=whole.preprocessing
        | {"tower": variant.tower, "statistics": variant.statistics},
        batches=replace(whole.batches, seed=seed),
        fit=replace(whole.fit, steps=steps, evaluate_every=max(1, steps // EVALUATIONS), seed=seed),
    )
    started = time.monotonic()
    parts = read_parts(chosen, work / "ratings")
    backbone = new_backbone(chosen, Base(chosen.base))
    watched = parts | {"val": _some_pairs(parts["val"])}
    size = chosen.batches.scenes_per_batch * chosen.batches.methods_per_scene
    folder = work / "fit" / sha256(repr(key).encode()).hexdigest()[:8]
    args = training_arguments(folder, chosen.fit, batch_size=size, mixed=chosen.base.mixed)
    trainer = new_trainer(backbone, chosen, watched, args)
    trainer.train()
    seconds = time.monotonic() - started
    evaluated = [line for line in trainer.state.log_history if "eval_srcc" in line]
    return {
        "triples": steps * size,
        "seconds": round(seconds),
        "trained": sum(p.numel() for p in backbone.parameters() if p.requires_grad),
        "curve": [[line["step"] * size, round(line["eval_srcc"], 4)] for line in evaluated],
        **_measure(trainer.reader, parts["val"], args.device),
    }


def _embedded(whole: FineTuneRecipe, work: Path) -> dict[str, Any]:
    """Measure the shipped weights on the same pictures."""
    model = FuScore.from_pretrained("embedded")
    reader = LevelReader(model.backbone)
    return _measure(reader, read_parts(whole, work / "ratings")["val"], model.device)


def _measure(reader: nn.Module, table: RatingsTable, device: torch.device) -> dict[str, float]:
    """The numbers of `MEASURES`; `mirror` is a mean change over the scores' standard deviation."""
    reader.eval()
    started = time.monotonic()
    scores = predict_images(reader, table, [DEFAULT_ASPECT], device=device)[0][:, 0]
    seconds = time.monotonic() - started
    frame = table.frame
    undamaged = frame["kind"].isin(UNDAMAGED).to_numpy()
    count = sum(p.numel() for p in reader.parameters())
    found: dict[str, float] = {"per_second": len(table) / seconds, "millions": count / 1e6}
    everything = np.ones_like(undamaged)
    for name, rows in (("", everything), ("undamaged_", undamaged), ("damaged_", ~undamaged)):
        some = frame[rows]
        columns = some[DEFAULT_ASPECT], some["scene"], some["method"]
        agreement = evaluate(scores[rows], *columns, n_boot=0)
        found[f"{name}srcc"] = agreement.srcc.value
        found[f"{name}within_srcc"] = agreement.within_srcc.value
    few = _some_pairs(table)
    mirrored = predict_images(reader, few, [DEFAULT_ASPECT], device=device, mirror=True)[0][:, 0]
    at = frame.index.get_indexer(few.frame.index)
    found["mirror"] = float(np.abs(mirrored - scores[at]).mean() / scores.std())
    return {name: round(value, 4) for name, value in found.items()}


def _some_pairs(table: RatingsTable) -> RatingsTable:
    """One source pair of `SHARE`; rows keep their index."""
    numbers, _ = pd.factorize(table.source_pairs)
    return replace(table, frame=table.frame[numbers % SHARE == 0])


def _mark(recipe: FineTuneRecipe) -> str:
    """What the results of a recipe depend on, but for where its files are and what runs change."""
    options = asdict(recipe)
    del options["base"], options["fit"]["steps"], options["fit"]["evaluate_every"]
    del options["ratings"], options["split"], options["batches"]["workers"]
    return sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:8]


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


if __name__ == "__main__":
    app()
