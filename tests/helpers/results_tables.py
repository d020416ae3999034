"""Results tables of made-up scores, and what is printed of them."""

import io

import numpy as np
import pandas as pd
from rich.console import Console

STATEMENT = "trained on PROXY ratings (classic measures and known degradations), not human ones"
SETTINGS = {"weights": "fuscore-lite-4", "labels": STATEMENT, "aspect": "overall"}


def results(scores: dict[str, list[float | None]], std: float = 0.5, **aspects) -> pd.DataFrame:
    """A results table: of each method the scores on scenes s0, s1, ...; None is a failure."""
    rows = [
        {"scene": f"s{n}", "method": method, "score": score, "std": None if score is None else std}
        for method, found in scores.items()
        for n, score in enumerate(found)
    ]
    table = pd.DataFrame(rows)
    for name, values in aspects.items():
        table[name] = values
    return table


def random_results(seed: int, scenes: int, methods: int, spread: float = 0.05) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    scores = rng.normal(3, 0.2, (methods, scenes)) + spread * np.arange(methods)[:, None]
    return results({f"m{n:02d}": list(row) for n, row in enumerate(scores)})


def shown(renderable, width: int, **options) -> str:
    buffer = io.StringIO()
    Console(file=buffer, width=width, **options).print(renderable)
    return buffer.getvalue()


def summary(board, method):
    return next(line for line in board.methods if line.method == method)
