"""The Space's app: its functions on files, and the page as a person uses it in a browser."""

import csv
import hashlib
import importlib
import re
import socket
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

import fuscore_metric
from fuscore_metric import FuScore, InputError, score
from fuscore_metric.checkpoint import LABEL_MEANING
from fuscore_metric.prompts import ASPECTS, LEVEL_WORDS
from tests.tiny_model import tiny_fuscore

gradio = pytest.importorskip("gradio", reason="gradio is not installed (extra [demo])")

ROOT = Path(__file__).parents[1]
SPACE = ROOT / "hub_card" / "space"
EXAMPLE = ROOT / "fuscore_metric" / "assets" / "example"
CHROMIUM = Path("/usr/bin/chromium")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@pytest.fixture(scope="module")
def modules():
    """The app's modules, found as in a Space: beside each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SPACE))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        yield {name: importlib.import_module(name) for name in ("judging", "views", "app")}


@pytest.fixture(scope="module")
def judging(modules):
    return modules["judging"]


@pytest.fixture(scope="module")
def model():
    return FuScore.from_pretrained()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_fuscore(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The example, and files that an app may spoil or must refuse."""
    folder = tmp_path_factory.mktemp("files")
    found = {path.stem: path for path in EXAMPLE.glob("*.png")}
    counts = np.asarray(Image.open(EXAMPLE / "ir.png").convert("L")).astype(np.uint16)
    # Thermal counts of 14 bits, in whose high byte next to nothing would be left.
    counts = 7000 + 3 * counts + np.arange(640, dtype=np.uint16) % 3
    for name in ("thermal.png", "thermal.tiff"):
        found[name] = folder / name
        Image.fromarray(counts).save(found[name])
    found["jpeg"] = folder / "fused.jpg"
    Image.open(EXAMPLE / "fused_good.png").convert("RGB").save(found["jpeg"], quality=60)
    found["small"] = folder / "small.png"
    Image.new("RGB", (320, 240)).save(found["small"])
    found["text"] = folder / "text.png"
    found["text"].write_text("no image")
    return found


def payload(path, name=None):
    return {"path": str(path), "orig_name": name or Path(path).name}


@pytest.mark.parametrize("ir", ["ir", "thermal.png", "thermal.tiff"])
@pytest.mark.parametrize("fused", ["fused_good", "jpeg"])
def test_the_score_is_that_of_the_files(judging, model, files, ir, fused):
    triple = files[ir], files["vis"], files[fused]
    found = judging.judge(model, *map(payload, triple), "sharpness")
    expected = fuscore_metric.predict(*triple, model=model, aspect="sharpness")
    assert found.score == pytest.approx(expected.score.item(), abs=1e-6)
    assert found.std == pytest.approx(expected.std.item(), abs=1e-6)
    assert found.probabilities == pytest.approx(expected.probabilities[0].tolist(), abs=1e-6)
    assert list(found.aspects) == list(ASPECTS)
    assert found.aspects["sharpness"] == (found.score, found.std)
    overall = fuscore_metric.score(*triple, model=model).item()
    assert found.aspects["overall"][0] == pytest.approx(overall, abs=1e-6)


def test_a_slot_keeps_the_bytes_of_a_file(modules, files):
    """What `gr.Image` would do to a 16-bit file if the app let it: nothing, with these options."""
    from gradio.data_classes import ImageData

    with gradio.Blocks():
        slot = modules["app"]._slot("ir")
    given = ImageData(path=str(files["thermal.png"]), orig_name="thermal.png")
    assert Path(slot.preprocess(given)).read_bytes() == files["thermal.png"].read_bytes()


def test_where_the_score_was_lost(judging, model, files, tmp_path):
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
    picture, full = judging.locate_loss(model, *triple, "overall")
    fused = np.asarray(half_noisy.convert("RGB"))
    assert picture.shape == fused.shape
    assert picture.dtype == np.uint8
    tensors = [fuscore_metric.images.as_images(t["path"], "ir")[0][None] for t in triple]
    found = model.attribution(*tensors)[0].numpy()
    assert full == pytest.approx(found.max() * found.size / 100, rel=1e-5)
    moved = np.abs(picture.astype(int) - fused).sum(-1)
    low, high = np.quantile(found, [0.1, 0.9])
    assert moved[found >= high].mean() > 2 * moved[found <= low].mean()


