"""Near-duplicates of a source pair are found, and unrelated scenes are not."""

import numpy as np
import pytest
from fuscore_training.importers.imported_images import perceptual_hash
from fuscore_training.importers.scene_groups import NEAR_BITS, near_pairs

from fuscore_metric.images.convert import as_images
from tests.training.importers.conftest import real_scenes


def test_near_pairs_are_those_within_the_bits_in_both():
    rng = np.random.default_rng(0)
    ir, vis = rng.random((2, 1500, 256)) > 0.5  # more than one block
    for copy, (flips_ir, flips_vis) in {
        3: (NEAR_BITS, 0),
        1100: (0, NEAR_BITS),
        1200: (NEAR_BITS + 1, 0),
        1400: (0, NEAR_BITS + 1),
    }.items():
        ir[copy], vis[copy] = ir[2], vis[2]
        ir[copy, :flips_ir] ^= True
        vis[copy, :flips_vis] ^= True
    found = {tuple(pair) for pair in near_pairs(ir, vis)}
    differ = [(one[:, None] != one[None]).sum(-1, dtype=np.int16) for one in (ir, vis)]
    close = np.triu(np.maximum(*differ) <= NEAR_BITS, 1)
    assert found == set(zip(*np.nonzero(close), strict=True))
    assert {(2, 3), (2, 1100)} <= found
    assert not {(2, 1200), (2, 1400)} & found
    assert near_pairs(ir[:0], vis[:0]).shape == (0, 2)


@pytest.mark.real_data
def test_threshold_on_all_real_scenes(real_data):
    """What `NEAR_BITS` says of itself: 278 pairs, four neighbours found, no unrelated scenes."""
    sets = ("VIFB", "TNO", "RoadScene", "MSRS", "M3FD", "FMB")
    files = [pair for name in sets for pair in real_scenes(real_data, name)]
    hashes = [
        (perceptual_hash(as_images(ir, "ir")[0]), perceptual_hash(as_images(vis, "vis")[0]))
        for ir, vis in files
    ]
    ir, vis = (np.array(ones) for ones in zip(*hashes, strict=True))
    assert len(files) == 278
    found = {frozenset((files[i][0].stem, files[j][0].stem)) for i, j in near_pairs(ir, vis)}
    assert found == {
        frozenset(("FLIR_06099", "FLIR_06128")),
        frozenset(("FLIR_07119", "FLIR_07125")),
        frozenset(("FLIR_09437", "FLIR_video_02223")),
        frozenset(("FLIR_09465", "FLIR_video_02829")),
    }
    # The margin: the next is a neighbour too, at 100; the first unrelated pair is at 102.
    assert len(near_pairs(ir, vis, bits=100)) == 5
    assert len(near_pairs(ir, vis, bits=101)) == 5
