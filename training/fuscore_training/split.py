"""A fixed list of held-out scenes and methods -> training, validation and test ratings."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import pandas as pd
import yaml

from fuscore_training.ratings import RatingsError, RatingsTable, split_by_scene


@dataclass(frozen=True)
class Split:
    """What is held out from training.

    Attributes:
        val: Scenes that choose between checkpoints and fit the temperature.
        test: Scenes for the reported numbers.
        held_out_methods: Fusion methods that appear in the test scenes only.
    """

    val: tuple[str, ...]
    test: tuple[str, ...]
    held_out_methods: tuple[str, ...] = ()

    def apply(self, table: RatingsTable) -> dict[str, RatingsTable]:
        """Split a table into "train", "val" and "test"; scenes not listed are for training.

        Rows of the held-out methods, by column `base` if there is one (the method behind a degraded
        image), else `method`, are dropped from training and validation. A table without any of the
        test scenes, as viewers' ratings are, has an empty test part and needs no held-out method.

        Raises:
            RatingsError: Splits share a scene or a source image, or name a scene or method that is
                not there.
        """
        there = set(table.frame["scene"])
        test = self.test if there & set(self.test) else ()
        listed = {*self.val, *test}
        methods = set(self.held_out_methods if test else ())
        for what, missing in (
            ("scenes", listed - there),
            ("methods", methods - set(self._methods(table.frame))),
        ):
            if missing:
                names = sorted(missing)
                raise RatingsError(
                    f"Expected the split's {what} in the ratings, not there: {names}"
                )
        scenes = {"train": sorted(there - listed), "val": self.val, "test": test}
        parts = split_by_scene(table, scenes=scenes)
        return {
            name: part if name == "test" else replace(part, frame=self._seen(part.frame))
            for name, part in parts.items()
        }

    def _seen(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame[~self.is_held_out(frame)].reset_index(drop=True)

    def is_held_out(self, frame: pd.DataFrame) -> pd.Series[bool]:
        """Rows (N,) made from a held-out method's output."""
        return self._methods(frame).isin(self.held_out_methods)

    @staticmethod
    def _methods(frame: pd.DataFrame) -> pd.Series[str]:
        return frame["base" if "base" in frame else "method"]


def read_split(path: Path) -> Split:
    """Read `val`, `test` and, if there are any, `held_out_methods` from a YAML file.

    Raises:
        RatingsError: No such file, or anything but lists of names under these keys.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise RatingsError(f"{path}: {' '.join(str(error).split())}") from error
    names = {field.name for field in fields(Split)}
    keys = set(content) if isinstance(content, dict) else set()
    if not {"val", "test"} <= keys <= names:
        got = ", ".join(sorted(map(str, keys))) or "none"
        raise RatingsError(f"{path}: expected keys `val`, `test`, `held_out_methods`, got {got}")
    if odd := [name for name, listed in content.items() if not isinstance(listed, list)]:
        raise RatingsError(f"{path}: expected a list of names as `{odd[0]}`")
    return Split(**{name: tuple(map(str, listed)) for name, listed in content.items()})
