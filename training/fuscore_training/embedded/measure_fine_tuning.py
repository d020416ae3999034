"""What fine-tuning the embedded weights gains and forgets: the numbers of training/README.md.

    python -m fuscore_training.embedded.measure_fine_tuning training/recipes --data ../shared/data

Two tables stand for one's own ratings, none of a test scene or a held-out method:

- `people`: classic fusions of noisy, striped, blurred and clean sources, with people's ratings of
  the same fusion, damage and strength on other scenes (`human_severity.csv`); label kind proxy, as
  nobody rated these pictures;
- `viewers`: viewers' ratings of half of the validation scenes, measured on the other half.

After each run the weights are also measured on all of the viewers' ratings of validation scenes.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image as PILImage

from fuscore_metric.model import FuScore
from fuscore_training.embedded.fine_tune import fine_tune_embedded
from fuscore_training.embedded.fit_cached import predict_cached
from fuscore_training.embedded.run import PreparedData, prepare
from fuscore_training.evaluate import evaluate
from fuscore_training.fusions.classic import (
    Image,
    average,
    laplacian_pyramid,
    luma,
    recolour,
    to_bytes,
)
from fuscore_training.labels.degradations import Sources, degrade
from fuscore_training.labels.proxy_ratings import Scene, find_scenes
from fuscore_training.ratings import RatingsTable, write_ratings
from fuscore_training.recipe import EmbeddedFineTuneRecipe, EmbeddedRecipe, RecipeError, read_recipe
from fuscore_training.split import read_split

KINDS = {
    "gaussian_noise_sigma": "noise",
    "stripe_noise_std": "stripes",
    "gaussian_blur_sigma_px": "blur",
}
"""The study's names of damage, and ours."""
SETS = ("VIFB", "TNO", "RoadScene")
SCENES = {"train": 12, "val": 6, "test": 12}
SEEDS = 3


def shift_invariant_haar(ir: Image, vis: Image, *, levels: int = 4) -> Image:
    """The stronger detail of each level without subsampling, mean of what is left."""
    fused = np.zeros_like(ir)
    for level in range(levels):
        low_ir, low_vis = _low(ir, 2**level), _low(vis, 2**level)
        detail_ir, detail_vis = ir - low_ir, vis - low_vis
        fused += np.where(np.abs(detail_ir) > np.abs(detail_vis), detail_ir, detail_vis)
        ir, vis = low_ir, low_vis
    return np.asarray(np.clip(fused + (ir + vis) / 2, 0, 1))


def _low(image: Image, step: int) -> Image:
    for axis in (0, 1):
        image = (np.roll(image, step, axis) + 2 * image + np.roll(image, -step, axis)) / 4
    return image


FUSIONS = {
    "average": average,
    "gradient_pyramid": laplacian_pyramid,  # the nearest that we have
    "sidwt_haar": shift_invariant_haar,
}
"""The study's fusions."""


def people_table(data: Path, split_file: Path, out: Path) -> Path:
    """Write `people`, scenes of training split into train and val, validation scenes as test."""
    study = pd.read_csv(data / "human_severity.csv", keep_default_na=False)
    split, scenes = read_split(split_file), {scene.name: scene for scene in find_scenes(data)}
    there = sorted(name for name in scenes if name.split("/")[0] in SETS)
    rng = np.random.default_rng(0)
    others = rng.permutation([n for n in there if n not in {*split.val, *split.test}]).tolist()
    measured = rng.permutation([n for n in there if n in split.val]).tolist()
    learned = SCENES["train"] + SCENES["val"]
    part_of = {name: "train" if n < SCENES["train"] else "val" for n, name in enumerate(others)}
    chosen = [*others[:learned], *measured[: SCENES["test"]]]
    rows = []
    for name in chosen:
        made = study_pictures(scenes[name], study, out / name.replace("/", "_"))
        rows += [row | {"split": part_of.get(name, "test")} for row in made]
    words = "Opinions of people on such fusions of other scenes, by fusion, damage and strength."
    write_ratings(RatingsTable(pd.DataFrame(rows), "proxy", words), out / "people.parquet")
    return out / "people.parquet"