def test_a_ranking_is_that_of_the_scores(judging, model, files, tmp_path):
    kinds = ("noisy", "good", "average", "blurred")
    fused = [files[f"fused_{kind}"] for kind in kinds]
    ranking = judging.rank(
        model, payload(files["ir"]), payload(files["vis"]), [payload(path) for path in fused]
    )
    out = fuscore_metric.predict([files["ir"]] * 4, [files["vis"]] * 4, fused, model=model)
    order = out.score.argsort(descending=True).tolist()
    assert [one.name for one in ranking] == [fused[n].name for n in order]
    assert [one.score for one in ranking] == pytest.approx(out.score[order].tolist(), abs=1e-6)
    for place, one in enumerate(ranking[:-1]):
        a, b = (fuscore_metric.FuScoreOutput(*rows(out, order[n])) for n in (place, place + 1))
        assert one.preferred == pytest.approx(model.preference(a, b).item(), abs=1e-6)
    assert ranking[-1].preferred is None
    assert max(ranking[0].thumbnail.size) <= 480
    judging.write_csv(ranking, model, tmp_path / "ranking.csv")
    with (tmp_path / "ranking.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["file"] for line in lines] == [one.name for one in ranking]
    assert [float(line["score"]) for line in lines] == [one.score for one in ranking]
    assert {line["labels"] for line in lines} == {model.spec.label_statement()}


def rows(out, n):
    return [x[n : n + 1] for x in (out.score, out.std, out.probabilities, out.level_logits)]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"fused": None}, ["`fused`", "empty"]),
        ({"ir": None, "vis": None}, ["`ir`", "`vis`", "empty"]),
        ({"fused": "small"}, ["480x640", "240x320", "same height and width"]),
        ({"vis": "text"}, ["`vis`", "'text.png'", "not in an image format"]),
    ],
)
def test_bad_input_becomes_a_message(modules, tiny, files, changed, words):
    names = {"ir": "ir", "vis": "vis", "fused": "fused_good"} | changed
    slots = [payload(files[name]) if name else None for name in names.values()]
    for function in (modules["judging"].judge, modules["judging"].locate_loss):
        with pytest.raises(gradio.Error) as caught:
            modules["app"]._readable(function)(tiny, *slots, "overall")
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
def test_bad_candidates_are_named(judging, tiny, files, fused, words):
    given = fused and [payload(files[name]) for name in fused]
    with pytest.raises(InputError) as caught:
        judging.rank(tiny, payload(files["ir"]), payload(files["vis"]), given)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("kind", LABEL_MEANING)
def test_the_labels_stand_on_the_page(modules, tiny, kind):
    spec = replace(tiny.spec, label_kind=kind, name="<b>name</b>")
    page = str(modules["app"].build_app(FuScore(tiny.backbone, spec)).config)
    assert LABEL_MEANING[kind].replace("'", "&#x27;") in page
    assert "&lt;b&gt;name" in page
    assert "<b>name" not in page


def test_names_of_files_are_escaped(modules, judging):
    hostile = "<img src=x onerror=alert(1)>.png"
    one = judging.Ranked(hostile, 3.0, 0.5, None, Image.new("RGB", (2, 2)))
    table = modules["views"].ranking_table([one])
    assert "<img" not in table
    assert "&lt;img src=x" in table


def test_the_environment_chooses_the_weights(modules, tiny, tmp_path, monkeypatch):
    tiny.save_pretrained(tmp_path)
    monkeypatch.setenv("FUSCORE_WEIGHTS", str(tmp_path))
    assert "Weights tiny," in str(modules["app"].build_app().config)
    monkeypatch.setenv("FUSCORE_WEIGHTS", str(tmp_path / "nothing"))
    with pytest.raises(fuscore_metric.CheckpointError):
        modules["app"].build_app()


def test_nothing_is_shared_or_counted(modules, tiny):
    options = modules["app"].launch_options()
    assert options["share"] is False
    assert modules["app"].build_app(tiny).analytics_enabled is False
    assert options["theme"]._stylesheets == []


# In a browser


@pytest.fixture(scope="module")
def seen():
    """What the app was given and said: filled by the served app."""
    return []


