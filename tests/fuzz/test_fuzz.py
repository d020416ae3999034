"""The doors of `tests/fuzz` hold for their seeds and some changes of them, without atheris."""

import importlib
import random

import pytest

from tests.fuzz.harness import plain_havoc

# Changes tried: about a second's worth each.
DOORS = {"images": 300, "spec": 1500, "ratings": 80, "tables": 150}


@pytest.fixture(params=DOORS)
def door(request):
    name = request.param
    return name, importlib.import_module(f"tests.fuzz.{name}"), DOORS[name]


@pytest.mark.filterwarnings("ignore")
def test_seeds_and_changes_of_them(door, caplog):
    caplog.set_level("ERROR")
    name, module, count = door
    seeds = list(module.seeds())
    for seed in seeds[:: max(1, len(seeds) // 60)]:
        module.one(seed)
    rng = random.Random(name)
    for _ in range(count):
        data = rng.choice(seeds)
        for _ in range(rng.randint(1, 3)):
            data = module.mutate(data, rng, plain_havoc(rng))
        module.one(data)


def test_a_broken_promise_is_noticed(monkeypatch, tmp_path):
    """The header's size without the turn, as it would be if nobody looked at the orientation."""
    from tests.fuzz import images

    monkeypatch.setattr("fuscore_metric.images.files._orientation", lambda *_: 1)
    turned = next(seed for seed in images.seeds() if b"eXIf" in seed)
    with pytest.raises(AssertionError, match="behind a header of"):
        images.one(turned)
