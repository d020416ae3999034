"""How much is measured: at full size, and in a few seconds per stage, to try the kit on a CPU."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Sizes and budgets.

    Attributes:
        budgets: Seconds of each stage; what does not fit is left out, and the results say so.
        tests: Which of the tests, as pytest's `-k` takes it; "" for all.
        size: (height, width) of the images, in pixels.
        batches: Triples at once, of the embedded weights.
        batch: Triples at once where one batch is enough.
        files: Triples that are read from files.
        candidates: Fused images of one scene.
        big_batch: Triples at once, of a random Qwen-VL.
        scenes: Of a training step.
        methods: Of each of these scenes.
        classic: Triples that the classic measures are timed on.
        vit: Layers and width of the reward model that is a peer.
        sides: Of the square matrices whose product is the rate to compare with.
        least: Seconds that a timing goes on for.
        rounds: Of a timing, at least.
        pace: Factor of the seconds that tasks say they take.
    """

    budgets: dict[str, float]
    tests: str
    size: tuple[int, int]
    batches: tuple[int, ...]
    batch: int
    files: int
    candidates: int
    big_batch: int
    scenes: int
    methods: int
    classic: int
    vit: tuple[int, int]
    sides: tuple[int, ...]
    least: float
    rounds: int
    pace: float


FULL = Plan(
    budgets={"environment": 5, "tests": 80, "speed": 130, "peers": 35, "large": 78},
    tests="",
    size=(480, 640),
    batches=(1, 4, 16, 64, 256),
    batch=64,
    files=64,
    candidates=16,
    big_batch=16,
    scenes=4,
    methods=4,
    classic=4,
    vit=(24, 1024),
    sides=(4096, 8192),
    least=0.3,
    rounds=3,
    pace=1.0,
)

QUICK = Plan(
    budgets={"environment": 60, "tests": 180, "speed": 300, "peers": 120, "large": 360},
    tests="test_golden_scores and float32",
    size=(64, 96),
    batches=(1, 2),
    batch=2,
    files=3,
    candidates=3,
    big_batch=2,
    scenes=2,
    methods=2,
    classic=2,
    vit=(1, 64),
    sides=(256,),
    least=0.0,
    rounds=1,
    pace=0.1,
)

COUNTED = 24.5
"""GiB of a LoRA step of Qwen2.5-VL-7B's shape, 4 scenes x 4 methods, two questions, by
`benchmarks/full_size/memory.py`, which takes half a minute: see training/README.md."""
