"""Results tables for the report's tests, and the pages that are made of them."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fuscore_metric.checkpoints.spec import LABEL_MEANING
from fuscore_metric.leaderboard.statistics import leaderboard
from fuscore_metric.prompts import LEVEL_WORDS
from fuscore_metric.report.build import Report, render
from fuscore_metric.report.data import make_grid
from fuscore_metric.results.rows import COLUMNS, FURTHER_ASPECTS

SETTINGS = {
    "weights": "tiny",
    "weights_hash": "sha256:00",
    "family": "lite_llama",
    "label_kind": "proxy",
    "labels": f"trained on {LABEL_MEANING['proxy']}",
    "prompt_version": 1,
    "aspect": "all",
    "dtype": "float32",
    "temperature": 0.8,
    "device": "cpu",
    "batch_size": 8,
    "package": "0.1.0",
    "versions": {"python": "3.11.0", "torch": "2.13.0"},
    "started": "2026-11-25T21:30:00+00:00",
    "source": "embedded",
    "revision": None,
    "command": "fuscore rank --ir ir --vis vis --methods-root fused",
}


def make_table(scenes, methods, seed=0):
    """Made-up scores of scenes x methods; earlier methods are better."""
    rng = np.random.default_rng(seed)
    rows = []
    for scene in scenes:
        ease = rng.normal(0, 0.4)
        for place, method in enumerate(methods):
            score = np.clip(3.4 + ease - 0.12 * place + rng.normal(0, 0.25), 1, 5)
            shares = rng.dirichlet([1, 2, 4, 3, 1])
            row = {"scene": scene, "method": method, "score": score, "std": 0.6, "seconds": 0.1}
            row |= dict(zip(LEVEL_WORDS, shares, strict=True))
            row |= {aspect: float(rng.uniform(1, 5)) for aspect in FURTHER_ASPECTS}
            row |= {"error": None, "ir": "ir.png", "vis": "vis.png", "fused": "fused.png"}
            rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def measure(table, *names, seed=0):
    """The table with made-up classic measures, in the place where a run writes them."""
    rng = np.random.default_rng(seed)
    table = table.copy()
    for name in names:
        table.insert(table.columns.get_loc("error"), name, rng.uniform(0, 1, len(table)))
    return table


def fail(table, *numbers, error="Cannot read it"):
    """The table with rows that failed."""
    table = table.copy()
    table["error"] = table["error"].astype(object)
    table.loc[list(numbers), ["score", "std", *LEVEL_WORDS, *FURTHER_ASPECTS]] = np.nan
    table.loc[list(numbers), "error"] = error
    return table


def make_report(table, settings=SETTINGS, **changed):
    """A report without pictures, unless given."""
    board = None
    if table["score"].notna().any():
        board = leaderboard(table, resamples=200)
    grid = make_grid(table, [one.method for one in board.methods] if board else [])
    content = {
        "title": "A title",
        "grid": grid,
        "board": board,
        "settings": settings,
        "exhibits": [],
        "pictures_wanted": False,
        "map_note": "",
        "command": "fuscore report results.parquet",
    }
    return Report(**(content | changed))


def make_page(table, settings=SETTINGS, **changed):
    return render(make_report(table, settings, **changed))


def write_parquet(table, settings, path):
    """As `fuscore rank` writes it."""
    stored = pa.Table.from_pandas(table, preserve_index=False)
    stored = stored.replace_schema_metadata({b"fuscore": json.dumps(settings).encode()})
    pq.write_table(stored, path)
    return path


class Page(HTMLParser):
    """What a browser would make of a page: elements, attributes, text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text, self.scripts = [], [], [], []
        self._inside = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag in ("script", "style"):
            self._inside.append(tag)
            self.scripts.append("")

    def handle_endtag(self, tag):
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data):
        if self._inside:
            self.scripts[-1] += data
        else:
            self.text.append(data)

    @property
    def words(self):
        return " ".join("".join(self.text).split())


def page_data(page):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(found[1])
