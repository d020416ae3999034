"""Does FuScore as a reward make better fusions, also by measures that nobody trained on?

    python -m benchmarks.reward.proof --data ../shared/data --out runs/reward

One small network is trained with a usual intensity and gradient loss. From there it goes on in
three ways for the same number of steps on the same crops: with the usual loss alone, with the
reward inside its trust region beside it, and with the reward unguarded. All are then measured on
held-out scenes. Last, the worst case: no network, the pixels themselves climb the reward.

As many processes as cores, one thread each. Leaves in `--out`: results.md, the values of each
scene, curves.png, scenes.png (held-out scenes: not ours to publish), example.png (the rendered
example), and the networks.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from fuscore_training.labels.proxy_ratings import Scene

from benchmarks import EXAMPLE, REPOSITORY
from benchmarks.accuracy.triples import evenly
from benchmarks.reward.evaluation import Evaluation, fuse, summary
from benchmarks.reward.figures import draw_curves, draw_pictures
from benchmarks.reward.learning import Variant, train
from benchmarks.reward.network import FusionNet
from benchmarks.reward.pixels import STEPS, climbed
from benchmarks.reward.scenes import crops, read_pair, training_and_test
from fuscore_metric import FuScore, TrustRegion

START = Variant("start")
VARIANTS = (
    Variant("usual loss"),
    Variant("+ reward, trust region", reward_weight=1.0, trust_region=TrustRegion()),
    Variant("+ reward, unguarded", reward_weight=1.0),
)
PICTURED = ("VIFB/manlight", "TNO/35", "RoadScene/FLIR_04269")


def train_one(variant: Variant, options: argparse.Namespace) -> Path:
    """Train a variant in a process of its own; returns the file of its weights."""
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    scenes, _ = training_and_test(options.data, options.split)
    network, begin = FusionNet(), variant == START
    if not begin:
        network.load_state_dict(torch.load(weights_file(START, options)))
    first = 1 if begin else options.start + 1
    last = options.start if begin else options.start + options.steps
    # The variants see the same crops.
    seed = options.seed if begin else 1000 + options.seed
    batches = crops(
        [read_pair(scene) for scene in scenes], side=options.side, batch=options.batch, seed=seed
    )
    with log_file(variant, options).open("w") as log:
        train(
            network,
            batches,
            variant,
            model=FuScore.from_pretrained(),
            steps=range(first, last + 1),
            learning_rate=2e-3 if begin else 1e-3,
            log=log,
        )
    path = weights_file(variant, options)
    torch.save(network.state_dict(), path)
    return path


def evaluate_one(scene: Scene, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all networks on a held-out scene, in a process of its own."""
    torch.set_num_threads(1)
    pair, evaluation = read_pair(scene), Evaluation(FuScore.from_pretrained())
    return [
        {"scene": scene.name, "variant": name} | evaluation(pair, fuse(network, pair))
        for name, network in load_networks(options).items()
    ]


def climb_one(scene: Scene, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Let the pixels of a held-out scene climb under every guard, in a process of its own."""
    torch.set_num_threads(1)
    model, pair = FuScore.from_pretrained(), read_pair(scene)
    evaluation, network = Evaluation(model), load_networks(options)[START.name]
    fusions = {START.name: fuse(network, pair)} | climbed(network, pair, model)
    return [
        {"scene": scene.name, "variant": name} | evaluation(pair, fused)
        for name, fused in fusions.items()
    ]


def load_networks(options: argparse.Namespace) -> dict[str, FusionNet]:
    """The start and all variants, trained."""
    networks = {}
    for variant in (START, *VARIANTS):
        networks[variant.name] = FusionNet()
        networks[variant.name].load_state_dict(torch.load(weights_file(variant, options)))
    return networks


def weights_file(variant: Variant, options: argparse.Namespace) -> Path:
    """Where a variant's network is kept."""
    return Path(options.out / f"{_slug(variant)}.pt")


def log_file(variant: Variant, options: argparse.Namespace) -> Path:
    """Where a variant's training is logged."""
    return Path(options.out / f"{_slug(variant)}.jsonl")


def _slug(variant: Variant) -> str:
    return "_".join(variant.name.replace("+", "").replace(",", "").split())


def run(options: argparse.Namespace) -> None:
    """Train, measure, draw."""
    began = time.perf_counter()
    options.out.mkdir(parents=True, exist_ok=True)
    _, test = training_and_test(options.data, options.split)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        pool.submit(train_one, START, options).result()
        # The longer runs first, so that the processes end together.
        list(pool.map(partial(train_one, options=options), VARIANTS[::-1]))
        rows = pool.map(partial(evaluate_one, options=options), test)
        networks = pd.DataFrame(list(chain.from_iterable(rows)))
        rows = pool.map(partial(climb_one, options=options), evenly(test, options.climbs))
        pixels = pd.DataFrame(list(chain.from_iterable(rows)))
    draw(options)
    minutes = (time.perf_counter() - began) / 60
    text = report(networks, pixels, options) + f"\nAll in {minutes:.1f} minutes.\n"
    (options.out / "results.md").write_text(text)
    networks.to_csv(options.out / "networks.csv", index=False)
    pixels.to_csv(options.out / "pixels.csv", index=False)
    print(text)


def report(networks: pd.DataFrame, pixels: pd.DataFrame, options: argparse.Namespace) -> str:
    """Both tables, in markdown."""
    note = "in brackets the paired change from {} and its 95 % interval over scenes"
    usual = VARIANTS[0].name
    return f"""Networks, {options.start} + {options.steps} steps, seed {options.seed}: means over \
{networks["scene"].nunique()} held-out scenes; {note.format(f'"{usual}"')}.

{summary(networks, base=usual)}

Pixels, {STEPS} steps uphill from the fusion of "{START.name}": means over \
{pixels["scene"].nunique()} held-out scenes; {note.format(f'"{START.name}"')}.

{summary(pixels, base=START.name)}
"""


def draw(options: argparse.Namespace) -> None:
    """Write the three figures."""
    logs = [pd.read_json(log_file(v, options), lines=True) for v in (START, *VARIANTS)]
    draw_curves(pd.concat(logs), options.out / "curves.png")
    networks = load_networks(options)
    _, test = training_and_test(options.data, options.split)
    real = [(scene.name, read_pair(scene)) for scene in test if scene.name in PICTURED]
    draw_pictures(networks, real, options.out / "scenes.png")
    rendered = Scene("example", EXAMPLE / "ir.png", EXAMPLE / "vis.png", {})
    draw_pictures(networks, [("rendered", read_pair(rendered))], options.out / "example.png")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of real source pairs")
    add("--out", type=Path, required=True, help="folder of results")
    add("--split", type=Path, default=REPOSITORY / "training" / "recipes" / "split.yaml")
    add("--start", type=int, default=800, help="steps with the usual loss that all have in common")
    add("--steps", type=int, default=600, help="steps of each variant from there")
    add("--batch", type=int, default=4, help="crops a step")
    add("--side", type=int, default=160, help="side of a crop, pixels")
    add("--climbs", type=int, default=6, help="held-out scenes whose pixels climb")
    add("--seed", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run(parse())
