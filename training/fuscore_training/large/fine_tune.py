"""A recipe -> a big model fine-tuned on images and ratings -> checkpoint: the whole way, one call.

In one process, or in several that `accelerate launch` started; each draws its own scenes. A run
that was interrupted goes on from its last checkpoint, as if nothing had happened.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import TrainingArguments
from transformers.integrations import deepspeed
from transformers.trainer_utils import get_last_checkpoint

from fuscore_metric.backbones import backbone_class
from fuscore_metric.backbones.lite.lite_llama import LiteLlama
from fuscore_metric.backbones.pretrained.pretrained_vl import PretrainedVL
from fuscore_metric.checkpoints.locate import MADE_BASE_FILE, fingerprint, locate
from fuscore_metric.checkpoints.spec import COMMIT, SPEC_FILE, read_spec
from fuscore_metric.model import FuScore
from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT
from fuscore_training.calibration import Predictions, calibrate
from fuscore_training.evaluate import Evaluation, evaluate
from fuscore_training.export import make_fuscore
from fuscore_training.importers.eva_fusion import load_ratings
from fuscore_training.labels.learned_pairs import learned_pairs
from fuscore_training.large.image_batches import make_image_loader
from fuscore_training.large.predict_images import predict_images
from fuscore_training.large.tuning import adapter_holds_all, tune
from fuscore_training.ratings import RatingsError, RatingsTable, split_by_scene
from fuscore_training.recipe import BaseOptions, FineTuneRecipe, RecipeError
from fuscore_training.split import read_split
from fuscore_training.trainer import FuScoreTrainer, LevelReader, training_arguments

log = logging.getLogger(__name__)

EXPECTED = "Expected a Qwen-VL model or a LLaVA"
STARTED = "recipe.json"
"""What a work folder's run was started with."""


def fine_tune(
    recipe: FineTuneRecipe, *, work: Path, out: Path, restart: bool = False
) -> dict[str, Any]:
    """Fine-tune a base model and write its checkpoint.

    Args:
        recipe: Options.
        work: Folder for imported ratings, the Trainer's checkpoints and TensorBoard logs.
        out: Checkpoint directory to write: an adapter alone, or all weights where any part was
            trained in full.
        restart: Forget what an interrupted run left in `work`.

    Returns:
        The metrics on the test scenes, as stored in `fuscore.json`.

    Raises:
        RecipeError: Another recipe was begun in `work`, or several GPUs without a launcher.
        RatingsError: The ratings break a rule.
        CheckpointError: The base model cannot be found or used.
    """
    size = recipe.batches.scenes_per_batch * recipe.batches.methods_per_scene
    args = training_arguments(work / "fit", recipe.fit, batch_size=size, mixed=recipe.base.mixed)
    if args.n_gpu > 1:
        raise RecipeError(
            f"Expected one GPU for one process, got {args.n_gpu}: start with `accelerate launch`"
        )
    zero3: Any = deepspeed.is_deepspeed_zero3_enabled
    if zero3():
        raise RecipeError("Expected DeepSpeed ZeRO-1 or 2, got ZeRO-3: use FSDP to cut the weights")
    begun = _begun(recipe, work / "fit", args, restart)
    with args.main_process_first(desc="ratings and base model"):
        parts = read_parts(recipe, work / "ratings")
        base = Base(recipe.base)
    backbone = new_backbone(recipe, base)
    trainer = new_trainer(backbone, recipe, parts, args)
    trainer.train(resume_from_checkpoint=begun)
    return _publish(trainer, backbone, recipe, base, parts, out)


