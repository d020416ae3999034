"""Scenes and undamaged fusions -> pictures for viewers, drawn by seed.

Whoever has the public sets can make the pictures of a table again. `panel` does it as it reads one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage

from fuscore_training.fusions.classic import Image, luma, to_bytes
from fuscore_training.fusions.drawn import MAKERS
from fuscore_training.labels.degradations import Sources, draw_region
from fuscore_training.labels.proxy_ratings import read_image
from fuscore_training.labels.viewer_ladders import damage
from fuscore_training.ratings import RatingsError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
UNDAMAGED = "none"
COPIES = {"copy_of_ir": "ir", "copy_of_vis": "vis"}
"""Methods that show one source as it is."""


def find_files(row: Mapping[str, Any], panel: str, data: Path, made: Path) -> dict[str, str]:
    """Find the three images that viewers were shown, or make the fused one.

    Args:
        row: `set`, `scene` and `method`; `image` of a picture with a file of its own; `seed`, 0 or
            more, and what `make_picture` takes, of one that is made.
        panel: The table's name, which is the folder of its own files.
        data: Folder of the public sets.
        made: Folder for pictures that are made, if they are not there yet.

    Returns:
        Paths `ir`, `vis` and `fused`.

    Raises:
        RatingsError: A picture is not there.
    """
    folder, stem, method = (str(row[name]) for name in ("set", "scene", "method"))
    if row.get("seed", -1) >= 0:
        fused = made_picture(row, data, made)
    elif image := row.get("image"):
        fused = first_there([data / "panel" / panel / str(image)])
    else:
        fused = find_picture(data, folder, stem, COPIES.get(method, f"fused/{method}"))
    ir, vis = (find_picture(data, folder, stem, name) for name in ("ir", "vis"))
    return {"ir": ir, "vis": vis, "fused": fused}


def made_picture(row: Mapping[str, Any], data: Path, out: Path) -> str:
    """Make one picture, if it is not there yet; takes and raises what `make_picture` does.

    Returns:
        Its path: `out` and the row's `image`.
    """
    path = out / str(row["image"])
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        PILImage.fromarray(to_bytes(make_picture(row, data))).save(path)
    return str(path.resolve())


def make_picture(row: Mapping[str, Any], data: Path) -> Image:
    """Make one picture.

    Args:
        row: `set`, `scene`, `method` of its base, which is made too if it is in `MAKERS`; `kind`
            and `strength` of the damage; `part`, 1 if only a part of the picture is damaged;
            `seed` of what is drawn.
        data: Folder of the public sets.

    Returns:
        (H, W) or (H, W, 3) in [0, 1].

    Raises:
        RatingsError: The base or a source is not there.
    """

    def read(place: str) -> Image:
        found = find_picture(data, str(row["set"]), str(row["scene"]), place)
        return read_image(Path(found))

    ir, vis, rng = read("ir"), read("vis"), np.random.default_rng(int(row["seed"]))
    method = str(row["method"])
    base = MAKERS[method](ir, vis, rng) if method in MAKERS else read(f"fused/{method}")
    if row["kind"] == UNDAMAGED:
        return base
    sources = Sources(luma(ir), luma(vis))
    where = draw_region(sources.ir.shape, rng) if int(row["part"]) else None
    return damage(base, str(row["kind"]), float(row["strength"]), sources, rng, where)


def find_picture(data: Path, folder: str, stem: str, place: str) -> str:
    """Find a picture of a scene by set, scene and place: `ir`, `vis` or `fused/<method>`.

    Raises:
        RatingsError: It is not there.
    """
    roots = (data / folder, data / "modern" / folder)
    return first_there([root / place / f"{stem}{suffix}" for root in roots for suffix in SUFFIXES])


def first_there(files: Sequence[Path]) -> str:
    """The first of some paths at which there is a file.

    Raises:
        RatingsError: There is none.
    """
    for file in files:
        if file.exists():
            return str(file.resolve())
    raise RatingsError(f"No picture {files[0]}, nor the same with {', '.join(SUFFIXES)}")
