"""Tables of results for all tests of the report."""

import numpy as np
import pytest
from PIL import Image

from tests.helpers.report_tables import make_table
from tests.helpers.scenes import synthetic_pair


@pytest.fixture(scope="session")
def table():
    return make_table([f"scene {n}" for n in range(12)], ["Alpha", "Beta", "Gamma"])


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A table of one scene whose files exist: a 16-bit infrared image, and one that is broken."""
    folder = tmp_path_factory.mktemp("pictures")
    ir, vis = synthetic_pair(0, 96, 128)
    Image.fromarray((7000 + 3000 * ir).astype(np.uint16)).save(folder / "ir.png")
    for name, image in (("vis", vis), ("mean", (ir + vis) / 2), ("flat", np.full_like(vis, 0.5))):
        Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"no image")
    table = make_table(["scene"], ["mean", "broken", "gone", "flat"])
    table["score"] = [4.0, 3.0, 2.5, 2.0]
    table["ir"], table["vis"] = str(folder / "ir.png"), str(folder / "vis.png")
    table["fused"] = [str(folder / f"{name}.png") for name in table["method"]]
    return table