class Base:
    """The base model on disk, and what pins it.

    Attributes:
        directory: Where it is.
        model: Hub id, or absolute path.
        revision: Commit on the hub, or "sha256:..." over the files of a directory.
        parts: What it was put together from, if `fuscore-train base` made it.
    """

    def __init__(self, options: BaseOptions) -> None:
        self.directory = locate(options.model, revision=options.revision or None, base=True)
        local = Path(options.model).expanduser().is_dir()
        self.model = str(self.directory.resolve()) if local else options.model
        # The hub's cache names the folder of a snapshot by its commit.
        commit = self.directory.name
        self.revision = fingerprint(self.directory) if local else commit
        made_of = self.directory / MADE_BASE_FILE
        self.parts = json.loads(made_of.read_text()) if made_of.is_file() else []
        if not local and not COMMIT.fullmatch(commit):
            raise RecipeError(f"Expected the hub's cache to name a commit, got {commit!r}")

    def family(self) -> type[PretrainedVL]:
        """The family's class, by the model's own `config.json`.

        Raises:
            RecipeError: It is not a family that can be fine-tuned.
        """
        if (self.directory / SPEC_FILE).is_file() and read_spec(
            self.directory
        ).family == LiteLlama.family:
            raise RecipeError(
                f"{EXPECTED} in {self.model!r}, got a checkpoint of the embedded "
                "family: to fine-tune that, say `base: DIRECTORY` and nothing under it"
            )
        try:
            found = json.loads((self.directory / "config.json").read_text())["model_type"]
            family = backbone_class(found)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise RecipeError(f"{EXPECTED} in {self.model!r}: {error}") from error
        if not issubclass(family, PretrainedVL):
            raise RecipeError(f"{EXPECTED} in {self.model!r}, got {found}")
        return family


def read_parts(recipe: FineTuneRecipe, work: Path) -> dict[str, RatingsTable]:
    """Import the ratings and split them: by the recipe's file, their own column, or a draw.

    Where nobody rated pictures of the test scenes that the file names, as with viewers, the
    validation scenes serve as test scenes too, as they do for the embedded model.

    Raises:
        RatingsError: The ratings break a rule, or a split is empty: found now, not after training.
    """
    table = load_ratings(
        recipe.ratings, work=work, revision=recipe.ratings_revision or None, seed=recipe.seed
    )
    parts = (
        read_split(Path(recipe.split)).apply(table)
        if recipe.split
        else split_by_scene(table, seed=recipe.seed)
    )
    if recipe.split and not len(parts["test"]):
        parts["test"] = parts["val"]
    parts["train"] = _with_pairs(parts["train"])
    log.info("rows: %s", {name: len(part) for name, part in parts.items()})
    if empty := [name for name, part in parts.items() if not len(part)]:
        raise RatingsError(f"Expected rows in every split of {recipe.ratings}, none in {empty}")
    return parts


def _with_pairs(table: RatingsTable) -> RatingsTable:
    """Leave out scenes of a single row: nothing of theirs could be compared within a scene."""
    rows = table.frame.groupby("scene")["scene"].transform("size")
    if single := int((rows < 2).sum()):
        log.warning("left out %d training scenes with a single rating", single)
    return replace(table, frame=table.frame[rows >= 2].reset_index(drop=True))


def new_backbone(recipe: FineTuneRecipe, base: Base) -> PretrainedVL:
    """The base model, ready to be trained."""
    backbone = base.family().from_base(
        base.directory,
        preprocessing=recipe.preprocessing,
        dtype=getattr(torch, recipe.base.dtype),
    )
    tune(backbone, recipe.tune, seed=recipe.fit.seed)
    return backbone


def _begun(recipe: FineTuneRecipe, fit: Path, args: TrainingArguments, restart: bool) -> str | None:
    """The last checkpoint of an interrupted run of the same recipe, if there is one."""
    started = fit / STARTED
    ours = json.dumps(asdict(recipe), indent=2, sort_keys=True)
    find: Any = get_last_checkpoint
    last: str | None = find(str(fit)) if fit.is_dir() and not restart else None
    if last and (not started.exists() or started.read_text() != ours):
        raise RecipeError(
            f"Expected the recipe that was begun in {str(fit)!r}, got another: choose another "
            "work folder, or restart"
        )
    if args.process_index == 0:
        fit.mkdir(parents=True, exist_ok=True)
        started.write_text(ours)
    if last:
        log.info("going on from %s", last)
    return last


def new_trainer(
    backbone: PretrainedVL,
    recipe: FineTuneRecipe,
    parts: dict[str, RatingsTable],
    args: TrainingArguments,
) -> FuScoreTrainer:
    """A trainer of the parts that `tune` chose; it looks at the validation ratings now and then."""
    processes = {"rank": args.process_index, "world_size": args.world_size}
    validation = parts["val"]

    def validate(reader: nn.Module) -> Evaluation:
        scores, _ = predict_images(
            reader, validation, [DEFAULT_ASPECT], device=args.device, **processes
        )
        frame = validation.frame
        return evaluate(scores[:, 0], frame["overall"], frame["scene"], frame["method"], n_boot=20)

    return FuScoreTrainer(
        model=LevelReader(backbone),
        args=args,
        loader=make_image_loader(parts["train"], recipe.labels, recipe.batches, **processes),
        validate=validate,
        options=recipe.fit,
    )


