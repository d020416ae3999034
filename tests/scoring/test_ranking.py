"""Many fused images of one source pair: the scores of `score`, an order, who beats whom."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.tiny_qwen import FAMILIES, tiny_backbone
from fuscore_metric import FuScore, InputError, predict, preference, rank, score
from fuscore_metric.prompts import ASPECTS
from tests.helpers import ROOT
from tests.helpers.tiny_model import tiny_fuscore


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> FuScore:
    return tiny_fuscore(tmp_path_factory.mktemp("words"))


def qwen(family) -> FuScore:
    from fuscore_metric.checkpoints.spec import FuScoreSpec

    backbone = tiny_backbone(family)
    return FuScore(backbone, FuScoreSpec("tiny", family, backbone.preprocessing, "none"))


def pictures(count: int, seed: int, height: int = 64, width: int = 80) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


IR, VIS = pictures(2, 0)
CANDIDATES = list(pictures(5, 1))


def independent(model, **options):
    """Every triple read by itself."""
    outputs = [predict(IR, VIS, fused, model=model, **options).score for fused in CANDIDATES]
    return torch.cat(outputs)


def test_scores_are_those_of_independent_triples(model):
    alone = independent(model)
    for size in (1, 2, 8):
        found = rank(IR, VIS, CANDIDATES, model=model, batch_size=size)
        assert torch.allclose(found.score, alone, atol=1e-5)
    aspects = rank(IR, VIS, CANDIDATES, model=model, aspects=ASPECTS).score
    assert aspects.shape == (5, len(ASPECTS))
    assert torch.allclose(aspects[:, 0], alone, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_of_big_families_are_those_of_independent_triples(family):
    model = qwen(family)
    alone = independent(model, aspects=ASPECTS)
    assert alone.std(0).min() > 1e-3  # else equality would say little
    found = rank(IR, VIS, CANDIDATES, model=model, aspects=ASPECTS, batch_size=2)
    assert (found.score - alone).abs().max() <= 1e-4


def test_half_precision_stays_near_independent_triples():
    """Batches of another size are rounded elsewhere; a score may move by the last bit or two."""
    model = FuScore.from_pretrained(dtype="bfloat16")
    found = rank(IR, VIS, CANDIDATES, model=model, aspects=ASPECTS).score
    alone = independent(model, aspects=ASPECTS)
    assert alone.std() > 0.1
    assert (found - alone).abs().max() <= 0.01  # measured 0


def test_order_and_preferences(model):
    found = rank(IR, VIS, dict(zip("abcde", CANDIDATES, strict=True)), model=model)
    assert found.names == tuple("abcde")
    best = found.best_first()
    scores = [output.score.item() for _, output in best]
    assert scores == sorted(scores, reverse=True) == found.score[found.order].tolist()
    assert [name for name, _ in best] == ["abcde"[n] for n in found.order]
    assert str(found).splitlines()[0].split()[:2] == ["1", best[0][0]]
    matrix = found.preferences
    assert matrix.shape == (5, 5)
    assert torch.allclose(matrix + matrix.T, torch.ones(5, 5), atol=1e-6)
    assert torch.allclose(matrix.diagonal(), torch.full((5,), 0.5))
    a, b = found.order[0], found.order[-1]
    expected = preference(found.output[a], found.output[b])
    assert matrix[a, b].item() == pytest.approx(expected.item(), abs=1e-6)
    assert matrix[a, b] > 0.5


@pytest.mark.parametrize("asked", [{}, {"aspects": ASPECTS}], ids=["overall", "all"])
def test_rows_of_an_output_keep_its_shape(model, asked):
    output = rank(IR, VIS, CANDIDATES, model=model, **asked).output
    assert len(output) == 5
    for rows in (slice(0, 2), [3, 1], torch.tensor([3, 1]), output.score.flatten()[:5] > 3):
        assert torch.equal(output[rows].score, output.score[rows])
        assert torch.equal(output[rows].probabilities, output.probabilities[rows])
    assert torch.equal(output[-1].level_logits, output.level_logits[4:])
    assert torch.equal(output[np.int64(2)].score, output.score[2:3])
    assert output == output
    assert output != output[:]  # by identity: tensors have no one answer
    with pytest.raises(IndexError):
        output[5]


@pytest.mark.parametrize("asked", [{}, {"aspects": ASPECTS}], ids=["overall", "all"])
def test_what_a_notebook_shows(model, asked):
    names = ["<a>", "b", "c", "d", "e"]
    found = rank(IR, VIS, dict(zip(names, CANDIDATES, strict=True)), model=model, **asked)
    shown = [(float(cell.text), name.text) for name, cell in cells(found._repr_html_())]
    scores = found.score.reshape(5, -1)[found.order, 0].tolist()
    assert [score for score, _ in shown] == pytest.approx(scores, abs=1e-3)
    assert [name for _, name in shown] == [names[n] for n in found.order]
    assert [name.text for name, _ in cells(found.output._repr_html_())] == list("01234")


def cells(html):
    """The first two cells of each row below the head."""
    return [row[:2] for row in ElementTree.fromstring(html).iter("tr")][1:]


def test_names_are_paths_or_numbers(model, tmp_path):
    paths = [tmp_path / f"{n}.png" for n in range(2)]
    for path, pixels in zip(paths, CANDIDATES, strict=False):
        Image.fromarray(pixels).save(path)
    assert rank(IR, VIS, paths, model=model).names == tuple(map(str, paths))
    assert rank(IR, VIS, str(paths[0]), model=model).names == (str(paths[0]),)
    assert rank(IR, VIS, np.stack(CANDIDATES), model=model).names == tuple("01234")
    assert rank(IR, VIS, iter(paths), model=model).names == tuple(map(str, paths))


def test_equal_candidates_stay_in_the_order_given(model):
    assert rank(IR, VIS, [CANDIDATES[0]] * 3, model=model).order == [0, 1, 2]


def test_bad_requests(model):
    with pytest.raises(InputError, match="`ir` as one image, got 2"):
        rank([IR, IR], VIS, CANDIDATES, model=model)
    with pytest.raises(InputError, match=r"`ir` is 64x80, `fused` is 40x80"):
        rank(IR, VIS, [CANDIDATES[0][:40]], model=model)
    with pytest.raises(ValueError, match="`aspect`"):
        rank(IR, VIS, CANDIDATES, model=model, aspect="beauty")
    with pytest.raises(InputError, match="at least one image"):
        rank(IR, VIS, [], model=model)


def watched(monkeypatch, model):
    """How many sources and fused images the vision part sees."""
    seen = {"sources": 0, "fused": 0, "prefixes": 0}
    backbone = model.backbone
    encode_sources, encode_fused = backbone.encode_sources, backbone.encode_fused
    read_sources = backbone.read_sources

    def sources(ir, vis):
        seen["sources"] += len(ir)
        return encode_sources(ir, vis)

    def fused(known, images, pair):
        seen["fused"] += len(images)
        return encode_fused(known, images, pair)

    def prefix(encoded):
        found = read_sources(encoded)
        seen["prefixes"] += len(found[0][0])
        return found

    monkeypatch.setattr(backbone, "encode_sources", sources)
    monkeypatch.setattr(backbone, "encode_fused", fused)
    monkeypatch.setattr(backbone, "read_sources", prefix)
    return seen


def test_sources_are_read_once(model, monkeypatch):
    seen = watched(monkeypatch, model)
    rank(IR, VIS, CANDIDATES, model=model, batch_size=2)
    assert seen == {"sources": 1, "fused": 5, "prefixes": 1}
    # Three scenes in turns: the sources come again, as other arrays.
    ir, vis = pictures(3, 2), pictures(3, 3)
    rows = [0, 1, 2, 2, 1, 0]
    found = score(ir[rows], vis[rows], pictures(6, 4), model=model, batch_size=3)
    assert seen == {"sources": 4, "fused": 11, "prefixes": 4}
    monkeypatch.undo()
    alone = [
        score(ir[row], vis[row], fused, model=model)
        for row, fused in zip(rows, pictures(6, 4), strict=True)
    ]
    assert torch.allclose(found, torch.cat(alone), atol=1e-5)


def test_feature_maps_of_the_sources_are_made_once(model, monkeypatch):
    """Also inside the embedded family, which looks at pixels late."""
    looks = []
    maps = model.backbone._maps
    monkeypatch.setattr(model.backbone, "_maps", lambda pixels: looks.append(1) or maps(pixels))
    rank(IR, VIS, CANDIDATES, model=model, batch_size=2)
    assert len(looks) == 2 + len(CANDIDATES)


def test_batches_on_a_gpu_are_the_same(model, monkeypatch):
    """There images are looked at in batches, several source pairs at once."""
    ir, vis, fused = (torch.rand(5, 3, 64, 80) for _ in range(3))
    pair = torch.tensor([1, 0, 1, 1, 0])
    alone = model(ir[pair], vis[pair], fused).score
    monkeypatch.setattr(type(model.backbone), "one_by_one", False)
    sources = model.encode_sources(ir[:2], vis[:2])
    together = [model.score_fused(sources, fused[:2], pair=pair[:2])]
    together.append(model.score_fused(sources, fused[2:], pair=pair[2:]))
    assert torch.allclose(torch.cat([x.score for x in together]), alone, atol=1e-5)
    assert torch.allclose(model(ir[:1], vis[:1], fused).score, rank_of(model, ir, vis, fused))


def rank_of(model, ir, vis, fused):
    return rank(ir[0], vis[0], fused, model=model).score


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (None, "one source pair, or one for each of 3, got 2"),
        (torch.tensor([0, 1, 2]), r"`pair` with values in \[0, 2\)"),
        (torch.tensor([0.0, 1, 1]), "`pair` as"),
        (torch.tensor([0, 1]), "`pair` as"),
    ],
)
def test_wrong_pairs_are_refused(model, pair, message):
    sources = model.encode_sources(torch.rand(2, 3, 64, 80), torch.rand(2, 3, 64, 80))
    with pytest.raises(ValueError, match=message):
        model.score_fused(sources, torch.rand(3, 3, 64, 80), pair=pair)


def test_fused_of_another_size_than_the_sources_is_refused(model):
    sources = model.encode_sources(torch.rand(1, 3, 64, 80), torch.rand(1, 3, 64, 80))
    with pytest.raises(InputError, match="`fused` of the sources' size 64x80, got 80x64"):
        model.score_fused(sources, torch.rand(1, 3, 80, 64))


def test_one_source_pair_with_a_graph_gets_the_whole_gradient(model):
    ir, vis, fused = (torch.rand(n, 3, 64, 80) for n in (1, 1, 3))
    ir.requires_grad_()
    model(ir, vis, fused).score.sum().backward()
    shared = ir.grad.clone()
    ir.grad = None
    model(ir.expand(3, -1, -1, -1), vis.expand(3, -1, -1, -1), fused).score.sum().backward()
    assert shared.abs().max() > 0
    assert torch.allclose(shared, ir.grad, atol=1e-6)


class Cramped:
    """Has memory for a few triples only."""

    def __init__(self, model: FuScore, room: int, error: Exception) -> None:
        self.score_them, self.room, self.error = model.score_fused, room, error
        self.sizes: list[int] = []

    def __call__(self, sources, fused, **options):
        self.sizes.append(len(fused))
        if len(fused) > self.room:
            raise self.error
        return self.score_them(sources, fused, **options)


OUT_OF_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
    MemoryError(),
)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("room", [1, 3])
def test_batches_become_smaller_where_memory_runs_out(model, monkeypatch, caplog, error, room):
    ir, vis = pictures(3, 2), pictures(3, 3)
    rows = [0, 0, 0, 0, 0, 1, 2, 1]
    given = ir[rows], vis[rows], pictures(8, 4)
    expected = score(*given, model=model)
    cramped = Cramped(model, room, error)
    monkeypatch.setattr(model, "score_fused", cramped)
    found = score(*given, model=model)
    assert torch.allclose(found, expected, atol=1e-5)
    done = [size for size in cramped.sizes if size <= room]
    assert sum(done) == 8  # each scored once
    assert len(cramped.sizes) - len(done) <= 3  # and no size tried twice
    assert "out of memory" in caplog.text


def test_no_room_for_one_triple_is_an_error_that_keeps_what_is_done(model, monkeypatch):
    sizes = [(64, 80), (96, 128)]
    triples = [[pictures(1, seed, *size)[0] for size in sizes] for seed in range(3)]
    score_them = model.score_fused

    def only_small(sources, fused, **options):
        if fused.shape[-1] > 80:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return score_them(sources, fused, **options)

    expected = score(*(x[0] for x in triples), model=model)
    monkeypatch.setattr(model, "score_fused", only_small)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        score(*triples, model=model)
    assert caught.value.scored.keys() == {0}
    assert torch.allclose(caught.value.scored[0].score, expected, atol=1e-6)


def test_other_errors_are_not_taken_for_a_lack_of_memory(model, monkeypatch):
    monkeypatch.setattr(
        model, "score_fused", Cramped(model, 0, RuntimeError("shapes do not match"))
    )
    with pytest.raises(RuntimeError, match="shapes"):
        score(IR, VIS, CANDIDATES, model=model)


def test_a_broken_file_midway_keeps_what_is_done(model, tmp_path):
    paths = [tmp_path / f"{n}.png" for n in range(4)]
    for path, pixels in zip(paths, CANDIDATES, strict=False):
        Image.fromarray(pixels).save(path)
    paths[3].write_bytes(paths[3].read_bytes()[:400])
    with pytest.raises(InputError, match=r"`fused\[3\]`") as caught:
        score(IR, VIS, paths, model=model, batch_size=2)
    assert caught.value.scored.keys() == {0, 1}
    assert not [t for t in threading.enumerate() if t.name.startswith("fuscore-decode")]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_scores_and_slopes_are_the_same():
    model, compiled = (FuScore.from_pretrained() for _ in range(2))
    compiled.compile()
    found = []
    for one in (model, compiled):
        fused = torch.from_numpy(CANDIDATES[0]).movedim(-1, 0)[None].float().div(255)
        fused.requires_grad_()
        value = score(IR, VIS, fused, model=one)
        value.sum().backward()
        found.append((value.detach(), fused.grad))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-4)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-3 * float(found[0][1].abs().max()))
    assert compiled.backbone.vision._compiled_call_impl is not None


REAL_LIMIT = """
import resource, sys, torch
sys.path.insert(0, {root!r})
torch.set_num_threads(1)
from fuscore_metric import FuScore, score
model = FuScore.from_pretrained()
images = [torch.rand(12, 3, 480, 640, generator=torch.Generator().manual_seed(n)) for n in range(3)]
small = [x[:2] for x in images]
expected = score(*small, model=model, batch_size=1)
type(model.backbone).one_by_one = False  # as on a GPU: memory grows with the batch
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
room = used + 1250 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (room, room))
found = score(*images, model=model, batch_size=12)
assert found.shape == (12,)
assert (found[:2] - expected).abs().max() < 1e-4, (found[:2], expected)
print("scored")
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's memory limit")
def test_a_real_lack_of_memory():
    """The operating system refuses memory, not a stand-in."""
    code = REAL_LIMIT.format(root=str(ROOT))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "scored" in done.stdout
    assert "out of memory" in done.stderr