def study_pictures(scene: Scene, study: pd.DataFrame, folder: Path) -> list[dict[str, Any]]:
    """Make each picture of the study from one scene.

    Args:
        scene: Its sources are damaged before they are fused.
        study: `human_severity.csv`.
        folder: To write the fusions into.

    Returns:
        For each row of the study `scene`, `method` (the fusion and what was done to the sources),
        paths `ir`, `vis` (as they were) and `fused`, and of people's ratings of such pictures the
        mean, `overall`, 1-5, and the deviation between people, `sigma`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clean = {what: _rgb(getattr(scene, what)) for what in ("ir", "vis")}
    sources = Sources(luma(clean["ir"]), luma(clean["vis"]))
    draws = np.random.default_rng(zlib.crc32(scene.name.encode()))
    damaged: dict[tuple[str, str], dict[str, Image]] = {}
    rows: list[dict[str, Any]] = []
    for opinion in study.to_dict("records"):
        kind = str(opinion["distortion"])
        key = (kind, str(opinion["level"]))
        if key not in damaged:
            damaged[key] = {
                what: _damaged(image, kind, str(opinion["parameter"]), sources, draws)
                for what, image in clean.items()
            }
        shown, method = damaged[key], str(opinion["fusion_method"])
        fused = FUSIONS[method](luma(shown["ir"]), luma(shown["vis"]))
        file = folder / f"{method}_{kind}_{opinion['level']}.png"
        PILImage.fromarray(to_bytes(recolour(fused, shown["vis"]))).save(file)
        row = {"scene": scene.name, "method": file.stem, "fused": str(file.absolute())}
        opinions = {
            "overall": 1 + float(opinion["mean_opinion_0_100"]) / 25,
            "sigma": float(opinion["mean_sd_between_people"]) / 25,
        }
        rows.append(row | {"ir": str(scene.ir), "vis": str(scene.vis)} | opinions)
    return rows


def _damaged(
    image: Image, kind: str, strength: str, sources: Sources, draws: np.random.Generator
) -> Image:
    if kind not in KINDS:
        return image
    return degrade(image, KINDS[kind], float(strength), sources, draws) / 255.0


def viewers_table(viewed: RatingsTable, out: Path) -> Path:
    """Write `viewers`: half of the validation scenes to learn from, the others to measure."""
    scenes = sorted(viewed.frame["scene"].unique())
    order = np.random.default_rng(100).permutation(len(scenes))
    learned = {scenes[n] for n in order[: len(scenes) // 2]}
    split = np.where(viewed.frame["scene"].isin(learned), "train", "val")
    write_ratings(replace(viewed, frame=viewed.frame.assign(split=split)), out / "viewers.parquet")
    return out / "viewers.parquet"


def _rgb(path: str | Path) -> NDArray[np.float64]:
    return np.asarray(PILImage.open(path).convert("RGB")) / 255.0


def remembered(weights: Path | str, original: PreparedData) -> str:
    """SRCC over all / within scenes with the viewers' ratings of validation scenes."""
    frame = original.parts["val"].frame
    backbone = FuScore.from_pretrained(str(weights), device="cpu").backbone
    scores, _ = predict_cached(backbone, original.cache, original.rows("val"))
    found = evaluate(scores, frame["overall"], frame["scene"], frame["method"], n_boot=0)
    return f"{found.srcc.value:.3f} / {found.within_srcc.value:.3f}"


def main() -> None:
    """Fine-tune on both tables with three seeds and print what came of it."""
    parser = argparse.ArgumentParser(description="Measure the fine-tuning of the embedded weights.")
    parser.add_argument("recipes", type=Path, help="folder of the recipes")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="pictures")
    parser.add_argument("--work", type=Path, default=Path("runs/measure"), help="folder to write")
    parser.add_argument(
        "--embedded", type=Path, default=Path("runs/embedded"), help="work folder of embedded.yaml"
    )
    options = parser.parse_args()
    recipe = read_recipe(options.recipes / "finetune-embedded.yaml")
    scratch = read_recipe(options.recipes / "embedded.yaml")
    if not (isinstance(recipe, EmbeddedFineTuneRecipe) and isinstance(scratch, EmbeddedRecipe)):
        raise RecipeError(f"{options.recipes}: expected the recipes of the repository")
    original = prepare(scratch, data=options.data, work=options.embedded)
    sys.stdout.write(f"before: remembered {remembered(recipe.base, original)}\n")
    for table in (
        people_table(options.data, Path(scratch.split), options.work),
        viewers_table(original.parts["val"], options.work),
    ):
        for seed in range(SEEDS):
            seeded = replace(
                recipe,
                ratings=str(table),
                fit=replace(recipe.fit, seed=seed),
                batches=replace(recipe.batches, seed=seed),
            )
            work = options.work / table.stem
            found = fine_tune_embedded(seeded, work=work, out=work / f"checkpoint-{seed}")
            sys.stdout.write(
                f"{table.stem}, seed {seed}: remembered {remembered(found.out, original)}\n"
                f"{found.summary()}\n"
            )


if __name__ == "__main__":
    main()
