"""The Space's app: its functions on files, and what stands on its page."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fuscore_metric
from fuscore_metric import FuScore, InputError
from fuscore_metric.checkpoints.spec import LABEL_MEANING
from fuscore_metric.prompts import ASPECTS
from tests.helpers.tiny_model import tiny_fuscore

gradio = pytest.importorskip("gradio", reason="gradio is not installed (extra [demo])")


@pytest.fixture(scope="module")
def scoring(space):
    return space["scoring"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_fuscore(tmp_path_factory.mktemp("tiny"))


def payload(path, name=None):
    return {"path": str(path), "orig_name": name or Path(path).name}


@pytest.mark.parametrize("ir", ["ir", "thermal.png", "thermal.tiff"])
@pytest.mark.parametrize("fused", ["fused_good", "jpeg"])
def test_the_score_is_that_of_the_files(scoring, model, files, ir, fused):
    triple = files[ir], files["vis"], files[fused]
    found = scoring.score(model, *map(payload, triple), "sharpness")
    expected = fuscore_metric.predict(*triple, model=model, aspect="sharpness")
    assert found.score == pytest.approx(expected.score.item(), abs=1e-6)
    assert found.std == pytest.approx(expected.std.item(), abs=1e-6)
    assert found.probabilities == pytest.approx(expected.probabilities[0].tolist(), abs=1e-6)
    assert list(found.aspects) == list(ASPECTS)
    assert found.aspects["sharpness"] == (found.score, found.std)
    overall = fuscore_metric.score(*triple, model=model).item()
    assert found.aspects["overall"][0] == pytest.approx(overall, abs=1e-6)


def test_a_slot_keeps_the_bytes_of_a_file(space, files):
    """What `gr.Image` would do to a 16-bit file if the app let it: nothing, with these options."""
    from gradio.data_classes import ImageData

    with gradio.Blocks():
        slot = space["app"]._slot("ir")
    given = ImageData(path=str(files["thermal.png"]), orig_name="thermal.png")
    assert Path(slot.preprocess(given)).read_bytes() == files["thermal.png"].read_bytes()


def test_where_the_score_was_lost(scoring, model, files, tmp_path):
    parts = {  # which take a tenth of the time
        name: Image.open(files[name]).crop((200, 180, 392, 324))
        for name in ("ir", "vis", "fused_good", "fused_noisy")
    }
    half_noisy = parts["fused_good"]
    half_noisy.paste(parts["fused_noisy"].crop((0, 0, 96, 144)))
    names = ("ir", "vis", "fused_good")
    for name in names:
        parts[name].save(tmp_path / f"{name}.png")
    triple = [payload(tmp_path / f"{name}.png") for name in names]
    picture = scoring.locate_loss(model, *triple, "overall")
    fused = np.asarray(half_noisy.convert("RGB"))
    assert picture.shape == fused.shape
    assert picture.dtype == np.uint8
    tensors = [fuscore_metric.images.convert.as_images(t["path"], "ir")[0][None] for t in triple]
    found = model.attribution(*tensors)[0].numpy()
    moved = np.abs(picture.astype(int) - fused).sum(-1)
    low, high = np.quantile(found, [0.1, 0.9])
    assert moved[found >= high].mean() > 2 * moved[found <= low].mean()


def test_a_ranking_is_that_of_the_scores(scoring, model, files, tmp_path):
    kinds = ("noisy", "good", "average", "blurred")
    fused = [files[f"fused_{kind}"] for kind in kinds]
    ranking = scoring.rank(
        model, payload(files["ir"]), payload(files["vis"]), [payload(path) for path in fused]
    )
    out = fuscore_metric.predict([files["ir"]] * 4, [files["vis"]] * 4, fused, model=model)
    order = out.score.argsort(descending=True).tolist()
    assert [one.name for one in ranking] == [fused[n].name for n in order]
    assert [one.score for one in ranking] == pytest.approx(out.score[order].tolist(), abs=1e-6)
    for place, one in enumerate(ranking[:-1]):
        expected = fuscore_metric.preference(out[order[place]], out[order[place + 1]])
        assert one.preferred == pytest.approx(expected.item(), abs=1e-6)
    assert ranking[-1].preferred is None
    assert max(ranking[0].thumbnail.size) <= 480
    scoring.write_csv(ranking, model, tmp_path / "ranking.csv")
    with (tmp_path / "ranking.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["file"] for line in lines] == [one.name for one in ranking]
    assert [float(line["score"]) for line in lines] == [one.score for one in ranking]
    assert {line["labels"] for line in lines} == {model.spec.label_statement()}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"fused": None}, ["`fused`", "empty"]),
        ({"ir": None, "vis": None}, ["`ir`", "`vis`", "empty"]),
        ({"fused": "small"}, ["480x640", "240x320", "same height and width"]),
        ({"vis": "text"}, ["`vis`", "'text.png'", "not in an image format"]),
    ],
)
def test_bad_input_becomes_a_message(space, tiny, files, changed, words):
    names = {"ir": "ir", "vis": "vis", "fused": "fused_good"} | changed
    slots = [payload(files[name]) if name else None for name in names.values()]
    for function in (space["scoring"].score, space["scoring"].locate_loss):
        with pytest.raises(gradio.Error) as caught:
            space["app"]._readable(function)(tiny, *slots, "overall")
        assert all(word in caught.value.message for word in words)
        assert "/" not in caught.value.message  # no path of ours
        assert not caught.value.print_exception


@pytest.mark.parametrize(
    ("fused", "words"),
    [
        (None, ["at least one"]),
        ([], ["at least one"]),
        (["fused_good"] * 31, ["at most 30", "31"]),
        (["fused_good", "small"], ["small.png", "same height and width"]),
        (["fused_good", "text"], ["text.png", "readable image"]),
    ],
)
def test_bad_candidates_are_named(scoring, tiny, files, fused, words):
    given = fused and [payload(files[name]) for name in fused]
    with pytest.raises(InputError) as caught:
        scoring.rank(tiny, payload(files["ir"]), payload(files["vis"]), given)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("kind", LABEL_MEANING)
def test_the_labels_stand_on_the_page(space, tiny, kind):
    spec = replace(tiny.spec, label_kind=kind, name="<b>name</b>")
    page = str(space["app"].build_app(FuScore(tiny.backbone, spec)).config)
    assert LABEL_MEANING[kind].replace("'", "&#x27;") in page
    assert "&lt;b&gt;name" in page
    assert "<b>name" not in page


def test_names_of_files_are_escaped(space, scoring):
    hostile = "<img src=x onerror=alert(1)>.png"
    one = scoring.Ranked(hostile, 3.0, 0.5, None, Image.new("RGB", (2, 2)))
    table = space["views"].ranking_table([one])
    assert "<img" not in table
    assert "&lt;img src=x" in table


def test_the_environment_chooses_the_weights(space, tiny, tmp_path, monkeypatch):
    tiny.save_pretrained(tmp_path)
    monkeypatch.setenv("FUSCORE_MODEL", str(tmp_path))
    assert "Weights tiny," in str(space["app"].build_app().config)
    monkeypatch.setenv("FUSCORE_MODEL", str(tmp_path / "nothing"))
    with pytest.raises(fuscore_metric.CheckpointError):
        space["app"].build_app()


def test_nothing_is_shared_or_counted(space, tiny):
    options = space["app"].launch_options()
    assert options["share"] is False
    assert space["app"].build_app(tiny).analytics_enabled is False
    assert options["theme"]._stylesheets == []


def test_swapped_sources_are_doubted(scoring, files):
    ir, vis = payload(files["ir"]), payload(files["vis"])
    assert not scoring.doubt(ir, vis)
    assert "swapped" in scoring.doubt(vis, ir)