def _publish(
    trainer: FuScoreTrainer,
    backbone: PretrainedVL,
    recipe: FineTuneRecipe,
    base: Base,
    parts: dict[str, RatingsTable],
    out: Path,
) -> dict[str, Any]:
    """Calibrate and measure the trained weights, and write their checkpoint (first process)."""
    args, test = trainer.args, parts["test"]
    aspects = list(ASPECTS) if test.has_sub_scores else [DEFAULT_ASPECT]
    trainer.reader.eval()
    predict = partial(
        predict_images,
        trainer.reader,
        device=args.device,
        rank=args.process_index,
        world_size=args.world_size,
    )
    scores, std = predict(test, aspects)
    # Without ratings of test scenes, the validation scenes are both.
    same = test is parts["val"]
    val_scores, val_std = (scores, std) if same else predict(parts["val"], [DEFAULT_ASPECT])
    val, held_out = (
        Predictions(
            s[:, 0], d[:, 0], part.frame["overall"].to_numpy(), part.frame["scene"].to_numpy()
        )
        for s, d, part in ((val_scores, val_std, parts["val"]), (scores, std, test))
    )
    metrics: dict[str, Any] = {
        f"held_out_{test.label_kind}": held_out_metrics(scores, aspects, test),
        "held_out_scenes": sorted(test.frame["scene"].unique()),
        "measured_on": "val" if same else "test",
    }
    temperature = 1.0
    try:
        calibration = calibrate(val, held_out)
        metrics["calibration"], temperature = calibration.summary(), calibration.temperature
    except ValueError as error:  # too few scenes: no reason to lose the weights
        log.warning("the temperature stays 1: %s", error)
        metrics["calibration"] = {"skipped": str(error)}
    whole = _whole(trainer, backbone, recipe, base)
    if args.process_index == 0:
        fuscore = make_fuscore(
            whole,
            name=recipe.name,
            table=test,
            base=base.parts,
            data=[recipe.ratings],
            temperature=temperature,
            metrics=metrics,
            training_pairs=learned_pairs(parts["train"].frame),
        )
        _save(fuscore, base, out, adapter=adapter_holds_all(backbone, recipe.tune))
    return metrics


def held_out_metrics(
    scores: np.ndarray[Any, Any], aspects: list[str], test: RatingsTable
) -> dict[str, Any]:
    """Agreement of scores (N, A) with the ratings, and of each further aspect with its own."""
    frame = test.frame
    columns = frame["scene"], frame["method"]
    found = evaluate(scores[:, 0], frame["overall"], *columns)
    own = {
        aspect: evaluate(scores[:, n], frame[aspect], *columns, n_boot=0).srcc.value
        for n, aspect in enumerate(aspects)
    }
    metrics: dict[str, Any] = json.loads(found.to_json())
    return metrics | {"aspect_srcc": own}


def _whole(
    trainer: FuScoreTrainer, backbone: PretrainedVL, recipe: FineTuneRecipe, base: Base
) -> PretrainedVL:
    """The trained backbone in one piece, also where processes hold shards of it."""
    if not trainer.is_fsdp_enabled:
        return backbone
    accelerator: Any = trainer.accelerator
    state = accelerator.get_state_dict(trainer.model)  # all processes take part, the first has it
    whole = new_backbone(recipe, base)
    if trainer.args.process_index == 0:
        LevelReader(whole).load_state_dict(trainer.trained_state(state), strict=False)
    return whole


def _save(fuscore: FuScore, base: Base, out: Path, *, adapter: bool) -> None:
    fuscore.spec = replace(
        fuscore.spec,
        weights="full" if fuscore.backbone.adapter is None else "adapter",
        base_model=base.model,
        base_revision=base.revision,
    )
    if fuscore.backbone.adapter is not None and not adapter:
        fuscore.merge()  # an adapter alone would lose what was trained in full
    fuscore.save_pretrained(out)
    log.info("wrote %s weights to %s", fuscore.spec.weights, out)
