"""One small table of ratings and its cached features, for all tests of this folder."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fuscore_training.embedded.batches import BatchMaker, BatchOptions, make_loader
from fuscore_training.embedded.features import FeatureCache, build_features
from fuscore_training.embedded.initialise import new_lite_llama
from fuscore_training.labels.proxy_ratings import ProxyConfig, make_proxy_ratings
from fuscore_training.ratings import RatingsTable, read_ratings
from fuscore_training.soft_labels import LabelOptions
from fuscore_training.trainer import (
    FitOptions,
    FuScoreTrainer,
    LevelReader,
    training_arguments,
)

from tests.helpers.tiny_model import LLAMA

PREPROCESSING = {"min_pixels": 32 * 32, "grid": 3}
BATCHES = BatchOptions(scenes_per_batch=2, methods_per_scene=4, consistency=3, least_cells=4)


def new_backbone(folder, seed=0):
    """A tiny model of the embedded family."""
    return new_lite_llama(folder / "words", seed=seed, llama=LLAMA, preprocessing=PREPROCESSING)


def rows_of(table):
    return list(range(len(table)))


def maker_of(table, cache, **options):
    return BatchMaker(table, rows_of(table), cache, LabelOptions(), replace(BATCHES, **options))


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="session")
def table(folder, make_data) -> RatingsTable:
    data = make_data(folder / "data", 3)
    config = ProxyConfig(ladders=1, mixed=1, local=1, source_degraded=1, foreign=1, workers=1)
    make_proxy_ratings(data, folder / "ratings", config)
    return read_ratings(folder / "ratings" / "ratings.parquet")


@pytest.fixture(scope="session")
def backbone(folder):
    return new_backbone(folder).eval()


@pytest.fixture(scope="session")
def cache(folder, table, backbone) -> FeatureCache:
    return build_features(table, backbone, folder / "features", key="one")


@pytest.fixture
def trainer(tmp_path, table, cache):
    """Makes a trainer with some weights of the loss, of a backbone whose answers vary; and that."""

    def made(adversarial=None, **options):
        backbone = new_backbone(tmp_path).eval()
        backbone.standardise(cache.encoded(rows_of(table)))
        with torch.no_grad():
            for name, weight in backbone.named_parameters():
                if weight.dim() == 2 and not name.startswith("vision."):
                    weight.normal_(std=0.4)
        loader = make_loader(table, rows_of(table), cache, LabelOptions(), BATCHES)
        arguments = training_arguments(tmp_path, FitOptions())
        return backbone, FuScoreTrainer(
            model=LevelReader(backbone),
            args=arguments,
            loader=loader,
            validate=lambda _: None,
            options=FitOptions(**options),
            extra_losses={"adversarial": (adversarial.options.weight, adversarial.loss)}
            if adversarial
            else None,
        )

    return made