@pytest.fixture(scope="module")
def server(modules, model, seen):
    """The app on a free port of loopback; sockets to elsewhere are refused and remembered."""
    app, foreign = modules["app"], []
    with pytest.MonkeyPatch.context() as patch:
        real_judge, real_connect = app.judge, socket.socket.connect

        def judge(used, *slots_and_aspect):
            found = real_judge(used, *slots_and_aspect)
            seen.append((slots_and_aspect, found))
            return found

        def connect(self, address):
            if isinstance(address, tuple) and address[0] not in LOOPBACK:
                foreign.append(address)
                raise OSError("no network in tests")
            return real_connect(self, address)

        patch.setattr(app, "judge", judge)
        patch.setattr(socket.socket, "connect", connect)
        blocks = app.build_app(model)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = app.launch_options() | {"server_name": "127.0.0.1", "server_port": port}
        _, url, _ = blocks.launch(**options, prevent_thread_lock=True, quiet=True)
        yield url
        blocks.close(verbose=False)
    assert foreign == []


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.is_file():
        pytest.skip(f"no {CHROMIUM}")
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, server):
    """Open the app at a size; the test fails if the page complains or asks another host."""
    contexts, complaints = [], []

    def open_one(width=1280, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
        )
        contexts.append(context)
        context.on("request", lambda request: foreign(request, complaints))
        page = context.new_page()
        page.on("console", lambda m: m.type == "error" and complaints.append(m.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(server)
        page.wait_for_selector("#score")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []


def foreign(request, complaints):
    address = urlsplit(request.url)
    if address.scheme not in ("data", "blob") and address.hostname != "127.0.0.1":
        complaints.append(f"asked {request.url}")


def fits(page):
    wide, window = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    return wide <= window


def background(page):
    colour = page.evaluate("getComputedStyle(document.querySelector('.fs-card')).backgroundColor")
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_person_scores_and_ranks(open_page, model, files, tmp_path, width, scheme):
    names = ("fused_good", "fused_noisy")
    scores = score(files["ir"], files["vis"], [files[name] for name in names], model=model)
    good, noisy = (f"{value:.3f}" for value in scores.tolist())
    page = open_page(width, scheme)
    statement = page.locator("#labels")
    assert "MODEL ratings" in statement.inner_text()
    page.click("#example-good")
    page.wait_for_function("document.querySelectorAll('#ir img, #vis img, #fused img').length == 3")
    page.click("#score")
    page.wait_for_selector("#fs-score-card")
    card = page.locator("#fs-score-card").inner_text()
    assert re.search(rf"{float(good):.2f}\b", card)
    for word in LEVEL_WORDS:
        assert word in card
    page.wait_for_selector("#fs-legend", timeout=60_000)
    page.wait_for_selector("#map img")
    assert statement.is_visible()
    assert fits(page)
    assert (background(page) > 128) == (scheme == "light")
    page.screenshot(path=tmp_path / "one_fusion.png", full_page=True)

    page.get_by_role("tab", name="Candidates").click()
    page.set_input_files("#candidates-ir input[type=file]", files["ir"])
    page.set_input_files("#candidates-vis input[type=file]", files["vis"])
    page.set_input_files(
        "#candidates input[type=file]", [files["fused_noisy"], files["fused_good"]]
    )
    page.wait_for_function("document.querySelectorAll('#candidates tr.file').length == 2")
    page.wait_for_selector("#candidates-ir img")
    page.wait_for_selector("#candidates-vis img")
    page.click("#rank")
    page.wait_for_selector("#fs-ranking")
    lines = page.locator("#fs-ranking tbody tr").all_inner_texts()
    assert [line.split()[1] for line in lines] == ["fused_good.png", "fused_noisy.png"]
    assert [line.split()[2] for line in lines] == [good, noisy]
    page.wait_for_function("document.querySelectorAll('#gallery img').length == 2")
    assert statement.is_visible()
    assert fits(page)
    page.screenshot(path=tmp_path / "candidates.png", full_page=True)
    with page.expect_download() as waiting:
        page.click("#csv")
    waiting.value.save_as(tmp_path / "ranking.csv")
    assert (tmp_path / "ranking.csv").read_text().count("MODEL ratings") == 2


@pytest.mark.slow
def test_an_upload_arrives_bit_by_bit(open_page, model, seen, files):
    page = open_page()
    triple = files["thermal.png"], files["vis"], files["jpeg"]
    for slot, path in zip(("ir", "vis", "fused"), triple, strict=True):
        page.set_input_files(f"#{slot} input[type=file]", path)
        page.wait_for_selector(f"#{slot} img")
    page.get_by_label("Sharpness").check()
    page.click("#score")
    page.wait_for_selector("#fs-score-card")
    (*slots, aspect), found = seen[-1]
    assert aspect == "sharpness"
    for slot, path in zip(slots, triple, strict=True):
        assert digest(slot["path"]) == digest(path)
    expected = fuscore_metric.score(*triple, model=model, aspect="sharpness").item()
    assert found.score == pytest.approx(expected, abs=1e-6)
    assert f"{expected:.2f}" in page.locator("#fs-score-card").inner_text()
    # Nothing of it may stand beside other images, nor come late: the map is still being made.
    page.click("#ir [aria-label='Remove Image']")
    page.wait_for_selector("#fs-score-card", state="detached")
    page.wait_for_timeout(8000)
    assert page.locator("#fs-legend").count() == page.locator("#map img").count() == 0


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bad", "words"), [("small", "same height and width"), ("text", "not in an image format")]
)
def test_a_bad_file_is_explained(open_page, files, bad, words):
    page = open_page()
    for slot, name in (("ir", "ir"), ("vis", "vis"), ("fused", bad)):
        page.set_input_files(f"#{slot} input[type=file]", files[name])
        page.wait_for_selector(f"#{slot} img")
    page.click("#score")
    toast = page.locator(".toast-body")
    toast.wait_for()
    assert words in toast.inner_text()
    assert "Traceback" not in page.content()
    assert page.locator("#fs-score-card").count() == 0
