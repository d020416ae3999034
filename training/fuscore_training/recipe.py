"""A recipe file -> checked options of every step of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from fuscore_metric.checkpoints.spec import EMBEDDED, is_hub_id
from fuscore_training.embedded.adversary import AdversarialOptions
from fuscore_training.embedded.batches import BatchOptions
from fuscore_training.labels.proxy_ratings import ProxyConfig
from fuscore_training.labels.viewer_ladders import LadderOptions
from fuscore_training.large.image_batches import ImageBatchOptions
from fuscore_training.large.tuning import TuneOptions
from fuscore_training.soft_labels import LabelOptions
from fuscore_training.trainer import FitOptions

Options = TypeVar("Options")


class RecipeError(ValueError):
    """A recipe that cannot be read; the message names the file and the key."""


@dataclass(frozen=True)
class EmbeddedRecipe:
    """All options of a run that makes an embedded model; all have a default but the name.

    Attributes:
        name: Name of the weights.
        seed: Seed of the weights' start, and of the split if none is given.
        split: File of held-out scenes and methods, relative to the recipe's; drawn if empty.
        llama: Over the language part's default shape.
        preprocessing: Over the pixel path's defaults.
        relations: Whether fused images are also compared with their sources place by place, and
            encoded as a whole.
        feature_noise: Deviation of noise on the standardised image statistics while training.
        whole_noise: The same for the statistics of the whole image, where there are relations.
        viewers: Folder of viewers' ratings, relative to the recipe's; empty for proxy ratings.
        ladders: How many damaged versions of the pictures that viewers rated.
        proxy: How many proxy ratings of each kind a scene gets, if there are no viewers.
        labels: How ratings become soft labels.
        batches: What a batch holds.
        fit: Schedule and loss weights.
        adversarial: Training against attacks on the features.
    """

    name: str
    seed: int = 0
    split: str = ""
    llama: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    relations: bool = False
    feature_noise: float = 0.0
    whole_noise: float = 0.0
    viewers: str = ""
    ladders: LadderOptions = field(default_factory=LadderOptions)
    proxy: ProxyConfig = field(default_factory=ProxyConfig)
    labels: LabelOptions = field(default_factory=LabelOptions)
    batches: BatchOptions = field(default_factory=BatchOptions)
    fit: FitOptions = field(default_factory=FitOptions)
    adversarial: AdversarialOptions = field(default_factory=AdversarialOptions)


@dataclass(frozen=True)
class BaseOptions:
    """The model that is fine-tuned.

    Attributes:
        model: Hub id or directory.
        revision: Commit on the hub; empty for the newest, whose commit `fuscore.json` will name.
        dtype: "bfloat16" or "float32", of the weights. What is trained in full should be float32;
            LoRA matrices always are.
        mixed: Compute in bfloat16 on float32 weights.
    """

    model: str
    revision: str = ""
    dtype: str = "bfloat16"
    mixed: bool = False

    def __post_init__(self) -> None:
        if self.model == EMBEDDED:
            raise ValueError(
                "Expected a Qwen-VL model or a LLaVA as `model`: to fine-tune embedded weights, "
                f"say `base: {EMBEDDED}` and nothing under it, as recipes/finetune-embedded.yaml "
                "does"
            )
        if self.dtype not in ("bfloat16", "float32"):
            raise ValueError(f"Expected `dtype` bfloat16 or float32, got {self.dtype!r}")


@dataclass(frozen=True)
class FineTuneRecipe:
    """All options of a run that fine-tunes a big model on images and their ratings.

    Attributes:
        name: Name of the weights.
        base: The model to start from.
        ratings: Hub id of a data set, or a folder or file, as `eva_fusion.load_ratings` takes it;
            `fuscore-train --ratings` overrides it.
        ratings_revision: Commit of the data set on the hub.
        seed: Seed of the split, if the ratings bring none.
        split: File of held-out scenes and methods, relative to the recipe's.
        preprocessing: Over the pixel path's defaults, such as `max_pixels`.
        tune: What is trained.
        labels: How ratings become soft labels.
        batches: What a batch holds.
        fit: Schedule and loss weights.
    """

    name: str
    base: BaseOptions
    ratings: str
    ratings_revision: str = ""
    seed: int = 0
    split: str = ""
    preprocessing: dict[str, Any] = field(default_factory=dict)
    tune: TuneOptions = field(default_factory=TuneOptions)
    labels: LabelOptions = field(default_factory=LabelOptions)
    batches: ImageBatchOptions = field(default_factory=ImageBatchOptions)
    fit: FitOptions = field(default_factory=FitOptions)


@dataclass(frozen=True)
class EmbeddedFineTuneRecipe:
    """All options of a run that fine-tunes weights of the embedded family on one's own ratings.

    Attributes:
        name: Name of the new weights.
        base: Weights to start from: "embedded", or the directory or hub id of a checkpoint.
        ratings: Ratings table, CSV or Parquet; `fuscore-train --ratings` overrides it.
        seed: Seed of the split into training and validation scenes, if the table has no `split`.
        feature_noise: As in `EmbeddedRecipe`.
        whole_noise: As in `EmbeddedRecipe`.
        labels: How ratings become soft labels.
        batches: What a batch holds.
        fit: Schedule and loss weights.
        adversarial: Training against attacks on the features.
    """

    name: str
    base: str = EMBEDDED
    ratings: str = ""
    seed: int = 0
    feature_noise: float = 0.0
    whole_noise: float = 0.0
    labels: LabelOptions = field(default_factory=LabelOptions)
    batches: BatchOptions = field(default_factory=BatchOptions)
    fit: FitOptions = field(default_factory=FitOptions)
    adversarial: AdversarialOptions = field(default_factory=AdversarialOptions)


AnyRecipe = EmbeddedRecipe | FineTuneRecipe | EmbeddedFineTuneRecipe


def read_recipe(path: Path) -> AnyRecipe:
    """Read a YAML recipe; its `base` decides which kind it is.

    Without a `base` it makes an embedded model; with a name it fine-tunes the embedded model of
    that name; with keys and values it fine-tunes a big model. Paths in it start at its folder.

    Raises:
        RecipeError: No such file, not YAML, an unknown key, or a value of the wrong type.
    """
    if path.is_dir():
        raise RecipeError(f"Expected a recipe, a YAML file, got the directory {str(path)!r}")
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise RecipeError(f"No recipe {str(path)!r}: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not (isinstance(content, Mapping) and "base" in content):
        made = _build(EmbeddedRecipe, content, str(path))
        split, viewers = _beside(path, made.split), _beside(path, made.viewers)
        return replace(made, split=split, viewers=viewers)
    if isinstance(content["base"], Mapping):
        big = _build(FineTuneRecipe, content, str(path))
        return replace(
            big,
            base=replace(big.base, model=_named(path, big.base.model)),
            ratings=_named(path, big.ratings),
            split=_beside(path, big.split),
        )
    small = _build(EmbeddedFineTuneRecipe, content, str(path))
    return replace(small, base=_named(path, small.base), ratings=_beside(path, small.ratings))


def _beside(recipe: Path, name: str) -> str:
    """A path in a recipe, which starts at its folder; what is empty stays empty."""
    return str(recipe.parent / Path(name).expanduser()) if name else ""


def _named(recipe: Path, name: str) -> str:
    """The same, but "embedded" stays as it is, and so does a hub id unless it is a path as well."""
    beside = _beside(recipe, name)
    stays = name == EMBEDDED or (is_hub_id(name) and not Path(beside).exists())
    return name if stays else beside


def _build(kind: type[Options], content: Any, where: str) -> Options:
    """Fill a dataclass from a mapping, nested dataclasses from nested mappings."""
    if not isinstance(content, Mapping):
        raise RecipeError(f"{where}: expected keys and values, got {type(content).__name__}")
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(map(str, set(content) - known)):
        names = ", ".join(sorted(known))
        raise RecipeError(f"{where}: unknown key {unknown[0]!r}; known are {names}")
    hints = get_type_hints(kind)
    values = {
        key: _build(hints[key], value, f"{where}: {key}")
        if is_dataclass(hints[key])
        else _value(hints[key], value, f"{where}: {key}")
        for key, value in content.items()
    }
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{where}: {error}") from error


def _value(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    wrong = isinstance(value, bool) and hint is not bool
    if hint in (bool, int, float, str) and (wrong or not isinstance(value, hint)):
        raise RecipeError(f"{where}: expected {hint.__name__}, got {value!r}")
    if get_origin(hint) is dict and not isinstance(value, dict):
        raise RecipeError(f"{where}: expected keys and values, got {value!r}")
    if get_origin(hint) is tuple:
        if not isinstance(value, list) or len(value) != len(get_args(hint)):
            raise RecipeError(f"{where}: expected {len(get_args(hint))} values, got {value!r}")
        return tuple(
            _value(kind, one, where) for kind, one in zip(get_args(hint), value, strict=True)
        )
    return value
